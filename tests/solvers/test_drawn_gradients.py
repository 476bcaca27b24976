"""Gradients of drawn networks: `discrete` against `tape`, and both against differences on the grid of accepted steps.

200 cases; ODEGRAD_HYPOTHESIS=nightly draws 2,000 (`make nightly`). A failure prints a script that reproduces it.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from drawn_cases import conv_cases, perceptron_cases
from gradient_cases import ConvNet, GradientCase, Perceptron, check_gradients
from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st
from mutations import wrong_adjoint_weight
from odegrad.engine.primitive import PRIMITIVES
from odegrad.solvers.gradients import discrete
from op_mutations import COTANGENTS, changed_cotangent
from reproduce import reproducing_script
from strategies import seeds

FIXED = [
    GradientCase(Perceptron((3,), "tanh"), "nested", ((2,), (), (1, 2)), 5, (0.0, 0.4, 1.0)),
    GradientCase(
        ConvNet((2, 2), 1, 2, 2, "softplus", "train", "batch", "skip", (0.0, 1.0)),
        "array",
        ((2, 2, 2, 1),),
        5,
        (1.0, 0.0),
        rtol=1e-2,
    ),
]


def drawn(n: int) -> settings:
    """n examples in the quick profile, ten times as many in the nightly one."""
    return settings(max_examples=n * settings.default.max_examples // 10)


def judge(case: GradientCase) -> None:
    note(reproducing_script(case))
    check_gradients(case)


@drawn(55)
@given(perceptron_cases(("array",)))
def test_perceptrons_on_arrays(case):
    judge(case)


@drawn(55)
@given(perceptron_cases(("tuple", "dict", "nested")))
def test_perceptrons_on_trees(case):
    judge(case)


@drawn(30)
@given(conv_cases("train", "batch"))
def test_images_normalised_by_their_batch(case):
    judge(case)


@drawn(30)
@given(conv_cases("train", "population"))
def test_images_normalised_by_the_population_in_training(case):
    judge(case)


@drawn(30)
@given(conv_cases("eval", "batch"))
def test_images_in_evaluation(case):
    judge(case)


def test_differences_see_a_flaw_that_both_methods_share():
    tanh = PRIMITIVES["tanh"]
    too_large = changed_cotangent(0, COTANGENTS["1.001 times too large"])
    with too_large(tanh), pytest.raises(AssertionError, match=r"error \S+ > 1.0e-08 \* scale"):
        check_gradients(replace(FIXED[0], execution="eager"))


# --- the script -----------------------------------------------------------------------------------------------------

BROKEN = """
from odegrad.solvers.gradients import discrete

right = discrete.adjoint_weights
discrete.adjoint_weights = lambda tableau: 1.001 * right(tableau)
"""


def run(script: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-I", "-"], input=script, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("case", FIXED, ids=lambda case: type(case.network).__name__)
def test_the_script_passes_where_the_gradients_agree(case):
    finished = run(reproducing_script(case))
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "the gradients agree\n", "")


def test_the_script_fails_where_they_do_not():
    script = reproducing_script(FIXED[0])
    finished = run(script.replace("case = GradientCase(", BROKEN + "case = GradientCase("))
    assert finished.returncode == 1 and "AssertionError: discrete from tape" in finished.stderr


def test_a_shrunk_failure_prints_its_script():
    few = st.builds(lambda seed: replace(FIXED[0], seed=seed), seeds)
    quickly = settings(max_examples=3, database=None, phases=(Phase.generate, Phase.shrink), print_blob=False)
    comparison = quickly(given(few)(judge))
    with (
        wrong_adjoint_weight(discrete, 0, 0),
        pytest.raises(AssertionError, match="discrete from tape") as failure,
    ):
        comparison()
    printed = "\n".join(failure.value.__notes__)
    script = printed[printed.index('"""One comparison of gradients') :]
    assert "seed=0" in script and run(script).stdout == "the gradients agree\n"
