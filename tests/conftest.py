"""Hypothesis profiles, Ctrl-C, the array module under test, and the whole suite on a device."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import stand_in
from cuda_on_device import cupy_or_skip
from device_suite import DeviceSuite
from fake_cupy import FakeCupy
from hypothesis import settings
from on_device import with_kernels, without_compiling
from timed_run import TimedRun

settings.register_profile("quick", derandomize=True, max_examples=10, deadline=None, database=None)
settings.register_profile("thorough", max_examples=200, deadline=None)
settings.register_profile("nightly", max_examples=100, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("ODEGRAD_HYPOTHESIS", "quick"))

# A shell's background jobs ignore Ctrl-C, and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

DEVICE = pytest.StashKey[DeviceSuite]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=["fake", "cupy"],
        help="run the tests that use NumPy on a device: see device_suite.py",
    )
    parser.addoption(
        "--seconds", type=float, help="begin no test after so many seconds, and tell how far it came"
    )


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("device")
    if config.getoption("seconds") is not None:
        config.pluginmanager.register(TimedRun(config.getoption("seconds"), name or "gpu"), "timed_run")
    if name is not None:
        start_on_device(config, name)


def start_on_device(config: pytest.Config, name: str) -> None:
    """From now on the tests that use NumPy have their arrays on a device."""
    if name == "fake":
        patch = pytest.MonkeyPatch()
        config.add_cleanup(patch.undo)
        xp = stand_in.install(patch)
    else:
        try:
            xp = cupy_or_skip()
        except pytest.skip.Exception as reason:
            raise pytest.UsageError(f"--device cupy: {reason}") from None
    suite = config.stash[DEVICE] = DeviceSuite(xp)
    config.pluginmanager.register(suite, "device_suite")
    suite.start()


@pytest.fixture
def fake_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    """A stand-in for CuPy, as if it were installed; every op computes plainly. Silent reads fail the test."""
    cupy = stand_in.install(monkeypatch)
    yield cupy
    assert cupy.silent_reads == [], "reads from the device beside engine/backend.py"


@pytest.fixture(scope="module")
def kernel_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Machine code is kept in a folder of the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ODEGRAD_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        _forget_folder()
        yield
    _forget_folder()


def _forget_folder() -> None:
    """The next one who asks is told the folder that the environment names."""
    if importlib.util.find_spec("numba") is not None:
        from odegrad.engine.jit import disk

        disk.cache_folder.cache_clear()


@pytest.fixture(params=["numpy", "fake", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array module: NumPy, a stand-in for CuPy (`fake_cupy.py`), and CuPy under the `gpu` marker."""
    if request.param == "fake":
        return request.getfixturevalue("fake_cupy")
    return np if request.param == "numpy" else cupy_or_skip()


@pytest.fixture(params=["fake", pytest.param("cupy", marks=pytest.mark.gpu)])
def device_xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array module of a device: the stand-in for CuPy, and CuPy under the `gpu` marker."""
    return request.getfixturevalue("fake_cupy") if request.param == "fake" else cupy_or_skip()


@pytest.fixture
def cupy(device_xp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The stand-in for CuPy, with kernels that run on the CPU; CuPy itself under the `gpu` marker."""
    return with_kernels(device_xp, monkeypatch)


@pytest.fixture
def texts_only(fake_cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    """The stand-in for CuPy, where nothing is compiled."""
    without_compiling(monkeypatch)
    return fake_cupy


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers: on the device in a run of `--device`."""
    suite = request.config.stash.get(DEVICE, None)
    return (np if suite is None else suite.numpy).random.default_rng(20240607)
