"""Hypothesis profiles, Ctrl-C, and the array module under test."""

from __future__ import annotations

import os
import signal
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("quick", derandomize=True, max_examples=10, deadline=None, database=None)
settings.register_profile("thorough", max_examples=200, deadline=None)
settings.register_profile("nightly", max_examples=100, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("ODEGRAD_HYPOTHESIS", "quick"))

# A shell's background jobs ignore Ctrl-C, and so would the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def cupy_or_skip() -> ModuleType:
    """CuPy with a working device; the test is skipped, with the reason, where there is none."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        if cupy.cuda.runtime.getDeviceCount() < 1:
            pytest.skip("CuPy sees no CUDA device")
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"CuPy cannot use a CUDA device: {error}")
    return cupy


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array module: NumPy, and CuPy under the `gpu` marker."""
    return np if request.param == "numpy" else cupy_or_skip()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)
