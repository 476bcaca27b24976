"""`pytest --device`: what tests make lies on the device and mixes for them alone, and the table says what stays behind."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from device_suite import DeviceSuite, is_placed
from device_table import HOST_MODULES, HOST_TESTS
from mixing import Mixing
from odegrad import layers, odeint
from odegrad.engine.backend import to_host
from placing import Placing, making
from timed_run import TimedRun

TESTS = Path(__file__).parent


@pytest.fixture
def mixing(fake_cupy):
    """Tests may mix arrays while one of them runs."""
    mixing = Mixing(fake_cupy)
    mixing.install()
    yield mixing
    mixing.remove()


def in_package(text, **names):
    """An expression, computed as if a module of the package had asked."""
    return eval(compile(text, "x", "eval"), {**names, "np": np, "__name__": "odegrad.somewhere"})  # noqa: S307


# --- the table ---


@pytest.mark.parametrize("pattern", HOST_MODULES)
def test_a_file_that_stays_on_the_host_exists(pattern):
    assert list(TESTS.glob(pattern))


@pytest.mark.parametrize("file", HOST_TESTS)
def test_tests_that_stay_on_the_host_exist(file):
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    names = {test.partition("[")[0] for test in HOST_TESTS[file]}
    assert names <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_table_gives_reasons():
    assert all(reason for table in (HOST_MODULES, *HOST_TESTS.values()) for reason in table.values())


def test_modules_of_the_tests_get_their_arrays_on_the_device_and_what_stands_for_it_does_not():
    found = [is_placed({"__file__": str(TESTS / name)}) for name in ("solvers/test_order.py", "fake_cupy.py")]
    assert found == [True, False] and not is_placed({"__file__": odeint.__code__.co_filename})


# --- arrays of the tests ---


@pytest.mark.parametrize(
    "make",
    [
        lambda np: np.zeros(3),
        lambda np: np.array([1.0, 2.0]),
        lambda np: np.linspace(0.0, 1.0, 3),
        lambda np: np.asarray(np.ones(2)),
        lambda np: np.random.default_rng(1).normal(size=3),
        lambda np: np.tanh(np.ones(2)),
        lambda np: np.percentile(np.ones(3), [5.0, 95.0]),  # not a function of the stand-in
    ],
)
def test_new_arrays_lie_on_the_device(mixing, make):
    assert isinstance(make(Placing(mixing)), mixing.kind)


def test_what_is_computed_from_arrays_of_numpy_stays_on_the_host(mixing):
    assert isinstance(Placing(mixing).sort(np.ones(2)), np.ndarray)


@pytest.mark.parametrize("dtype", [np.uint8, np.longdouble, object])
def test_images_and_what_a_device_does_not_have_stay_on_the_host(mixing, dtype):
    assert isinstance(Placing(mixing).zeros(2, dtype), np.ndarray)


def test_layers_make_their_weights_on_the_device(mixing):
    init = making(mixing, layers.Linear.init)
    assert isinstance(init(layers.Linear(2, 3), np.zeros(2, np.uint32))["w"], mixing.kind)


# --- who may mix ---

MIXED = ["a + b", "b + a", "np.add(b, a)", "np.concatenate([a, b])", "a[i]", "np.searchsorted(b, a)"]


@pytest.mark.parametrize("text", MIXED)
def test_a_test_may_mix(mixing, text):
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    found = eval(text, {"a": mixing.xp.asarray(a), "b": b, "i": np.array([0]), "np": np})  # noqa: S307
    np.testing.assert_array_equal(to_host(found), eval(text, {"a": a, "b": b, "i": np.array([0]), "np": np}))  # noqa: S307


@pytest.mark.parametrize("text", MIXED)
def test_the_package_may_not(mixing, text):
    a = mixing.xp.asarray(np.array([1.0, 2.0]))
    with pytest.raises(TypeError):
        in_package(text, a=a, b=np.array([3.0, 4.0]), i=np.array([0]))


def test_a_silent_conversion_of_the_package_is_refused(mixing):
    x = mixing.xp.ones(2)
    assert np.asarray(x).tolist() == [1.0, 1.0]
    with pytest.raises(TypeError, match="Implicit conversion"):
        in_package("np.asarray(x)", x=x)


def test_afterwards_arrays_are_as_they_were(fake_cupy):
    before = dict(vars(fake_cupy.ndarray))
    mixing = Mixing(fake_cupy)
    mixing.install()
    mixing.remove()
    assert dict(vars(fake_cupy.ndarray)) == before


def test_a_silent_read_fails_the_test(fake_cupy):
    run = DeviceSuite(fake_cupy).pytest_runtest_call(None)
    next(run)
    in_package("float(x)", x=fake_cupy.ones(()))
    with pytest.raises(AssertionError, match="odegrad.somewhere"):
        next(run)
    fake_cupy.reset()


# --- a limit of time ---


def test_no_test_begins_after_the_time_is_over():
    session = SimpleNamespace()
    protocol = TimedRun(0.0, "fake").pytest_runtest_protocol(SimpleNamespace(session=session))
    next(protocol)
    with pytest.raises(StopIteration):
        next(protocol)
    assert session.shouldstop == "no time was left"


def test_a_run_tells_how_far_it_came():
    run, lines = TimedRun(60.0, "cupy"), []
    run.pytest_collection_finish(SimpleNamespace(items=[None] * 5))
    for outcome in ("passed", "passed", "failed"):
        run.pytest_runtest_logreport(SimpleNamespace(when="call", outcome=outcome))
    run.pytest_terminal_summary(SimpleNamespace(write_line=lines.append))
    assert json.loads(lines[0]) == {
        "benchmark": "tests", "what": "cupy", "run": 3, "passed": 2, "failed": 1, "skipped": 0, "not_reached": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("n_failed", "status"), [(0, 0), (1, 1)])
def test_that_time_was_over_is_no_failure(n_failed, status):
    run, session = TimedRun(0.0, "cupy"), SimpleNamespace(exitstatus=pytest.ExitCode.INTERRUPTED)
    run.counts["failed"] = n_failed
    run.pytest_sessionfinish(session)
    assert session.exitstatus == status
