"""The tests of layers and solvers can fail: each flaw of mutations.py must fail a test that is there for it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import mutations
import numpy as np
import pytest
from mutations import DISCRETE, ENDS, REVERSIBLE, forgotten
from odegrad.solvers import compiled
from odegrad.solvers.gradients import discrete, reversible
from odegrad.solvers.stages import EagerStages, ReplayStages
from odegrad.solvers.tableaus import DOPRI5
from solving import random_case

HERE = Path(__file__).parent
NUMBERS = DOPRI5.as_floats()


@cache
def load(path: str) -> ModuleType:
    """A file of tests as a module of its own name: the folders here are called like those of the package."""
    name = "judges_" + path.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, HERE / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def judge(path: str, test: str, *args: Any) -> Callable[[], None]:
    """The test `test` of the file `path` on one example; of a test that draws, what hypothesis calls."""

    def run() -> None:
        function = getattr(load(path), test)
        inner = getattr(function, "hypothesis", None)
        given = [arg() if callable(arg) else arg for arg in args]
        (function if inner is None else inner.inner_test)(*given)

    return run


TA_BN, UPDATE, LAYERS = (f"layers/test_{name}.py" for name in ("ta_batch_norm", "running_statistics", "vjp"))
BLOCK, AUX, ORDER = "layers/test_ode_block.py", "solvers/test_aux.py", "solvers/test_order.py"
GRADIENT = "solvers/test_gradient_{}.py".format


def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def layer_case(part: str) -> Callable[[], None]:
    """The comparison of TA-BN's pull-back in training with complex step."""

    def run() -> None:
        module = load(LAYERS)
        case = module.Case(module.TABatchNorm(3, module.NODES), (6, 3), timed=True)
        module.test_pull_back_agrees_with_the_oracle.hypothesis.inner_test(case, part, 1, 0.4)

    return run


pulled_to_x, pulled_to_t = layer_case("x"), layer_case("t")
literal_output = judge(
    TA_BN, "test_output_is_the_literal_reading", "train", "batch", "skip", [1] * 6, 3, 0.31
)
literal_update = judge(UPDATE, "test_update_is_the_literal_loop", 3, 20, 0.1)
sums_of_cells = judge(TA_BN, "test_gradients_of_gamma_and_alpha_go_to_the_nodes_of_the_cell", 3, 0.31)
close_backsolve = judge(
    BLOCK, "test_a_continuous_adjoint_comes_close_for_a_grid_without_kinks", "backsolve", rng
)
converging_backsolve = judge(GRADIENT("backsolve"), "test_fixed_steps_converge_too", "rk4")
adjoint = judge(GRADIENT("discrete"), "test_it_is_the_derivative_of_tape", random_case(50))
eager_adjoint = judge(
    GRADIENT("discrete"),
    "test_replay_gives_what_eager_gives",
    random_case(50, n_times=12, rtol=1e-2, atol=1e-2),  # with outputs inside the last step
)
times_on_the_grid = judge(GRADIENT("discrete"), "test_outputs_at_accepted_times")
own_scheme = judge("solvers/test_reversible.py", "test_a_step_ends_at_every_output_time", "dopri5", 3)


@dataclass(frozen=True)
class Flawed:
    """A flaw and a test that has to notice it."""

    name: str
    flaw: Callable[[], mutations.Flaw]
    judge: Callable[[], None]

    def __str__(self) -> str:
        return self.name


TA_BN_FLAWS = [
    Flawed("batch mean held constant", lambda: mutations.constant_moments(mean=True), pulled_to_x),
    Flawed("batch variance held constant", lambda: mutations.constant_moments(var=True), pulled_to_x),
    Flawed(
        "batch moments held constant",
        lambda: mutations.constant_moments(mean=True, var=True),
        judge(TA_BN, "test_gradient_through_batch_moments_ignores_shift_and_scale_of_the_input"),
    ),
    Flawed("hat weights exchanged", mutations.exchanged_hat_weights, literal_output),
    Flawed("gradients at the other node", mutations.exchanged_hat_weights, sums_of_cells),
    Flawed("no derivative in time", mutations.constant_time, pulled_to_t),
    Flawed("update weights exchanged", mutations.exchanged_update_weights, literal_update),
    Flawed("observations in reverse order", mutations.observations_reversed, literal_update),
    Flawed(
        "biased variance recorded",
        mutations.biased_variance_recorded,
        judge(TA_BN, "test_moments_seen_are_mean_and_unbiased_variance", "batch"),
    ),
]

COUNTING_FLAWS = [
    Flawed(
        "rejected steps counted",
        mutations.rejected_steps_counted,
        judge(BLOCK, "test_rejected_steps_are_not_seen"),
    ),
    Flawed(
        "backward pass counted by a layer",
        mutations.backward_pass_counted,
        judge(BLOCK, "test_a_backward_pass_is_not_seen", "discrete"),
    ),
    Flawed(
        "backward pass counted by a solve",
        mutations.backward_pass_counted,
        judge(AUX, "test_a_backward_pass_observes_nothing", "discrete", "none"),
    ),
    Flawed(
        "shared stage counted twice",
        mutations.shared_stage_counted_twice,
        judge(BLOCK, "test_every_evaluation_of_an_accepted_step_is_seen_once"),
    ),
]

WEIGHTS = list(zip(*np.nonzero(discrete.adjoint_weights(DOPRI5)), strict=True))

DISCRETE_FLAWS = [
    *[
        Flawed(
            f"weight of the adjoint {row},{column}",
            lambda row=row, column=column: mutations.wrong_adjoint_weight(discrete, row, column),
            adjoint,
        )
        for row, column in WEIGHTS
    ],
    *[
        Flawed(
            f"{what} of stage {stage}, {stages.__name__}",
            lambda flaw=flaw, stages=stages, stage=stage: flaw(stages, stage),
            test,
        )
        for what, flaw in (
            ("pull-back", mutations.wrong_stage_pull),
            ("parameter cotangent", mutations.lost_parameter_cotangent),
        )
        for stages, test in ((ReplayStages, adjoint), (EagerStages, eager_adjoint))
        for stage in range(len(NUMBERS.c))
    ],
    Flawed("outputs inside steps", lambda: forgotten(DISCRETE, "_dense"), adjoint),
    Flawed("outputs at ends of steps", lambda: forgotten(DISCRETE, "_outputs_at_end", 0.0), adjoint),
    Flawed("size of the end steps", mutations.step_size_held_fixed, adjoint),
    Flawed("time at the ends", lambda: forgotten(ENDS, "add_node"), adjoint),
    Flawed("moving outputs", lambda: forgotten(ENDS, "_move_interior_outputs"), adjoint),
    Flawed("moving outputs at accepted times", mutations.outputs_in_tape_do_not_move, times_on_the_grid),
]

OTHER_FLAWS = [
    *[
        Flawed(f"quadrature without stage {i}", lambda i=i: mutations.without_weight(i), close_backsolve)
        for i in np.flatnonzero(NUMBERS.b).tolist()
    ],
    Flawed("quadrature with equal weights", mutations.equal_weights, converging_backsolve),
    Flawed("adjoint without inner outputs", mutations.inner_outputs_forgotten, converging_backsolve),
    *[
        Flawed(
            f"weight of the reversible adjoint {row},{column}",
            lambda row=row, column=column: mutations.wrong_adjoint_weight(reversible, row, column),
            own_scheme,
        )
        for row, column in WEIGHTS[::4]
    ],
    Flawed("reversible: size of the end steps", lambda: forgotten(REVERSIBLE, "_stretch"), own_scheme),
    Flawed("reversible: moving outputs", lambda: forgotten(REVERSIBLE, "_moving", 0.0), own_scheme),
    Flawed(
        "step weights", mutations.wrong_step_weights, judge(ORDER, "test_global_error", "dopri5", "forward")
    ),
    Flawed(
        "interpolant",
        mutations.wrong_interpolant,
        judge(ORDER, "test_dense_output_in_one_step", "dopri5", 0.05, 1),
    ),
]

FLAWED = [*TA_BN_FLAWS, *COUNTING_FLAWS, *DISCRETE_FLAWS, *OTHER_FLAWS]


@pytest.fixture(autouse=True)
def fresh_programs():
    """No program that was compiled with a flaw serves another test, nor one without it this one."""
    forget_programs()
    yield
    forget_programs()


def forget_programs() -> None:
    compiled._known.clear()
    compiled.pool.drop(lambda key: True)


@pytest.mark.parametrize("flawed", FLAWED, ids=str)
def test_the_flaw_fails_its_test(flawed):
    with flawed.flaw(), pytest.raises(AssertionError):
        flawed.judge()


@pytest.mark.parametrize("flawed", {flawed.judge: flawed for flawed in reversed(FLAWED)}.values(), ids=str)
def test_without_the_flaw_the_test_passes(flawed):
    flawed.judge()
