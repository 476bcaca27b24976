"""Solves of arrays on a device: the numbers of NumPy, and one scalar read a step attempted.

On the stand-in for CuPy, which refuses what CuPy refuses; with `-m gpu` on CuPy itself.
"""

import numpy as np
import pytest
from odegrad import Event, grad, hvp, jvp, odeint, ops, value_and_grad
from odegrad.engine import backend
from odegrad.engine.tree import leaves, tree_map
from oracles import assert_close, norm

TS = np.array([0.0, 0.3, 1.0])
RNG = np.random.default_rng(8)
Y0, W = RNG.standard_normal((3, 2)), 0.5 * RNG.standard_normal((2, 2))
FIXED = {"method": "rk4", "step_size": 0.1}


def f(t, y, w):
    return ops.tanh(y @ w) * (1.0 + t)


def loss_of(ys):
    return ops.sum(ops.square(ys))


def gradients(gradient, **options):
    """Of the loss with respect to y0, ts and the parameters."""

    def loss(y0, ts, w):
        return loss_of(odeint(f, y0, ts, w, gradient=gradient, **options).ys)

    return lambda y0, w: value_and_grad(loss, argnums=(0, 1, 2))(y0, TS, w)


def solution(**options):
    return lambda y0, w: odeint(f, y0, TS, w, **options).ys


def of_an_event(y0, w):
    sol = odeint(f, y0, TS, w, events=[Event(lambda t, y: ops.sum(y) - 0.1, terminal=True)])
    return sol.ys, sol.events[0].ts, sol.events[0].ys


def through_a_jump(y0, w):
    half = Event(lambda t, y: t - 0.5, jump=lambda t, y: 0.5 * y)
    return grad(lambda y0: loss_of(odeint(f, y0, TS, w, events=[half]).ys))(y0)


def with_aux(y0, w):
    sol = odeint(lambda t, y, w: (f(t, y, w), ops.mean(y)), y0, TS, w, has_aux=True)
    return sol.ys, sol.aux.values


def of_a_tree(y0, w):
    def both(t, y, w):
        return {"a": y["b"] @ w, "b": -y["a"]}

    return odeint(both, {"a": y0, "b": 2.0 * y0}, TS, w).ys


CASES = {
    **{f"gradient {name}": gradients(name) for name in ("tape", "discrete", "backsolve", "interpolated")},
    "gradient reversible": gradients("reversible", step_size=0.1, method="rk4"),
    "nothing kept": gradients("discrete", keep="none"),
    "checkpoints": gradients("discrete", checkpoints=2, **FIXED),
    "jump_ts": gradients("discrete", jump_ts=[0.5]),
    "breakpoints": gradients("discrete", breakpoints=[0.5]),
    **{f"method {name}": gradients("discrete", method=name) for name in ("bosh3", "tsit5", "dop853", "vern7")},
    "eager": gradients("discrete", execution="eager"),
    "second derivative": lambda y0, w: hvp(lambda y: loss_of(odeint(f, y, TS, w).ys), (y0,), (y0,)),
    "forward derivative": lambda y0, w: jvp(lambda y: odeint(f, y, TS, w).ys, (y0,), (y0,)),
    "dense output": lambda y0, w: odeint(f, y0, TS, w, dense=True).dense(np.array([0.1, 0.7])),
    "every step": lambda y0, w: odeint(f, y0, TS[[0, 2]], w, save="steps").ys,
    "norm max": solution(norm="max"),
    "norm leaves": solution(norm="leaves"),
    "norm of the user": solution(norm=lambda ratio: abs(ratio).max()),
    "tolerances of each value": lambda y0, w: odeint(f, y0, TS, w, atol=1e-6 + 0.0 * y0).ys,
    "rows with their own steps": solution(independent=True),
    "multistep": solution(method="adams_bashforth_moulton", step_size=0.02),
    "terminal event": of_an_event,
    "event with a jump": through_a_jump,
    "aux": with_aux,
    "tree": of_a_tree,
}  # fmt: skip


def on_host(tree):
    return [np.asarray(backend.to_host(leaf)) if hasattr(leaf, "dtype") else leaf for leaf in leaves(tree)]


@pytest.mark.parametrize("solve", CASES.values(), ids=CASES)
def test_the_device_gives_what_numpy_gives(device_xp, solve):
    expected, found = solve(Y0, W), solve(device_xp.asarray(Y0), device_xp.asarray(W))
    for x, y in zip(on_host(found), on_host(expected), strict=True):
        assert_close(x, y, scale=norm(y), tol=1e-11)


@pytest.mark.parametrize("gradient", ["tape", "discrete", "backsolve", "interpolated"])
def test_gradients_lie_where_their_arguments_do(device_xp, gradient):
    _, (y_bar, t_bar, w_bar) = gradients(gradient)(device_xp.asarray(Y0), device_xp.asarray(W))
    assert backend.namespace_of(y_bar, w_bar) is device_xp and isinstance(t_bar, np.ndarray)


@pytest.mark.parametrize("gradient", ["tape", "discrete", "backsolve"])
def test_output_times_may_lie_on_the_device(device_xp, gradient):
    def loss(ts):
        return loss_of(odeint(f, device_xp.asarray(Y0), ts, device_xp.asarray(W), gradient=gradient).ys)

    expected = grad(loss)(TS)
    found = grad(loss)(device_xp.asarray(TS))
    assert backend.is_device_array(found)
    assert_close(backend.to_host(found), expected, scale=norm(expected), tol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(device_xp, dtype):
    y0, w = (device_xp.asarray(x.astype(dtype)) for x in (Y0, W))
    value, gradient = value_and_grad(lambda y0: loss_of(odeint(f, y0, TS, w).ys))(y0)
    assert {value.dtype, gradient.dtype} == {np.dtype(dtype)}


# Reads from the device. The state and its first slope are looked at once, the first step needs three norms.

AT_THE_START = 2 + 3


def reads_of(function):
    """What `function` returns, and how often it reads from the device; the second call, since the first makes programs."""
    function()
    before = backend.transfers().reads
    result = function()
    return result, backend.transfers().reads - before


def attempts(stats):
    return stats.n_accepted + stats.n_rejected


def test_a_solve_reads_one_scalar_a_step_attempted(device_xp):
    y0, w = device_xp.asarray(Y0), device_xp.asarray(W)
    sol, reads = reads_of(lambda: odeint(f, y0, TS, w, rtol=1e-8, atol=1e-8))
    assert reads == AT_THE_START + attempts(sol.stats)


def stats_of_gradient(device_xp, gradient):
    """The counts of a solve and its pull-back."""
    found = []

    def loss(y0, w):
        found.append(odeint(f, y0, TS, w, gradient=gradient))
        return loss_of(found[0].ys)

    grad(loss, argnums=(0, 1))(device_xp.asarray(Y0), device_xp.asarray(W))
    return found[0].stats


@pytest.mark.parametrize("gradient", ["discrete", "tape"])
def test_pulling_steps_back_reads_nothing(device_xp, gradient):
    stats, reads = reads_of(lambda: stats_of_gradient(device_xp, gradient))
    assert reads == AT_THE_START + attempts(stats)


@pytest.mark.parametrize("gradient", ["backsolve", "interpolated"])
def test_a_backward_solve_reads_one_scalar_a_step_attempted(device_xp, gradient):
    """Beside that the sizes of all cotangents are read at once, the first slope of each of the two stretches between output
    times is looked at, three norms choose the first step, every output time gets its cotangent, and backsolve compares the
    state at the end of each stretch with the one stored.
    """

    stats, reads = reads_of(lambda: stats_of_gradient(device_xp, gradient))
    backward = stats.n_accepted_backward + stats.n_rejected_backward
    arrivals = 2 if gradient == "backsolve" else 0
    assert reads == AT_THE_START + attempts(stats) + backward + (1 + 2 + 3 + len(TS)) + arrivals


def test_nothing_is_written_that_a_solve_does_not_need(device_xp):
    """The weights of a step and of its error estimate."""
    y0, w = device_xp.asarray(Y0), device_xp.asarray(W)
    odeint(f, y0, TS[[0, 2]], w)
    before = backend.transfers().writes
    sol = odeint(f, y0, TS[[0, 2]], w)
    assert backend.transfers().writes - before <= 2 * attempts(sol.stats)


def test_the_state_is_not_written_to(device_xp):
    y0, w = device_xp.asarray(Y0), device_xp.asarray(W)
    gradients("discrete")(y0, w)
    assert [backend.to_host(x).tolist() for x in (y0, w)] == tree_map(lambda x: x.tolist(), [Y0, W])
