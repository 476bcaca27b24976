"""update_stats against the literal loop over evaluations, nodes and channels in Python numbers."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad import ArgumentError, NonFiniteDynamics
from odegrad.engine.tree import leaves
from odegrad.layers import BatchNorm, Chain, Moments, TABatchNorm, Tanh
from odegrad.solvers import Aux
from oracles import EPS32, EPS64, assert_close
from strategies import seeds

NODES = (0.0, 0.1, 0.25, 0.6, 0.7, 1.0)
INITIAL = {
    "mean": np.zeros((6, 2)),
    "var": np.ones((6, 2)),
    "visits": np.zeros(6),
    "initial_share": np.ones(6),
}


def drawn_aux(seed, n, *, ts=None, dtype=np.float64):
    rng = np.random.default_rng(seed)
    if ts is None:
        ts = np.sort(rng.uniform(-0.1, 1.1, n))
    moments = Moments(rng.standard_normal((n, 2)).astype(dtype), rng.uniform(0.1, 4.0, (n, 2)).astype(dtype))
    return Aux(np.asarray(ts, float), moments)


def literal(stats, aux, momentum):
    """Each evaluation in turn moves the two nodes around its time; lists of Python numbers."""
    mean, var, visits, share = (stats[name].tolist() for name in ("mean", "var", "visits", "initial_share"))
    for i, t in enumerate(aux.ts.tolist()):
        for k, weight in around(t):
            visits[k] += weight
            share[k] -= momentum * weight * share[k]
            for c in range(2):
                mean[k][c] += momentum * weight * (float(aux.values.mean[i, c]) - mean[k][c])
                var[k][c] += momentum * weight * (float(aux.values.var[i, c]) - var[k][c])
    found = {"mean": mean, "var": var, "visits": visits, "initial_share": share}
    return {name: np.array(value) for name, value in found.items()}


def around(t):
    """(node, weight) of the cell that holds t; the end node alone outside."""
    if t <= NODES[0]:
        return [(0, 1.0)]
    if t >= NODES[-1]:
        return [(len(NODES) - 1, 1.0)]
    k = max(k for k in range(len(NODES)) if NODES[k] <= t)
    left = (NODES[k + 1] - t) / (NODES[k + 1] - NODES[k])
    return [(k, left), (k + 1, 1.0 - left)]


def assert_same(stats, expected, tol=100 * EPS64):
    assert stats.keys() == expected.keys()
    for name in expected:
        assert_close(stats[name], expected[name], scale=np.abs(expected[name]).max() + 1.0, tol=tol)


@given(seed=seeds, n=st.integers(1, 60), momentum=st.sampled_from([0.1, 0.5, 1.0]))
def test_update_is_the_literal_loop(seed, n, momentum):
    aux = drawn_aux(seed, n)
    updated = TABatchNorm(2, NODES, momentum=momentum).update_stats(INITIAL, aux)
    assert_same(updated, literal(INITIAL, aux, momentum))


@given(seed=seeds)
def test_update_continues_from_what_is_there(seed):
    layer, first, second = TABatchNorm(2, NODES), drawn_aux(seed, 13), drawn_aux(seed + 1, 7)
    updated = layer.update_stats(layer.update_stats(INITIAL, first), second)
    assert_same(updated, literal(literal(INITIAL, first, 0.1), second, 0.1))


def test_order_is_that_of_time_however_the_observations_come():
    aux = drawn_aux(0, 9)
    order = np.array([0, 3, 1, 2, 5, 4, 7, 6, 8])
    shuffled = Aux(aux.ts[order], Moments(aux.values.mean[order], aux.values.var[order]))
    layer = TABatchNorm(2, NODES)
    assert_same(layer.update_stats(INITIAL, shuffled), literal(INITIAL, aux, 0.1))


def test_backward_integration_is_followed_downwards():
    aux = drawn_aux(1, 9)
    down = Aux(aux.ts[::-1], Moments(aux.values.mean[::-1], aux.values.var[::-1]))
    assert_same(TABatchNorm(2, NODES).update_stats(INITIAL, down), literal(INITIAL, down, 0.1))


def test_later_observations_weigh_more():
    ts = [0.25, 0.25]
    mean = np.array([[1.0, 1.0], [2.0, 2.0]])
    updated = TABatchNorm(2, NODES).update_stats(INITIAL, Aux(np.array(ts), Moments(mean, np.ones((2, 2)))))
    assert_close(updated["mean"][2], np.full(2, 0.9 * 0.1 * 1.0 + 0.1 * 2.0), scale=1.0, tol=10 * EPS64)


def test_ties_keep_the_order_of_evaluation():
    """Many ties among times out of order, against Python's stable sort."""
    rng = np.random.default_rng(2)
    ts = rng.integers(1, 9, 300) / 10.0
    ts[0], ts[-1] = 0.0, 1.0
    aux = drawn_aux(2, 300, ts=ts)
    order = sorted(range(300), key=lambda i: ts[i])
    in_order = Aux(ts[order], Moments(aux.values.mean[order], aux.values.var[order]))
    assert_same(TABatchNorm(2, NODES).update_stats(INITIAL, aux), literal(INITIAL, in_order, 0.1))


def test_nodes_that_nothing_was_seen_near_keep_their_bits():
    aux = drawn_aux(3, 5, ts=[0.1, 0.11, 0.15, 0.2, 0.24])
    updated = TABatchNorm(2, NODES).update_stats(INITIAL, aux)
    untouched = [0, 3, 4, 5]
    assert all(np.array_equal(updated[name][untouched], INITIAL[name][untouched]) for name in INITIAL)


def test_an_observation_counts_one_visit_in_all():
    updated = TABatchNorm(2, NODES).update_stats(INITIAL, drawn_aux(4, 23))
    assert_close(updated["visits"].sum(), np.array(23.0), scale=23.0, tol=10 * EPS64)


def test_update_is_pure():
    before = copy.deepcopy(INITIAL)
    TABatchNorm(2, NODES).update_stats(INITIAL, drawn_aux(5, 9))
    assert all(np.array_equal(INITIAL[name], before[name]) for name in before)


def test_update_twice_from_the_same_gives_the_same_bits():
    layer, aux = TABatchNorm(2, NODES), drawn_aux(5, 9)
    first, second = layer.update_stats(INITIAL, aux), layer.update_stats(INITIAL, aux)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_float32_statistics_stay_float32_and_near():
    stats = {name: value.astype(np.float32) for name, value in INITIAL.items()}
    updated = TABatchNorm(2, NODES).update_stats(stats, drawn_aux(6, 40, dtype=np.float32))
    assert {value.dtype for value in updated.values()} == {np.dtype(np.float32)}
    assert_same(updated, literal(INITIAL, drawn_aux(6, 40, dtype=np.float32), 0.1), tol=10 * EPS32)


def test_nothing_seen_changes_nothing():
    assert TABatchNorm(2, NODES).update_stats(INITIAL, None) is INITIAL


def test_moments_without_times_are_refused():
    with pytest.raises(ArgumentError, match="needs to know when the moments were seen"):
        TABatchNorm(2, NODES).update_stats(INITIAL, Moments(np.zeros(2), np.ones(2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_moments_that_are_not_finite_are_refused(bad):
    aux = drawn_aux(7, 3)
    aux.values.var[1, 0] = bad
    with pytest.raises(NonFiniteDynamics, match="not finite in 1 of 12 observations"):
        TABatchNorm(2, NODES).update_stats(INITIAL, aux)


def test_batch_norm_follows_one_observation_of_a_call():
    stats = {"mean": np.array([1.0, 2.0]), "var": np.array([3.0, 4.0])}
    updated = BatchNorm(2).update_stats(stats, Moments(np.array([5.0, 6.0]), np.array([7.0, 8.0])))
    assert_close(updated["mean"], np.array([1.4, 2.4]), scale=2.0, tol=10 * EPS64)
    assert_close(updated["var"], np.array([3.4, 4.4]), scale=4.0, tol=10 * EPS64)


@given(seed=seeds)
def test_batch_norm_inside_a_solve_follows_every_observation(seed):
    aux = drawn_aux(seed, 11)
    stats = {"mean": np.zeros(2), "var": np.ones(2)}
    updated = BatchNorm(2, momentum=0.3).update_stats(stats, aux)
    mean, var = np.zeros(2), np.ones(2)
    for i in range(11):
        mean, var = 0.7 * mean + 0.3 * aux.values.mean[i], 0.7 * var + 0.3 * aux.values.var[i]
    assert_close(updated["mean"], mean, scale=1.0, tol=100 * EPS64)
    assert_close(updated["var"], var, scale=4.0, tol=100 * EPS64)


def test_a_chain_gives_each_layer_what_it_saw():
    net = Chain([Tanh(), TABatchNorm(2, NODES), Chain([Tanh(), BatchNorm(2)])])
    first, second = drawn_aux(8, 5), drawn_aux(9, 5)
    stats = [None, INITIAL, [None, {"mean": np.zeros(2), "var": np.ones(2)}]]
    updated = net.update_stats(stats, Aux(first.ts, {1: first.values, 2: {1: second.values}}))
    assert updated[0] is None and updated[2][0] is None
    assert_same(updated[1], literal(INITIAL, first, 0.1))
    expected = BatchNorm(2).update_stats(stats[2][1], Aux(first.ts, second.values))
    assert all(np.array_equal(a, b) for a, b in zip(leaves(updated[2]), leaves(expected), strict=True))
