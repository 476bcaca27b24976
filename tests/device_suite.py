"""`pytest --device fake` and `pytest --device cupy`: the tests that were written with NumPy, run with arrays on a device.

In such a run `import numpy` gives the test modules and what they share a NumPy whose new arrays lie on the device
(`placing.py`), and their arrays mix where they judge (`mixing.py`); the package sees arrays of CuPy, or of the stand-in
for it, and nothing else. `device_table.py` names the tests that stay on the host and why. Tests that choose their arrays
by the fixtures `xp` and `device_xp` run on a device anyway and are left out.

With `cupy` every test carries the marker `gpu`, and is skipped where there is no GPU.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from device_table import HOST_MODULES, HOST_TESTS
from fake_cupy import FakeCupy
from mixing import Mixing, mapped
from odegrad import layers, random
from odegrad.solvers import Aux
from odegrad.train import config, loop
from placing import Placing, making, of_the_host

TESTS = Path(__file__).parent
OWN_FIXTURES = {"xp", "device_xp", "fake_cupy"}
# What stands for the device, and what writes files: there NumPy is as it is.
OF_THE_HOST = (
    "conftest cuda_on_cpu cuda_on_device data_files device_suite device_table fake_cudnn fake_cupy fake_graphs mixing nvrtc "
    "placing stand_in training"
).split()


class DeviceSuite:
    """The plugin of a run on a device, whose module is `xp`: CuPy or the stand-in."""

    def __init__(self, xp: ModuleType) -> None:
        self.xp, self.is_fake = xp, isinstance(xp, FakeCupy)
        self.mixing = Mixing(xp)
        self.numpy = Placing(self.mixing)
        self.own_import = builtins.__import__
        self.patch = pytest.MonkeyPatch()

    def start(self) -> None:
        """From now on the modules of the tests that are imported make their arrays on the device."""
        self.mixing.install()
        builtins.__import__ = self._import
        for owner, name in makers():
            self.patch.setattr(owner, name, making(self.mixing, vars(owner)[name]))
        own_config = config.make_config
        self.patch.setattr(config, "make_config", lambda values: own_config({"device": "cuda", **values}))
        approx = pytest.approx
        self.patch.setattr(
            pytest, "approx", lambda expected, *rest, **more: approx(self._judged(expected), *rest, **more)
        )
        for owner, name in ((Aux, "__init__"), (loop.Trainer, "batch")):
            self.patch.setattr(owner, name, of_the_host(self.mixing, vars(owner)[name]))

    def _judged(self, expected: Any) -> Any:
        """Expected values on the host, single ones as numbers."""
        return mapped(lambda array: array.get() if array.ndim else array.item(), self.xp.ndarray, expected)

    def pytest_unconfigure(self) -> None:
        self.patch.undo()
        builtins.__import__ = self.own_import
        self.mixing.remove()

    def _import(self, name: str, globals: Any = None, *rest: Any, **more: Any) -> Any:
        found = self.own_import(name, globals, *rest, **more)
        return self.numpy if found is sys.modules["numpy"] and is_placed(globals) else found

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        return True if stays_on_host(collection_path) else None

    @pytest.hookimpl(tryfirst=True)  # before `-m` chooses
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        left_out = [item for item in items if is_left_out(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
        for item in items:
            if not self.is_fake:
                item.add_marker(pytest.mark.gpu)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Silent reads of the stand-in fail the test."""
        if self.is_fake:
            self.xp.reset()
        found = yield
        if self.is_fake:
            assert not self.xp.silent_reads, (
                f"reads from the device beside engine/backend.py: {self.xp.silent_reads}"
            )
        return found


def makers() -> list[tuple[Any, str]]:
    """What of the package makes arrays of a module that is NumPy unless it is told otherwise."""
    classes = [
        value
        for value in vars(layers).values()
        if isinstance(value, type) and issubclass(value, layers.Layer)
    ]
    of_layers = [(kind, name) for kind in classes for name in ("init", "init_stats") if name in vars(kind)]
    return [*of_layers, *((random, name) for name in ("bits", "uniform", "normal"))]


def is_placed(names: Any) -> bool:
    """Whether a module of these global names makes its arrays on the device: one of the tests, but for OF_THE_HOST."""
    file = Path((names or {}).get("__file__") or "")
    return TESTS in file.parents and file.stem not in OF_THE_HOST


def stays_on_host(file: Path) -> bool:
    """Whether `device_table.py` leaves out a whole file."""
    name = file.relative_to(TESTS).as_posix() if TESTS in file.parents else ""
    return any(fnmatch(name, pattern) for pattern in HOST_MODULES)


def is_left_out(item: pytest.Item) -> bool:
    """Whether `device_table.py` leaves out a test, or its fixtures have chosen a device."""
    if stays_on_host(item.path) or not OWN_FIXTURES.isdisjoint(item.fixturenames):
        return True
    left_out = HOST_TESTS.get(item.path.relative_to(TESTS).as_posix(), {})
    return item.name in left_out or getattr(item, "originalname", item.name) in left_out
