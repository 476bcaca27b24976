"""The CUDA C text of kernels, compiled by g++ and run on NumPy arrays: every line but those of the hardware.

`CpuModule(text)` stands for `cupy.RawModule(code=text)`. A launch checks what CuPy cannot: that there are as many
arguments as parameters, each of the size and kind that the text declares. `Guarded` arrays show a write past an end.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odegrad.engine import backend
from odegrad.engine.cuda import source

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")
POISON = 0xFF  # every byte of what a kernel is to write: NaN, or -1
MARGIN = 16  # guarded values on both sides

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


class CpuModule:
    """What `cupy.RawModule` is to the launch functions: a compiled text."""

    def __init__(self, code: str, options: tuple[str, ...] = ()) -> None:
        self.library = _library(code)
        self.names = KERNEL.findall(code)

    def get_function(self, name: str) -> CpuKernel:
        """The kernel of this name."""
        assert name in self.names, f"no kernel {name!r} in the text; there are {self.names}"
        return CpuKernel(self.library, name)


class CpuKernel:
    """A kernel, called as CuPy's are: kernel(grid, block, arguments)."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._launch = getattr(library, f"cuda_launch_{name}")
        self._launch.restype = ctypes.c_char_p
        sizes = (ctypes.c_int * 64)()
        n = getattr(library, f"cuda_parameters_{name}")(sizes)
        self.parameters = list(sizes[:n])

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        assert len(args) == len(self.parameters), (
            f"{self.name} has {len(self.parameters)} parameters; got {len(args)} arguments"
        )
        cells = [self._cell(k, arg) for k, arg in enumerate(args)]
        addresses = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
        sizes = [*grid, *(1,) * (3 - len(grid)), *block, *(1,) * (3 - len(block))]
        trouble = self._launch((ctypes.c_uint * 6)(*sizes), addresses)
        assert not trouble, f"{self.name}: {trouble.decode()}"

    def _cell(self, k: int, arg: Any) -> np.ndarray:
        """A piece of memory that holds an argument: the address of an array, or a number as CuPy passes it."""
        if not isinstance(arg, np.generic | int | float):
            arg = np.intp(address_of(arg))
        cell = np.asarray(arg)  # a Python int has 8 bytes, a Python float is a double: as in CuPy
        expected = self.parameters[k]
        got = -cell.itemsize if cell.dtype.kind == "f" else cell.itemsize
        assert got == expected, (
            f"{self.name}: argument {k} is {cell.dtype}, the parameter has {abs(expected)} bytes of "
            f"{'a real' if expected < 0 else 'a whole'} number"
        )
        return cell


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here to the end of the test, the launch functions of `engine/cuda` run on NumPy arrays."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    compile_with(CpuModule, monkeypatch)


def compile_with(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here to the end of the test, texts are compiled by module(text, options), for arrays of NumPy."""
    monkeypatch.setattr(backend, "raw_module", module)
    monkeypatch.setattr(backend, "device_address", address_of)
    for cached in (source.module, source._kernel):
        monkeypatch.setattr(source, cached.__name__, cache(cached.__wrapped__))


def address_of(array: Any) -> int:
    """Where an array of NumPy, or of the stand-in for CuPy, begins."""
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


class Guarded:
    """An array to be written whole: NaN at first, between margins that must stay as they are.

    `offset` values keep it off the multiples of 16 bytes that vector instructions want.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, offset: int = 0) -> None:
        n = int(np.prod(shape))
        self._memory = np.empty(n + 2 * MARGIN + offset, dtype)
        self._memory.view(np.uint8).fill(POISON)
        self._before, self._after = MARGIN + offset, MARGIN + offset + n
        self.array = self._memory[self._before : self._after].reshape(shape)

    def check(self) -> np.ndarray:
        """The array, after nothing beside it was written."""
        margins = (self._memory[: self._before], self._memory[self._after :])
        assert all((margin.view(np.uint8) == POISON).all() for margin in margins), "written past an end"
        return self.array


@cache
def _library(code: str) -> ctypes.CDLL:
    """The text with its entries, compiled once in a process."""
    entries = "\n".join(
        f'extern "C" int cuda_parameters_{name}(int* out) {{ return cuda::parameters({name}, out); }}\n'
        f'extern "C" const char* cuda_launch_{name}(const unsigned* sizes, void** arguments) '
        f"{{ return cuda::launch(sizes, arguments, [] {{ cuda::call({name}); }}); }}"
        for name in KERNEL.findall(code)
    )
    name = hashlib.sha256(code.encode()).hexdigest()[:16]
    text, binary = (Path(_folder().name) / f"{name}{ending}" for ending in (".cpp", ".so"))
    text.write_text(f'#include "{HEADER.name}"\n#line 1 "kernel"\n{code}\n{entries}\n', encoding="utf-8")
    _compile(str(text), "-shared", f"-I{HEADER.parent}", "-o", str(binary))
    return ctypes.CDLL(str(binary))


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where libraries lie until the process ends, and the header beside them, compiled: half of the time of a text."""
    folder = tempfile.TemporaryDirectory(prefix="kernels", ignore_cleanup_errors=True)
    _compile("-x", "c++-header", str(HEADER), "-o", f"{folder.name}/{HEADER.name}.gch")
    return folder


def _compile(*arguments: str) -> None:
    flags = ["-std=c++20", "-O1", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-w"]
    done = subprocess.run(["g++", *flags, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
