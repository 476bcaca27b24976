"""Parameter trees: order of leaves, paths, rebuilding."""

from collections import OrderedDict
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad.engine.tree import leaves, leaves_with_paths, path_name, same_structure, tree_map, unflatten


class Pair(NamedTuple):
    first: object
    second: object


trees = st.recursive(
    st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.none()
    ),
    max_leaves=8,
)


@given(tree=trees)
def test_unflatten_inverts_leaves(tree):
    assert unflatten(tree, leaves(tree)) == tree


@given(tree=trees)
def test_paths_come_in_the_order_of_leaves(tree):
    assert [leaf for _, leaf in leaves_with_paths(tree)] == leaves(tree)


@given(tree=trees)
def test_every_path_leads_to_its_leaf(tree):
    for path, leaf in leaves_with_paths(tree):
        node = tree
        for part in path:
            node = node[part]
        assert node == leaf


@given(tree=trees)
def test_tree_map_of_two_trees(tree):
    doubled = tree_map(lambda a, b: a + b, tree, tree)
    assert leaves(doubled) == [2 * leaf for leaf in leaves(tree)]


@given(tree=trees)
def test_structure_does_not_depend_on_leaves(tree):
    assert same_structure(tree, tree_map(str, tree))


@pytest.mark.parametrize("other", [{"a": 1}, {"a": 1, "b": {"c": 2}}, {"a": 1, "b": [2], "c": 3}, [1, [2]]])
def test_other_paths_are_another_structure(other):
    assert not same_structure({"a": 1, "b": [2]}, other)


def test_dict_leaves_are_sorted_by_key():
    assert leaves({"b": 1, "a": {"z": 2, "y": 3}}) == [3, 2, 1]


def test_rebuilt_dict_keeps_the_order_of_its_keys():
    assert list(unflatten({"b": 0, "a": 0}, [1, 2])) == ["b", "a"]


def test_rebuilt_named_tuple_keeps_its_type():
    assert unflatten(Pair(0, [0]), [1, 2]) == Pair(1, [2]) and type(unflatten(Pair(0, 0), [1, 2])) is Pair


def test_none_is_an_empty_tree():
    assert leaves([None, 1, {"a": None}]) == [1]


def test_mapping_subclasses_are_inner_nodes():
    assert leaves(OrderedDict(b=1, a=2)) == [2, 1]


@pytest.mark.parametrize("path, name", [((), "."), (("a",), "a"), (("block", 0, "w"), "block/0/w")])
def test_path_name(path, name):
    assert path_name(path) == name


def test_deep_trees_do_not_exhaust_the_stack():
    tree = 7
    for _ in range(5000):
        tree = [tree]
    assert leaves(tree) == [7]
