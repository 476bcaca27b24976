"""Solves in machine code against replay, eager evaluation and the tape; what they refuse, count and keep."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from oracles import EPS32, EPS64
from problems import PROBLEMS
from solving import distance, network, random_case, same_bits

pytest.importorskip("numba", reason="the jit extra is not installed")
from odegrad import grad, odeint  # noqa: E402 - after the skip
from odegrad.engine.errors import NonFiniteDynamics, StepSizeUnderflow, TooManySteps  # noqa: E402
from odegrad.engine.jit import disk  # noqa: E402
from odegrad.solvers import PIController, StepInfo  # noqa: E402
from odegrad.solvers.jit import control, entrance, job, machine  # noqa: E402

LORENZ = next(problem for problem in PROBLEMS if problem.name == "lorenz")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A cache folder of the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache")
        patch.setenv(disk.FOLDER, str(path))
        disk.cache_folder.cache_clear()
        yield path
    disk.cache_folder.cache_clear()


@pytest.fixture(autouse=True)
def replayed(monkeypatch):
    """Why solves were replayed; a test that expects none fails if there was one."""
    reasons: list[str] = []
    monkeypatch.setattr(entrance, "_tell", reasons.append)
    return reasons


def both(case, **options):
    """(compiled, replayed) solutions."""
    return [case.solve(execution=execution, **options) for execution in ("compiled", "replay")]


def gradients(case, **options):
    return grad(lambda y, p: case.loss(y, p, **options), (0, 1))(case.y0, case.params)


# --- solutions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [1.5, -1.5])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "tsit5", "euler", "midpoint", "rk4"])
def test_solutions_agree_with_replay(method, span, replayed):
    """On the same steps: their sizes follow from error estimates, which cancel and magnify round-off."""
    case = random_case(5, method=method, span=span, n_times=6)
    found = case.solve(execution="compiled")
    expected = case.solve(grid=found.grid, step_size=None)
    assert distance(found.ys, expected.ys) <= 64 * EPS64 and not replayed


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_steps_and_counts_are_those_of_replay(method):
    found, expected = both(random_case(5, method=method))
    assert np.allclose(found.grid, expected.grid, rtol=1e-10)
    for name in ("nfe", "n_accepted", "n_rejected"):
        assert getattr(found.stats, name) == getattr(expected.stats, name)


def test_rejected_steps_are_retried_as_in_replay():
    found, expected = both(random_case(5), first_step=1.5, rtol=1e-8)
    assert found.stats.n_rejected == expected.stats.n_rejected > 0
    assert distance(found.ys, expected.ys) <= 1e3 * EPS64


def test_float32_states_stay_float32():
    found, expected = both(random_case(5, dtype=np.float32))
    assert found.ys.dtype == np.float32 and distance(found.ys, expected.ys) <= 64 * EPS32


def test_a_known_solution():
    """The error is that of the tolerance, not of the machine code."""
    sol = odeint(LORENZ.f, LORENZ.y0, [LORENZ.t0, LORENZ.t1], rtol=1e-10, atol=1e-10, execution="compiled")
    assert np.abs(sol.ys[-1] - LORENZ.y1).max() <= 1e-6


def test_a_given_grid_is_walked_exactly(replayed):
    case = random_case(6)
    grid = np.concatenate([case.grid(), [0.5]])
    found, expected = both(case, grid=np.sort(grid))
    assert np.array_equal(found.grid, np.sort(grid)) and not replayed
    assert distance(found.ys, expected.ys) <= 64 * EPS64


def test_more_steps_than_there_is_room_for_at_first():
    case = random_case(6)
    found = case.solve(execution="compiled", max_step=1.5 / (3 * machine.FIRST_ROOM))
    assert found.stats.n_accepted >= 3 * machine.FIRST_ROOM and len(np.unique(found.grid)) == len(found.grid)
    assert distance(found.ys, case.solve(grid=found.grid).ys) <= 256 * EPS64


def test_dynamics_that_jump_are_solved_and_counted_piece_by_piece(replayed):
    case = random_case(6)
    found, expected = both(case, jump_ts=(0.9,))
    assert distance(found.ys, expected.ys) <= 1e-12 and not replayed
    for name in ("nfe", "n_accepted", "n_rejected"):
        assert getattr(found.stats, name) == getattr(expected.stats, name)


def test_trees_captured_values_and_numbers(replayed):
    w, rate = np.array([[0.5, -1.0], [1.0, 0.1]]), 0.3

    def f(t, y):
        return {"a": y["b"] @ w - rate * y["a"], "b": (y["a"] * np.cos(rate**2 + t)) * y["b"] - w[0]}

    y0 = {"a": np.ones(2), "b": np.array([0.1, 0.2])}
    found, expected = (odeint(f, y0, [0.0, 1.0], execution=e).ys for e in ("compiled", "replay"))
    assert distance(found, expected) <= 64 * EPS64 and not replayed


def test_captured_numbers_are_read_at_each_solve():
    for rate in (0.5, 1.5):
        ys = odeint(
            lambda t, y, rate=rate: -rate * y, np.ones(1), [0.0, 1.0], rtol=1e-9, execution="compiled"
        ).ys
        assert ys[-1, 0] == pytest.approx(np.exp(-rate), rel=1e-7)


def test_a_solve_inside_of_dynamics(replayed):
    def inner(t, y):
        return odeint(lambda s, z: -z, y, [0.0, 0.1], execution="compiled").ys[-1]

    found = odeint(lambda t, y: -inner(t, y), np.ones(2), [0.0, 1.0], rtol=1e-8).ys[-1]
    assert np.allclose(found, np.exp(-np.exp(-0.1)), rtol=1e-6)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [1.5, -1.5])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "tsit5", "euler", "midpoint", "rk4"])
def test_gradients_agree_with_the_tape_on_the_same_grid(method, span, replayed):
    case = random_case(7, method=method, span=span, n_times=6)
    grid = case.solve(execution="compiled").grid
    found = gradients(case, execution="compiled")
    expected = gradients(case, gradient="tape", grid=grid, step_size=None)
    assert distance(found, expected) <= 1e-12 and not replayed


@pytest.mark.parametrize("method", ["vern6", "vern7"])
def test_methods_with_extra_stages_between_two_times(method, replayed):
    case = random_case(7, method=method, n_times=2)
    found = gradients(case, execution="compiled")
    expected = gradients(case, gradient="tape", grid=case.grid(execution="compiled"))
    assert distance(found, expected) <= 1e-12 and not replayed


def test_float32_gradients_agree_with_float64():
    single, double = random_case(7, dtype=np.float32), random_case(7)
    found = gradients(single, execution="compiled")
    assert distance(found, gradients(double, grid=single.grid(execution="compiled"))) <= 1e-5


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_gradients_have_the_same_bits_whatever_is_kept(method):
    case = random_case(8, method=method)
    found = [gradients(case, execution="compiled", keep=keep) for keep in ("auto", "all", "none")]
    assert same_bits(found[0], found[1]) and same_bits(found[0], found[2])


def test_gradients_where_only_the_first_steps_are_kept():
    case = random_case(8)
    step = case.solve(execution="compiled").stats.n_accepted // 2
    all_kept = gradients(case, execution="compiled", keep="all")
    stats = []

    def loss(y, p):
        sol = case.solve(y, p, execution="compiled", keep_bytes=step * 7 * 30 * 8)
        stats.append(sol.stats)
        return case.loss_of(sol.ys)

    found = grad(loss, (0, 1))(case.y0, case.params)
    assert same_bits(found, all_kept) and 0 < stats[0].nfe_backward < stats[0].nfe


@pytest.mark.parametrize("keep", ["all", "none"])
def test_what_a_backward_pass_costs(keep):
    """One pull-back for each slope that reaches the end; what was kept is not evaluated again but for the first slope."""
    case, stats = random_case(9, n_times=2), []

    def loss(y):
        sol = case.solve(y, execution="compiled", keep=keep)
        stats.append(sol.stats)
        return case.loss_of(sol.ys)

    grad(loss)(case.y0)
    (found,) = stats
    assert found.n_vjp_state == 6 * found.n_accepted and found.n_vjp_params == 0
    assert found.nfe_backward == (1 if keep == "all" else 6 * found.n_accepted)


def test_a_second_pull_back_gives_the_same_bits():
    from odegrad import vjp

    case = random_case(9)
    ys, pull_back = vjp(lambda y: case.solve(y, execution="compiled").ys, case.y0)
    assert same_bits(pull_back(np.ones_like(ys)), pull_back(np.ones_like(ys)))


def test_results_are_not_written_by_later_solves():
    case = random_case(9)
    first = gradients(case, execution="compiled")
    sol = case.solve(execution="compiled")
    kept = [[a.copy() for a in (first[0], *first[1].values())], sol.ys.copy()]
    gradients(random_case(10), execution="compiled")
    random_case(10).solve(execution="compiled")
    assert same_bits([[first[0], *first[1].values()], sol.ys], kept)


@pytest.mark.parametrize("gradient", ["tape", "backsolve"])
def test_other_gradient_methods_begin_with_a_compiled_solve(gradient, replayed):
    case = random_case(11, rtol=1e-9, atol=1e-11)
    found, expected = (gradients(case, gradient=gradient, execution=e) for e in ("compiled", "replay"))
    assert distance(found, expected) <= 1e-6 and not replayed


# --- what is replayed instead -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"callback": lambda info: None}, "callback"),
        ({"method": "dop853"}, "dop853"),
        ({"method": "vern6"}, "vern6"),
        ({"dense": True}, "dense"),
        ({"save": "steps", "ts": [0.0, 1.0]}, "save"),
        ({"controller": "h211b"}, "controller"),
        ({"min_step": 1e-9}, "min_step"),
        ({"norm": "max"}, "norm"),
        ({"breakpoints": (0.9,)}, "breakpoints"),
        ({"atol": np.array([1e-7, 1e-8, 1e-7])}, "tolerances"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_options_that_it_does_not_know_are_replayed_by_name(options, named, replayed):
    case = random_case(5)
    found, expected = both(case, **options)
    assert same_bits(found.ys, expected.ys) and len(replayed) == 1 and named in replayed[0]


@pytest.mark.parametrize(
    ("f", "named"),
    [
        (lambda t, y: np.cumsum(y), "cumsum"),
        (lambda t, y: y[[1, 0]], "int64"),
        (lambda t, y: (y, y), "has_aux"),
    ],
    ids=["operation", "indices", "aux"],
)
def test_operations_that_it_does_not_know_are_replayed_by_name(f, named, replayed):
    has_aux = named == "has_aux"
    found, expected = (
        odeint(f, np.ones(2), [0.0, 1.0], has_aux=has_aux, execution=e).ys for e in ("compiled", "replay")
    )
    assert same_bits(found, expected) and len(replayed) == 1 and named in replayed[0]


def test_complex_states_and_derivatives_of_times_are_replayed(replayed):
    odeint(lambda t, y: -y, np.ones(1, complex), [0.0, 1.0], execution="compiled")
    case = random_case(5)
    grad(lambda ts: case.loss(ts=ts, execution="compiled"))(case.ts)
    assert "complex128" in replayed[0] and "`ts`" in replayed[1]


def test_one_line_in_the_log_says_why(monkeypatch, caplog):
    monkeypatch.undo()
    entrance._told.clear()
    with caplog.at_level(logging.INFO, logger="odegrad"):
        for _ in range(3):
            odeint(lambda t, y: np.cumsum(y) * 2.0, np.ones(2), [0.0, 1.0], execution="compiled")
    (record,) = caplog.records
    assert "cumsum" in record.message and "replay" in record.message


@pytest.mark.parametrize(
    ("f", "options", "error"),
    [
        (lambda t, y: np.sqrt(0.5 - t) * y, {}, NonFiniteDynamics),
        (lambda t, y: y * y, {"max_step": 0.5}, StepSizeUnderflow),
        (lambda t, y: np.sin(50.0 * t) * y, {"max_steps": 5}, TooManySteps),
        (lambda t, y: np.log(0.0 * y), {}, NonFiniteDynamics),
        (lambda t, y: 1e300 * y, {"method": "euler", "step_size": 0.5}, NonFiniteDynamics),
    ],
    ids=["NaN", "underflow", "steps", "start", "grid"],
)
def test_failures_are_those_of_replay(f, options, error):
    messages = []
    for execution in ("compiled", "replay"):
        with pytest.raises(error) as caught:
            odeint(f, np.ones(1), [0.0, 2.0], execution=execution, **options)
        messages.append(str(caught.value))
        assert caught.value.solution.status == error.__name__
    assert messages[0] == messages[1]


def test_impure_dynamics_are_refused():
    calls = []

    def f(t, y):
        calls.append(t)
        return -y * float(len(calls))

    with pytest.raises(ValueError, match="pure function"):
        odeint(f, np.ones(3), [0.0, 1.0], execution="compiled")


# --- the controller --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.04, 0.1])
def test_step_sizes_follow_the_controller(beta):
    """Random error norms, among them zero, tiny, huge and NaN ones."""
    controller, rng = PIController(order=5, beta=beta), np.random.default_rng(2)
    reals = np.zeros(job.N_REALS)
    reals[job.ORDER : job.BETA + 1] = 5, 0.9, 0.2, 10.0, beta
    next_factor = compiled_factor()
    verdict, remembered = None, control.NO_ERROR
    errors = [*np.exp(rng.normal(0, 2, 200)), 0.0, 1e-320, 1e300, np.inf, np.nan, 0.5, 1.0]
    for error in rng.permutation(errors):
        was_rejected = verdict is not None and not verdict.is_accepted
        verdict = controller.judge(error, 0.1, verdict)
        found = next_factor(error, remembered, was_rejected, reals.ctypes.data)
        assert 0.1 * found == pytest.approx(verdict.next_h, rel=1e-14)
        remembered = error if verdict.is_accepted else remembered


def compiled_factor():
    from numba import njit
    from odegrad.engine.jit.memory import pointer

    @njit
    def factor(error, remembered, was_rejected, address):
        reals = pointer(address, 0.0)
        if error <= 1.0:
            return control.accepted_factor(error, remembered, was_rejected, reals)
        return control.rejected_factor(error, reals)

    return factor


# --- another process -------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import numpy as np
from odegrad import grad
from solving import random_case
case = random_case(9)
found = grad(lambda y: case.loss(y, execution="compiled"))(case.y0)
print(json.dumps(found.tolist()))
"""


def test_another_process_does_not_compile_again(folder):
    case = random_case(9)
    here = grad(lambda y: case.loss(y, execution="compiled"))(case.y0)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    script = SCRIPT.format(tests=os.path.dirname(os.path.dirname(__file__)))
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    after = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    assert before == after and sum(file.suffix == ".nbc" for file in after) >= 4
    assert np.array_equal(json.loads(finished.stdout), here)


def test_a_callback_is_still_called(replayed):
    seen: list[StepInfo] = []
    odeint(
        network,
        random_case(5).y0,
        [0.3, 1.0],
        random_case(5).params,
        callback=seen.append,
        execution="compiled",
    )
    assert seen and replayed
