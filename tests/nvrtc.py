"""NVRTC without a GPU: whether CUDA C text compiles, for which architectures."""

from __future__ import annotations

import platform
import sys

import pytest

ARCHITECTURES = ("sm_80", "sm_90")
IS_EXPECTED = sys.platform == "linux" and platform.machine() == "x86_64"  # the `test` extra installs it there


def compile_or_skip(text: str, architecture: str, options: tuple[str, ...] = ("--std=c++17",)) -> bytes:
    """The machine code of a text for one architecture, compiled as CuPy does it; a warning is an error as well.

    Skips the test where neither CuPy nor NVRTC can be expected.
    """
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        message = f"CuPy and NVRTC are part of the `test` extra, but cannot be used: {error}"
        (pytest.fail if IS_EXPECTED else pytest.skip)(message)
    program = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*options, f"--gpu-architecture={architecture}", "-ftz=true"))
        log = nvrtc.getProgramLog(program).strip("\0\n ")
        assert not log, log
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        raise AssertionError(f"{error}\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)
