"""TA-BN: a reading in plain Python of each mode, and the identities that follow from its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odegrad import ArgumentError
from odegrad.engine import random, vjp
from odegrad.engine.program import trace
from odegrad.layers import BatchNorm, Chain, Moments, TABatchNorm, Tanh, uniform_nodes
from odegrad.solvers import Aux
from oracles import EPS32, EPS64, assert_close, norm
from strategies import seeds

NODES = (0.0, 0.1, 0.25, 0.6, 0.7, 1.0)
times = st.one_of(st.floats(-0.3, 1.3), st.sampled_from(NODES))


def drawn(layer, seed, *, dtype=np.float64, visits=None):
    """(weights, stats, x) with nothing at its initial value; every node visited unless `visits` says otherwise."""
    rng = np.random.default_rng(seed)
    shape = (len(layer.nodes), layer.channels)
    weights = {"gamma": rng.uniform(0.5, 2.0, shape), "alpha": rng.standard_normal(shape)}
    stats = {
        "mean": rng.standard_normal(shape),
        "var": rng.uniform(0.2, 3.0, shape),
        "visits": np.full(shape[0], 5.0) if visits is None else np.array(visits, float),
        "initial_share": np.zeros(shape[0]),
    }
    x = 1.0 + 2.0 * rng.standard_normal((4, 3, layer.channels))
    cast = lambda tree: {name: value.astype(dtype) for name, value in tree.items()}  # noqa: E731 - local shorthand
    return cast(weights), cast(stats), x.astype(dtype)


def interpolated(nodes, values, t):
    """Linear interpolation between nodes, clamped, one Python number at a time."""
    if t <= nodes[0]:
        return values[0]
    for k in range(len(nodes) - 1):
        if t <= nodes[k + 1]:
            share = (t - nodes[k]) / (nodes[k + 1] - nodes[k])
            return (1 - share) * values[k] + share * values[k + 1]
    return values[-1]


def literal(layer, weights, stats, t, x, *, mode):
    """The definition, channel by channel and entry by entry, in Python numbers."""
    rows = x.reshape(-1, layer.channels)
    y = np.empty_like(rows)
    for c in range(layer.channels):
        if mode == "train" and layer.normalize == "batch":
            mean = sum(rows[:, c].tolist()) / len(rows)
            var = sum((v - mean) ** 2 for v in rows[:, c].tolist()) / len(rows)
        else:
            known = [
                k
                for k in range(len(layer.nodes))
                if layer.unvisited == "initial" or stats["visits"][k] >= 1.0
            ]
            nodes = [layer.nodes[k] for k in known]
            mean = interpolated(nodes, [stats["mean"][k, c] for k in known], t) if known else 0.0
            var = interpolated(nodes, [stats["var"][k, c] for k in known], t) if known else 1.0
        gamma = interpolated(layer.nodes, weights["gamma"][:, c], t)
        alpha = interpolated(layer.nodes, weights["alpha"][:, c], t)
        for i, value in enumerate(rows[:, c].tolist()):
            y[i, c] = gamma * (value - mean) / math.sqrt(var + layer.eps) + alpha
    return y.reshape(x.shape)


VISITS = {
    "all": [1, 1, 1, 1, 1, 1],
    "inner": [0, 3, 0.5, 1, 0, 0],
    "one": [0, 0, 0, 2, 0, 0],
    "ends": [1, 0, 0, 0.99, 0, 1],
    "none": [0, 0.9, 0, 0.4, 0, 0.999],
}


@pytest.mark.parametrize("visits", VISITS.values(), ids=VISITS)
@pytest.mark.parametrize("unvisited", ["skip", "initial"])
@pytest.mark.parametrize("normalize", ["batch", "population"])
@pytest.mark.parametrize("mode", ["train", "eval"])
@given(seed=seeds, t=times)
def test_output_is_the_literal_reading(mode, normalize, unvisited, visits, seed, t):
    layer = TABatchNorm(2, NODES, normalize=normalize, unvisited=unvisited)
    weights, stats, x = drawn(layer, seed, visits=visits)
    y, _ = layer.apply(weights, stats, t, x, mode=mode)
    expected = literal(layer, weights, stats, t, x, mode=mode)
    assert_close(y, expected, scale=np.abs(expected).max() + 10.0, tol=100 * EPS64)


@given(seed=seeds, t=times)
def test_statistics_constant_in_time_are_ordinary_batch_norm(seed, t):
    layer, plain = TABatchNorm(2, NODES), BatchNorm(2)
    weights, stats, x = drawn(layer, seed)
    for tree in (weights, stats):
        for name in set(tree) - {"visits", "initial_share"}:
            tree[name][:] = tree[name][0]
    y, _ = layer.apply(weights, stats, t, x, mode="eval")
    first = lambda tree: {name: value[0] for name, value in tree.items()}  # noqa: E731 - local shorthand
    expected, _ = plain.apply(first(weights), first(stats), None, x, mode="eval")
    assert_close(y, expected, scale=norm(expected), tol=10 * EPS64)


@pytest.mark.parametrize("node", range(len(NODES)))
def test_at_a_node_the_values_are_those_of_the_node(node):
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, node)
    y, _ = layer.apply(weights, stats, NODES[node], x, mode="eval")
    z = (x - stats["mean"][node]) / np.sqrt(stats["var"][node] + layer.eps)
    expected = weights["gamma"][node] * z + weights["alpha"][node]
    assert_close(y, expected, scale=norm(expected), tol=10 * EPS64)


@given(seed=seeds, t=times)
def test_batch_mode_does_not_read_the_population(seed, t):
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, seed)
    _, other, _ = drawn(layer, seed + 1)
    y, _ = layer.apply(weights, stats, t, x, mode="train")
    again, _ = layer.apply(weights, other, t, x, mode="train")
    assert np.array_equal(y, again)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("node", NODES)
def test_output_is_continuous_across_nodes(node, mode):
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, 3)
    before, at, after = (
        layer.apply(weights, stats, t, x, mode=mode)[0] for t in (node - 1e-9, node, node + 1e-9)
    )
    assert_close(before, at, scale=norm(at), tol=1e-7)
    assert_close(after, at, scale=norm(at), tol=1e-7)


@pytest.mark.parametrize("node", range(len(NODES) - 1))
def test_derivative_in_time_at_a_node_is_the_right_one(node):
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, 4)
    ybar = np.random.default_rng(5).standard_normal(x.shape)
    _, pull_back = vjp(lambda t: layer.apply(weights, stats, t, x, mode="train")[0], NODES[node])
    (tbar,) = pull_back(ybar)
    width = NODES[node + 1] - NODES[node]
    z = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + layer.eps)
    slope = (weights["gamma"][node + 1] - weights["gamma"][node]) / width * z
    slope += (weights["alpha"][node + 1] - weights["alpha"][node]) / width
    assert_close(tbar, np.sum(ybar * slope), scale=norm(ybar) * norm(slope), tol=100 * EPS64)


@pytest.mark.parametrize("t", [-0.2, 1.0, 1.7])
def test_derivative_in_time_vanishes_outside_the_grid(t):
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, 4)
    _, pull_back = vjp(lambda t: layer.apply(weights, stats, t, x, mode="eval")[0], t)
    assert pull_back(np.ones_like(x)) == (0.0,)


@given(seed=seeds, t=st.floats(0.0, 1.0))
def test_gradients_of_gamma_and_alpha_go_to_the_nodes_of_the_cell(seed, t):
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, seed)
    ybar = np.random.default_rng(seed).standard_normal(x.shape)
    _, pull_back = vjp(lambda w: layer.apply(w, stats, t, x, mode="train")[0], weights)
    (bars,) = pull_back(ybar)
    z = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + layer.eps)
    shares = np.array([interpolated(NODES, np.eye(len(NODES))[k], t) for k in range(len(NODES))])
    assert_close(bars["alpha"], shares[:, None] * ybar.sum((0, 1)), scale=norm(ybar), tol=100 * EPS64)
    assert_close(
        bars["gamma"], shares[:, None] * (ybar * z).sum((0, 1)), scale=norm(ybar) * norm(z), tol=100 * EPS64
    )


def test_gradient_through_batch_moments_ignores_shift_and_scale_of_the_input():
    """Normalised output does not change under x -> a x + b (up to eps), so the pull-back is orthogonal to both."""
    layer = TABatchNorm(2, NODES, eps=1e-300)
    weights, stats, x = drawn(layer, 6)
    ybar = np.random.default_rng(7).standard_normal(x.shape)
    _, pull_back = vjp(lambda x: layer.apply(weights, stats, 0.3, x, mode="train")[0], x)
    (xbar,) = pull_back(ybar)
    along = np.concatenate([xbar.sum((0, 1)), (xbar * x).sum((0, 1))])
    assert_close(along, np.zeros(4), scale=norm(ybar) * norm(x), tol=100 * EPS64)


def test_rows_are_coupled_in_batch_mode():
    assert _effect_of_the_first_row_on_the_others("batch") > 1e-2


def test_rows_are_independent_in_population_mode():
    assert _effect_of_the_first_row_on_the_others("population") == 0.0


def _effect_of_the_first_row_on_the_others(normalize):
    layer = TABatchNorm(2, NODES, normalize=normalize)
    weights, stats, x = drawn(layer, 8)
    moved = x.copy()
    moved[0] += 1.0
    y, y_moved = (layer.apply(weights, stats, 0.3, z, mode="train")[0] for z in (x, moved))
    return norm(y_moved[1:] - y[1:])


@pytest.mark.parametrize("normalize", ["batch", "population"])
def test_moments_seen_are_mean_and_unbiased_variance(normalize):
    layer = TABatchNorm(2, NODES, normalize=normalize)
    weights, stats, x = drawn(layer, 9)
    _, seen = layer.apply(weights, stats, 0.3, x, mode="train")
    assert_close(seen.mean, x.mean((0, 1)), scale=1.0, tol=100 * EPS64)
    assert_close(seen.var, x.var((0, 1), ddof=1), scale=4.0, tol=100 * EPS64)


def test_evaluation_sees_nothing():
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, 9)
    assert layer.apply(weights, stats, 0.3, x, mode="eval")[1] is None


def test_one_row_cannot_be_trained_on():
    layer = TABatchNorm(2, NODES)
    weights, stats, _ = drawn(layer, 9)
    with pytest.raises(ArgumentError, match=r"at least two values a channel; got an input of shape \(1, 2\)"):
        layer.apply(weights, stats, 0.3, np.ones((1, 2)), mode="train")


def test_one_row_can_be_evaluated():
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, 9)
    whole, _ = layer.apply(weights, stats, 0.3, x[:, 0], mode="eval")
    row, _ = layer.apply(weights, stats, 0.3, x[:1, 0], mode="eval")
    assert_close(row, whole[:1], scale=norm(whole), tol=10 * EPS64)


def test_fresh_layer_evaluates_with_mean_zero_and_variance_one():
    layer = TABatchNorm(2)
    x = np.random.default_rng(0).standard_normal((5, 2))
    weights, stats = layer.init(random.key(0), np.float64), layer.init_stats(np.float64)
    y, _ = layer.apply(weights, stats, 0.3, x, mode="eval")
    assert_close(y, x / math.sqrt(1.0 + 1e-5), scale=norm(x), tol=10 * EPS64)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("normalize", ["batch", "population"])
def test_float32_agrees_with_float64_and_stays(mode, normalize):
    layer = TABatchNorm(2, NODES, normalize=normalize)
    weights, stats, x = drawn(layer, 10)
    wide, _ = layer.apply(weights, stats, 0.37, x, mode=mode)
    narrow, seen = layer.apply(*drawn(layer, 10, dtype=np.float32)[:2], 0.37, x.astype(np.float32), mode=mode)
    assert narrow.dtype == np.float32 and all(part.dtype == np.float32 for part in seen or ())
    assert_close(narrow, wide.astype(np.float32), scale=norm(wide), tol=10 * EPS32)


def test_layers_of_one_grid_share_their_hat_weights_in_a_program():
    net = Chain([TABatchNorm(2), Tanh(), TABatchNorm(2)])
    weights, stats = net.init(random.key(0), np.float64), net.init_stats(np.float64)

    def f(t, x):
        return net.apply(weights, stats, t, x, mode="train")[0]

    program = trace(f, 0.3, np.ones((4, 2)))
    grids = {step.inputs[1] for step in program.steps if step.op.name == "hat_weights"}
    assert len(grids) == 1


def test_penalty_is_the_sum_over_nodes_of_mean_squares():
    layer = TABatchNorm(2, NODES)
    weights, _, _ = drawn(layer, 11)
    expected = sum(
        np.mean((weights["gamma"][k] - 1) ** 2) + np.mean(weights["alpha"][k] ** 2) for k in range(len(NODES))
    )
    assert_close(layer.penalty(weights), expected, scale=expected, tol=10 * EPS64)


def test_penalty_of_a_fresh_layer_is_zero():
    assert TABatchNorm(2).penalty(TABatchNorm(2).init(random.key(0))) == 0.0


def test_default_grid_has_101_nodes_on_the_unit_interval():
    assert TABatchNorm(2).nodes == tuple(k / 100 for k in range(101))


def test_uniform_nodes_hold_both_ends():
    assert uniform_nodes(-1.0, 2.0, 3) == (-1.0, 0.0, 1.0, 2.0)


BAD = {
    "no channels": (lambda: TABatchNorm(0), "`channels` must be at least 1; got 0"),
    "one node": (lambda: TABatchNorm(2, (0.0,)), "at least two finite times"),
    "infinite node": (lambda: TABatchNorm(2, (0.0, math.inf)), "at least two finite times"),
    "equal nodes": (lambda: TABatchNorm(2, (0.0, 0.5, 0.5)), r"nodes\[1\] = 0.5, nodes\[2\] = 0.5"),
    "unknown normalize": (lambda: TABatchNorm(2, normalize="bacth"), "'batch', 'population'; got 'bacth'"),
    "unknown unvisited": (lambda: TABatchNorm(2, unvisited="no"), "'skip', 'initial'; got 'no'"),
    "momentum": (lambda: TABatchNorm(2, momentum=0.0), r"`momentum` must lie in \(0, 1\]; got 0.0"),
    "eps": (lambda: TABatchNorm(2, eps=0.0), "`eps` must be positive; got 0.0"),
    "empty interval": (lambda: uniform_nodes(1.0, 1.0), "t0 < t1"),
    "no cells": (lambda: uniform_nodes(0.0, 1.0, 0), "at least one cell"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_configuration_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


CALLS = {
    "mode": ({"mode": "training"}, '"train" or "eval"; got \'training\''),
    "no time": ({"t": None}, "needs a time; got t = None"),
    "channels": ({"x": np.ones((4, 3))}, r"takes inputs \(..., 2\) after the batch axis; got \(3,\)"),
}


@pytest.mark.parametrize(("changes", "message"), CALLS.values(), ids=CALLS)
def test_bad_call_is_refused(changes, message):
    layer = TABatchNorm(2, NODES)
    weights, stats, x = drawn(layer, 12)
    given_ = {"t": 0.3, "x": x, "mode": "train"} | changes
    with pytest.raises(ArgumentError, match=message):
        layer.apply(weights, stats, given_["t"], given_["x"], mode=given_["mode"])


@pytest.mark.parametrize("n_seen", [10, 40])
def test_evaluation_reads_averages_of_what_was_seen_alone(n_seen):
    """After few observations of one and the same moments a visited node gives them, whatever it started with."""
    layer, ts = TABatchNorm(2, NODES), np.repeat(NODES, n_seen)
    mean, var = np.array([3.0, -2.0]), np.array([0.25, 9.0])
    aux = Aux(ts, Moments(np.tile(mean, (len(ts), 1)), np.tile(var, (len(ts), 1))))
    weights, stats = layer.init(random.key(0), np.float64), layer.init_stats(np.float64)
    stats = layer.update_stats(stats, aux)
    assert stats["initial_share"].max() < 1.0
    x = np.random.default_rng(0).standard_normal((5, 2))
    y, _ = layer.apply(weights, stats, 0.42, x, mode="eval")
    assert_close(y, (x - mean) / np.sqrt(var + layer.eps), scale=10.0, tol=100 * EPS64)


def test_the_paper_reading_keeps_what_is_left_of_the_initial_values():
    layer = TABatchNorm(1, NODES, unvisited="initial")
    aux = Aux(np.array(NODES), Moments(np.full((6, 1), 2.0), np.full((6, 1), 5.0)))
    stats = layer.update_stats(layer.init_stats(np.float64), aux)
    weights = layer.init(random.key(0), np.float64)
    y, _ = layer.apply(weights, stats, 0.3, np.ones((3, 1)), mode="eval")
    assert_close(y, np.full((3, 1), (1.0 - 0.2) / np.sqrt(1.4 + layer.eps)), scale=1.0, tol=100 * EPS64)
