"""Parameter trees: nested dicts, lists, tuples and named tuples with arrays at the leaves;
None is an empty tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Tree = Any
Path = tuple[str | int, ...]


def _children(node: Tree) -> list[tuple[str | int, Tree]] | None:
    """(key, child) of an inner node in a fixed order (dict keys sorted); None if `node` is a leaf."""
    if isinstance(node, dict):
        return [(key, node[key]) for key in sorted(node)]
    if isinstance(node, (list, tuple)):
        return list(enumerate(node))
    return [] if node is None else None


def leaves(tree: Tree) -> list[Any]:
    """The leaves in order, depth first, dict keys sorted."""
    found: list[Any] = []
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend([node[key] for key in sorted(node, reverse=True)])
        elif isinstance(node, (list, tuple)):
            pending.extend(reversed(node))
        elif node is not None:
            found.append(node)
    return found


def leaves_with_paths(tree: Tree, prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Pairs (path, leaf) in the order of `leaves`."""
    children = _children(tree)
    if children is None:
        yield prefix, tree
    else:
        for key, child in children:
            yield from leaves_with_paths(child, (*prefix, key))


def path_name(path: Path) -> str:
    """A path as a person writes it: ("block", 0, "w") -> "block/0/w"; the root is "."."""
    return "/".join(str(part) for part in path) or "."


def unflatten(like: Tree, values: Iterable[Any]) -> Tree:
    """A tree of the structure of `like` with `values` as its leaves, in the order of `leaves(like)`."""
    source = iter(values)
    return _rebuild(like, source)


def _rebuild(like: Tree, source: Iterator[Any]) -> Tree:
    if isinstance(like, dict):
        rebuilt = dict.fromkeys(like)  # keeps the order of `like`
        for key in sorted(like):
            rebuilt[key] = _rebuild(like[key], source)
        return rebuilt
    if isinstance(like, (list, tuple)):
        children = [_rebuild(child, source) for child in like]
        if isinstance(like, list):
            return children
        return type(like)(*children) if hasattr(like, "_fields") else tuple(children)
    return None if like is None else next(source)


def tree_map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """`function` of the corresponding leaves of trees of one structure."""
    return unflatten(tree, map(function, leaves(tree), *(leaves(other) for other in others)))


def same_structure(first: Tree, second: Tree) -> bool:
    """Whether the two trees have the same paths."""
    return [p for p, _ in leaves_with_paths(first)] == [p for p, _ in leaves_with_paths(second)]
