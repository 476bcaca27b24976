"""Clipping of groups of leaves by their common norm."""

import math

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.train.clipping import Group, clip, clip_groups, is_alpha, is_any, is_gamma, make_groups
from odegrad.train.config import TrainConfig


def grads(dtype=np.float64):
    """Norms: w 12, gamma 4 and 3 (together 5), alpha 0; all together 13."""
    return {
        "w": np.full((4, 9), 2.0, dtype),
        "norm1": {"gamma": np.array([4.0, 0.0], dtype), "alpha": np.zeros(2, dtype)},
        "norm2": [{"gamma": np.array(3.0, dtype)}],
    }


def test_the_norm_is_that_of_all_leaves_together():
    assert clip(grads(), 1.0)[1] == 13.0


def test_a_large_gradient_is_scaled_to_the_bound():
    clipped, _ = clip(grads(), 6.5)
    np.testing.assert_allclose(clipped["w"], np.full((4, 9), 1.0), rtol=1e-15)


@pytest.mark.parametrize("bound", [13.0, 14.0, math.inf])
def test_a_gradient_within_the_bound_is_passed_on(bound):
    given = grads()
    assert clip(given, bound)[0] is given


def test_only_selected_leaves_count_and_change():
    given = grads()
    clipped, norm = clip(given, 1.0, is_gamma)
    assert norm == 5.0
    assert clipped["w"] is given["w"]
    np.testing.assert_allclose(clipped["norm1"]["gamma"], [0.8, 0.0], rtol=1e-15)


def test_nothing_selected_has_norm_zero():
    given = grads()
    assert clip(given, 1.0, lambda path: False) == (given, 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shape_dtype_and_kind_are_kept(dtype):
    scalar = clip(grads(dtype), 1.0)[0]["norm2"][0]["gamma"]
    assert (type(scalar), scalar.shape, scalar.dtype) == (np.ndarray, (), dtype)


def test_nothing_given_is_written_to():
    given = grads()
    clip(given, 1.0)
    assert given["w"][0, 0] == 2.0


def test_squares_beyond_float32_do_not_overflow():
    clipped, norm = clip({"w": np.array([3e30, 4e30], np.float32)}, 1.0)
    assert norm == pytest.approx(5e30, rel=1e-6)
    np.testing.assert_allclose(clipped["w"], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize(("bad", "norm"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf")])
def test_a_non_finite_norm_is_reported_and_the_gradient_left_alone(bad, norm):
    given = {"w": np.array([1.0, bad])}
    clipped, got = clip(given, 1.0)
    assert clipped is given and str(got) == norm


def test_groups_are_clipped_one_after_the_other():
    groups = [Group("all", 6.5, is_any), Group("gamma", 1.0, is_gamma), Group("alpha", 1.0, is_alpha)]
    clipped, norms = clip_groups(grads(), groups)
    assert norms == pytest.approx({"all": 13.0, "gamma": 2.5, "alpha": 0.0})
    np.testing.assert_allclose(clipped["norm2"][0]["gamma"], 0.6, rtol=1e-15)


def test_the_bounds_of_the_configuration():
    groups = make_groups(TrainConfig(clip_weights=7.0, clip_gamma=0, clip_alpha=2.0))
    assert [(group.name, group.max_norm) for group in groups] == [
        ("weights", 7.0),
        ("gamma", math.inf),
        ("alpha", 2.0),
    ]


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan])
def test_a_bound_that_is_not_positive_is_refused(bound):
    with pytest.raises(ArgumentError, match="max_norm"):
        clip(grads(), bound)


@pytest.mark.parametrize(
    ("path", "selected"),
    [
        (("a", "gamma"), True),
        (("gamma",), True),
        (("gamma", "w"), False),
        (("a", "alpha"), False),
        ((), False),
    ],
)
def test_gammas_are_the_leaves_of_that_name(path, selected):
    assert is_gamma(path) is selected
