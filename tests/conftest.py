"""Hypothesis profiles, Ctrl-C, and the array module under test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from cuda_on_device import cupy_or_skip
from fake_cupy import FakeCupy
from hypothesis import settings
from odegrad.engine.jit.layout import Unsupported
from odegrad.engine.primitive import Primitive
from odegrad.solvers import stages
from odegrad.train import optimizers
from odegrad.train.data import augmentation

settings.register_profile("quick", derandomize=True, max_examples=10, deadline=None, database=None)
settings.register_profile("thorough", max_examples=200, deadline=None)
settings.register_profile("nightly", max_examples=100, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("ODEGRAD_HYPOTHESIS", "quick"))

# A shell's background jobs ignore Ctrl-C, and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


FAKE = FakeCupy()  # one for all tests: caches are kept by array module


def _no_kernels(*_: object) -> None:
    """Programs are evaluated eagerly: `test_cuda_replay.py` compiles their kernels for the CPU, which takes seconds."""
    raise Unsupported("kernels on the stand-in for CuPy")


@pytest.fixture
def fake_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    """A stand-in for CuPy, as if it were installed; every op computes plainly. Silent reads fail the test."""
    monkeypatch.setitem(sys.modules, "cupy", FAKE)
    monkeypatch.setattr(Primitive, "fits_cuda", lambda *_: False)
    monkeypatch.setattr(optimizers, "fits_adamw", lambda *_: False)
    monkeypatch.setattr(augmentation, "fits_augment", lambda *_: False)
    monkeypatch.setattr(stages, "CudaWorkspace", _no_kernels)
    FAKE.reset()
    yield FAKE
    assert FAKE.silent_reads == [], "reads from the device beside engine/backend.py"


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
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
