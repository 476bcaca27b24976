"""The layer that solves: its value, its derivative, and which evaluations its normalisation layers learn from."""

from dataclasses import replace

import numpy as np
import pytest
from odegrad import vjp
from odegrad.engine import ops, random, value_and_grad
from odegrad.engine.tree import leaves, leaves_with_paths, tree_map, unflatten
from odegrad.layers import (
    BatchNorm,
    Chain,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    Linear,
    ODEBlock,
    TABatchNorm,
    Tanh,
    solves,
    uniform_nodes,
)
from odegrad.solvers.options import GRADIENTS
from oracles import assert_close, complex_step, inner_all, norm
from scipy.integrate import solve_ivp

KEY = random.key(4)


NODES = uniform_nodes()


def dynamics(normalize="batch", nodes=NODES, width=6):
    return Chain(
        [
            Linear(3, width, with_time=True),
            TABatchNorm(width, nodes, normalize=normalize),
            Tanh(),
            Linear(width, 3, with_time=True),
            TABatchNorm(3, nodes, normalize=normalize),
        ]
    )


def drawn(layer, seed=0, batch=5, shape=(3,)):
    """(weights, stats, x) in float64 with gamma, alpha, mean and variance away from their initial values."""
    rng = np.random.default_rng(seed)
    weights = tree_map(lambda w: w + 0.2 * rng.standard_normal(w.shape), layer.init(KEY, np.float64))
    stats = moved(layer.init_stats(np.float64), lambda s: rng.uniform(0.1, 0.4, s.shape))
    return weights, stats, rng.standard_normal((batch, *shape))


def moved(stats, by):
    """Statistics with something added to all but the share of initial values, which is below 1."""
    values = [
        np.full(s.shape, 0.25) if path[-1] == "initial_share" else s + by(s)
        for path, s in leaves_with_paths(stats)
    ]
    return unflatten(stats, values)


def solved(block, weights, stats, x, mode="train", key=KEY):
    return block.apply(weights, stats, None, x, mode=mode, key=key)


# --- value ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (1.0, 0.2)])
def test_the_block_solves_the_ode_of_its_layer(t0, t1):
    block = ODEBlock(dynamics(nodes=(0.0, 1.0)), t0, t1, rtol=1e-9, atol=1e-9)
    weights, stats, x = drawn(block)

    def f(t, h):
        return block.net.apply(weights, stats, t, h.reshape(x.shape), mode="eval")[0].ravel()

    expected = solve_ivp(f, (t0, t1), x.ravel(), "DOP853", rtol=1e-12, atol=1e-12).y[:, -1].reshape(x.shape)
    y, _ = solved(block, weights, stats, x, "eval")
    assert_close(y, expected, scale=norm(expected), tol=1e-8)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_eager_and_replayed_solves_agree(mode):
    block = ODEBlock(dynamics())
    weights, stats, x = drawn(block)
    y, _ = solved(block, weights, stats, x, mode)
    eager, _ = solved(replace(block, execution="eager"), weights, stats, x, mode)
    assert_close(y, eager, scale=norm(eager), tol=1e-12)


def test_new_statistics_reach_a_program_that_was_compiled_before():
    block = ODEBlock(dynamics())
    weights, stats, x = drawn(block)
    solved(block, weights, stats, x, "eval")
    later = moved(stats, lambda s: 1.0)
    y, _ = solved(block, weights, later, x, "eval")
    eager, _ = solved(replace(block, execution="eager"), weights, later, x, "eval")
    assert_close(y, eager, scale=norm(eager), tol=1e-12)


def test_nodes_as_breakpoints_keep_the_order_of_the_method():
    """Few nodes, so that steps stay long: kinks inside of steps cost accuracy, kinks at their ends do not."""
    nodes = (0.0, 0.3, 0.7, 1.0)
    exact = ODEBlock(dynamics(nodes=nodes), rtol=1e-12, atol=1e-12, breakpoints=nodes)
    weights, stats, x = drawn(exact)
    expected, _ = solved(exact, weights, stats, x, "eval")
    errors = []
    for stops in ((), nodes):
        block = replace(exact, rtol=1e-6, atol=1e-6, breakpoints=stops)
        y, seen = solved(block, weights, stats, x, "eval")
        errors.append(norm(y - expected) * seen.stats.nfe**5)  # what remains for equal work at order 5
    assert errors[1] < 0.2 * errors[0]


# --- derivative -----------------------------------------------------------------------------------------------------


def pulled_back(block, weights, stats, x, ybar, key=KEY):
    _, pull_back = vjp(lambda w, x: solved(block, w, stats, x, key=key)[0], weights, x)
    return leaves(pull_back(ybar))


def rk4(f, y, n_steps):
    """The classical method on n equal steps of [0, 1]."""
    h = 1.0 / n_steps
    for i in range(n_steps):
        t = i * h
        k1 = f(t, y)
        k2 = f(t + h / 2, y + h / 2 * k1)
        k3 = f(t + h / 2, y + h / 2 * k2)
        k4 = f(t + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


@pytest.mark.parametrize("gradient", ["discrete", "tape"])
@pytest.mark.parametrize("normalize", ["batch", "population"])
def test_gradient_agrees_with_complex_step_through_a_loop_of_fixed_steps(normalize, gradient, rng):
    block = ODEBlock(dynamics(normalize), method="rk4", step_size=0.25, gradient=gradient)
    weights, stats, x = drawn(block)
    flat = [*leaves(weights), x]
    directions = [rng.standard_normal(a.shape) for a in flat]
    ybar = rng.standard_normal(x.shape)

    def loop(*values):
        w = unflatten(weights, values[:-1])
        return rk4(lambda t, h: block.net.apply(w, stats, t, h, mode="train")[0], values[-1], 4)

    ydot = complex_step(loop, flat, directions)
    bars = pulled_back(block, weights, stats, x, ybar)
    scale = norm(ybar) * norm(ydot) + norm(*bars) * norm(*directions)
    assert_close(inner_all([ybar], [ydot]), inner_all(bars, directions), scale=scale, tol=1e-12)


@pytest.mark.parametrize("keep", ["all", "none"])
@pytest.mark.parametrize("normalize", ["batch", "population"])
def test_discrete_gradient_is_that_of_the_tape(normalize, keep, rng):
    block = ODEBlock(dynamics(normalize), keep=keep)
    weights, stats, x = drawn(block)
    ybar = rng.standard_normal(x.shape)
    bars = pulled_back(block, weights, stats, x, ybar)
    expected = pulled_back(replace(block, gradient="tape"), weights, stats, x, ybar)
    for bar, oracle in zip(bars, expected, strict=True):
        assert_close(bar, oracle, scale=norm(*expected), tol=1e-12)


@pytest.mark.parametrize("gradient", ["backsolve", "interpolated"])
def test_a_continuous_adjoint_comes_close_for_a_grid_without_kinks(gradient, rng):
    block = ODEBlock(dynamics(nodes=(0.0, 1.0)), rtol=1e-8, atol=1e-8)
    weights, stats, x = drawn(block)
    ybar = rng.standard_normal(x.shape)
    bars = pulled_back(replace(block, gradient=gradient), weights, stats, x, ybar)
    expected = pulled_back(replace(block, gradient="tape"), weights, stats, x, ybar)
    for bar, oracle in zip(bars, expected, strict=True):
        assert_close(bar, oracle, scale=norm(*expected), tol=1e-6)


def test_gradient_of_a_whole_network_is_that_of_the_tape():
    conv = Chain(
        [Conv2d(1, 3, stride=2, with_time=True), TABatchNorm(3), Tanh(), ConvTranspose2d(3, 1, (5, 5))]
    )
    labels = np.array([0, 2, 1, 1])

    def gradient(method):
        net = Chain([ODEBlock(conv, gradient=method), BatchNorm(1), Flatten(), Dropout(0.5), Linear(25, 3)])
        weights, stats, x = drawn(net, batch=4, shape=(5, 5, 1))

        def loss(w):
            logits, _ = net.apply(w, stats, None, x, mode="train", key=KEY)
            return ops.softmax_cross_entropy(logits, labels) + 0.1 * net.penalty(w)

        return leaves(value_and_grad(loss)(weights)[1])

    expected = gradient("tape")
    for bar, oracle in zip(gradient("discrete"), expected, strict=True):
        assert_close(bar, oracle, scale=norm(*expected), tol=1e-12)


def test_every_weight_has_a_gradient(rng):
    """gamma and alpha only where stages fell; a bias just before a batch norm has none."""
    block = ODEBlock(dynamics())
    weights, stats, x = drawn(block)
    bars = unflatten(weights, pulled_back(block, weights, stats, x, rng.standard_normal(x.shape))[:-1])
    sizes = {(k, name): norm(bar) for k in range(5) if bars[k] for name, bar in bars[k].items()}
    assert {key for key, size in sizes.items() if size < 1e-10} == {
        (0, "b"),
        (3, "b"),
        (0, "w_t"),
        (3, "w_t"),
    }


# --- what is seen ---------------------------------------------------------------------------------------------------


def test_every_evaluation_of_an_accepted_step_is_seen_once():
    block = ODEBlock(dynamics())
    _, seen = solved(block, *drawn(block))
    assert len(seen.aux.ts) == 6 * seen.stats.n_accepted + 1
    assert seen.aux.values[1].mean.shape == (len(seen.aux.ts), 6)


def test_rejected_steps_are_not_seen():
    class Bursting(Tanh):
        """Slow, then fast: the step size that was right before t = 0.5 is refused after it."""

        def apply(self, weights, stats, t, x, *, mode, key=None):
            return 3.0 * ops.sin(60.0 * ops.softplus(40.0 * (t - 0.5)) / 40.0) + 0.0 * x, None

    block = ODEBlock(Chain([TABatchNorm(3), Bursting()]), rtol=1e-5, atol=1e-5)
    _, seen = solved(block, *drawn(block))
    assert seen.stats.n_rejected > 0
    assert len(seen.aux.ts) == 6 * seen.stats.n_accepted + 1


def test_times_run_from_start_to_end():
    block = ODEBlock(dynamics())
    _, seen = solved(block, *drawn(block))
    assert seen.aux.ts[0] == 0.0 and seen.aux.ts[-1] == 1.0 and np.all(np.diff(seen.aux.ts) >= 0)


def test_the_first_moments_are_those_of_the_input():
    block = ODEBlock(dynamics())
    weights, stats, x = drawn(block)
    _, seen = solved(block, weights, stats, x)
    before = x @ weights[0]["w"] + weights[0]["b"]
    assert_close(seen.aux.values[1].mean[0], before.mean(0), scale=1.0, tol=1e-14)
    assert_close(seen.aux.values[1].var[0], before.var(0, ddof=1), scale=1.0, tol=1e-14)


def test_running_twice_gives_the_same_statistics():
    block = ODEBlock(dynamics())
    weights, stats, x = drawn(block)
    first, second = (leaves(block.update_stats(stats, solved(block, weights, stats, x)[1])) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_backward_pass_is_not_seen(gradient):
    """Neither the steps that `discrete` recomputes nor those that `backsolve` takes add an observation."""
    block = ODEBlock(dynamics(), gradient=gradient, keep="none", drift_limit=np.inf)
    weights, stats, x = drawn(block)

    def loss(w):
        y, seen = solved(block, w, stats, x)
        return ops.sum(y * y), seen

    (_, seen), _ = value_and_grad(loss, has_aux=True)(weights)
    _, alone = solved(block, weights, stats, x)
    differentiated, plain = (leaves(block.update_stats(stats, s)) for s in (seen, alone))
    for a, b in zip(differentiated, plain, strict=True):
        assert_close(a, b, scale=1.0 + norm(b), tol=1e-12)


def test_visits_add_up_to_the_evaluations():
    block = ODEBlock(dynamics())
    weights, _, x = drawn(block)
    stats = block.init_stats(np.float64)
    _, seen = solved(block, weights, stats, x)
    visits = block.update_stats(stats, seen)[1]["visits"]
    assert_close(visits.sum(), np.array(float(len(seen.aux.ts))), scale=100.0, tol=1e-14)


def test_batch_norm_inside_is_one_pair_for_all_times():
    block = ODEBlock(Chain([Linear(3, 3), BatchNorm(3), Tanh()]))
    weights, stats, x = drawn(block)
    _, seen = solved(block, weights, stats, x)
    mean = stats[1]["mean"]
    for observed in seen.aux.values[1].mean:
        mean = 0.9 * mean + 0.1 * observed
    assert_close(block.update_stats(stats, seen)[1]["mean"], mean, scale=1.0, tol=1e-13)


def test_a_layer_without_statistics_sees_nothing():
    block = ODEBlock(Chain([Linear(3, 3), Tanh()]))
    weights, stats, x = drawn(block)
    assert block.update_stats(stats, solved(block, weights, stats, x)[1]) == stats


def test_counts_of_the_backward_pass_reach_the_caller():
    net = Chain([ODEBlock(dynamics()), BatchNorm(3)])
    weights, stats, x = drawn(net)

    def loss(w):
        y, seen = net.apply(w, stats, None, x, mode="train")
        return ops.sum(y * y), seen

    (_, seen), _ = value_and_grad(loss, has_aux=True)(weights)
    (only,) = solves(seen)
    assert only.stats.nfe > 0 and only.stats.n_vjp_state > 0


# --- dropout inside -------------------------------------------------------------------------------------------------


def test_dropout_inside_has_one_mask_for_the_solve():
    """With zero slopes where the mask is zero, those entries never move: any second mask would move them."""
    block = ODEBlock(Dropout(0.5))
    x = np.random.default_rng(0).uniform(1.0, 2.0, (4, 6))
    y, _ = solved(block, None, None, x)
    first_mask = Dropout(0.5).apply(None, None, None, x, mode="train", key=KEY)[0] == 0.0
    assert np.array_equal(y == x, first_mask)
    assert_close(y[~first_mask], x[~first_mask] * np.exp(2.0), scale=20.0, tol=1e-3)


def test_dropout_inside_is_drawn_a_few_times_and_not_once_an_evaluation(monkeypatch):
    calls = []
    uniform = random.uniform
    monkeypatch.setattr(
        random, "uniform", lambda *args, **kwargs: calls.append(0) or uniform(*args, **kwargs)
    )
    block = ODEBlock(Chain([Dropout(0.5), Linear(3, 3), Tanh()]), rtol=1e-8, atol=1e-8)
    weights, stats, x = drawn(block)
    calls.clear()
    _, seen = solved(block, weights, stats, x)
    assert seen.stats.nfe > 40 and len(calls) <= 3  # the recording, the comparison with it, the prologue


def test_a_new_key_reaches_a_program_that_was_compiled_before():
    block = ODEBlock(Chain([Linear(3, 3), Dropout(0.5), Tanh()]))
    weights, stats, x = drawn(block)
    solved(block, weights, stats, x)
    y, _ = solved(block, weights, stats, x, key=random.key(9))
    eager, _ = solved(replace(block, execution="eager"), weights, stats, x, key=random.key(9))
    assert_close(y, eager, scale=norm(eager), tol=1e-12)
