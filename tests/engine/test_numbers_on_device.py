"""Python numbers beside arrays on a device: joined with them, as conditions, as cotangents; and lists of its numbers."""

import numpy as np
import pytest
from odegrad import ops, vjp
from odegrad.engine import backend
from oracles import host


@pytest.fixture
def x(device_xp):
    return device_xp.asarray(np.array([0.5, 2.0]))


@pytest.mark.parametrize("parts", [lambda x: [x[0], 3.0], lambda x: [3.0, x[0], 1]])
def test_a_number_is_joined_with_arrays(x, parts):
    expected = np.stack([host(part) for part in parts(x)])
    np.testing.assert_array_equal(host(ops.stack(parts(x))), expected)


def test_the_derivative_of_such_a_join_is_that_of_its_arrays(x):
    _, pull_back = vjp(lambda x: np.stack([x[1], 3.0, x[0]]), x)
    (bar,) = pull_back(backend.to_xp(backend.namespace_of(x), np.array([1.0, 2.0, 4.0])))
    assert host(bar).tolist() == [4.0, 1.0]


@pytest.mark.parametrize("holds", [True, False])
def test_a_number_may_be_the_condition(x, holds):
    assert host(ops.where(holds, x, 0.0)).tolist() == ([0.5, 2.0] if holds else [0.0, 0.0])


def test_a_number_may_be_the_cotangent_of_a_number(x):
    _, pull_back = vjp(lambda x: np.sum(x * x), x)
    assert host(pull_back(2.0)[0]).tolist() == [2.0, 8.0]


def test_a_list_of_numbers_of_both_modules_comes_to_the_host(x):
    before = backend.transfers().reads
    assert backend.host_numbers([1.0, x[1], np.float64(3.0)]).tolist() == [1.0, 2.0, 3.0]
    assert backend.transfers().reads == before + 1
