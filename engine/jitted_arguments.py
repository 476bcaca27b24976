"""The arguments of a function under `jit`: which are traced, what tells calls apart, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from .backend import is_array, namespace_of, place_of
from .errors import ArgumentError, ArgumentTypeError
from .trace import NUMBERS
from .tree import Tree, leaves_with_paths, path_name


def without_static(
    f: Callable[..., Tree], args: tuple[Tree, ...], numbers: tuple[int, ...]
) -> tuple[tuple[Tree, ...], Callable[..., Tree], Hashable]:
    """The other arguments, f as a function of them, and a key of the static ones."""
    if not numbers:
        return args, f, ()
    if any(not -len(args) <= n < len(args) for n in numbers):
        raise ArgumentError(
            f"`static_argnums` {numbers} does not fit a call with {len(args)} positional arguments; give static ones by "
            "position"
        )
    positions = {n % len(args) for n in numbers}
    fixed = tuple((n, args[n]) for n in sorted(positions))
    for n, value in fixed:
        if not _is_hashable(value):
            raise ArgumentTypeError(
                f"argument {n} is static, and must be hashable; got {type(value).__name__}. Give a tuple, or capture it"
            )

    def of_others(*others: Tree, **kwargs: Tree) -> Tree:
        full = list(others)
        for n, value in fixed:
            full.insert(n, value)
        return f(*full, **kwargs)

    key = tuple((n, _static_kind(value)) for n, value in fixed)
    return tuple(arg for n, arg in enumerate(args) if n not in positions), of_others, key


def _static_kind(value: Any) -> Any:
    """The value with its type: 1, 1.0 and True are equal, and f may do something else with each."""
    if type(value) is tuple:
        return tuple, tuple(map(_static_kind, value))
    return type(value), value


def kind_of(tree: Tree) -> Any:
    """What arguments have in common that are replayed alike;
    strings and truth values count with their value.
    """
    kind = type(tree)
    if kind is np.ndarray:
        return tree.shape, tree.dtype
    if isinstance(tree, dict):
        return kind, tuple([(key, kind_of(value)) for key, value in tree.items()])
    if isinstance(tree, (list, tuple)):
        return kind, tuple([kind_of(child) for child in tree])
    if is_array(tree):  # a memmap or an array on a device, to whose stream the buffers belong
        return kind, tree.shape, tree.dtype, place_of(namespace_of(tree))
    return kind if _is_number(tree) or isinstance(tree, np.generic) else (kind, tree)


def refuse_unhashable(given: Tree, error: TypeError) -> None:
    """ArgumentTypeError for a leaf without a hash, by which calls would be told apart."""
    for path, leaf in leaves_with_paths(given):
        if not is_traced(leaf) and not _is_hashable(leaf):
            raise ArgumentTypeError(
                f"arguments under `jit` are arrays, numbers or hashable objects; got {type(leaf).__name__} at "
                f"{path_name(path[1:])!r}. Capture it instead, or give its class a hash (a frozen dataclass of such)"
            ) from error


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return type(value) in NUMBERS and type(value) is not bool


def is_traced(leaf: Any) -> bool:
    """Whether a value among the arguments is given anew to each replay."""
    return is_array(leaf) or isinstance(leaf, np.generic) or _is_number(leaf)


def refuse_what_would_freeze(given: Tree) -> None:
    """ArgumentTypeError for masked arrays, matrices and the like: a replay computes on their plain data;
    and for objects that are told apart by what they are and not by what they hold.
    """
    for path, leaf in leaves_with_paths(given):
        if not is_traced(leaf) and type(leaf).__hash__ is object.__hash__ and not callable(leaf):
            raise ArgumentTypeError(
                f"arguments under `jit` are arrays, numbers and objects compared by value; got a {type(leaf).__name__} "
                f"at {path_name(path[1:])!r}, and a replay would not see it change. Pass the arrays that it holds as a "
                "tree, or name it in `static_argnums`: what it holds then stays as it was in the first call"
            )
        if isinstance(leaf, np.ndarray) and type(leaf) not in (np.ndarray, np.memmap):
            raise ArgumentTypeError(
                f"arrays under `jit` must be plain numpy.ndarrays; got a {type(leaf).__name__} at "
                f"{path_name(path[1:])!r}, whose own rules would be lost. Convert it with numpy.array(...), a masked "
                "array with .filled(value)"
            )
