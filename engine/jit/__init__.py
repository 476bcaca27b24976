"""Machine code for traced programs: source text of scalar loops, compiled by numba and kept on disk.

`layout` and `source` turn a partitioned program into text, `runs` one fused run, and need no numba;
`machine_code` compiles it. Nothing that imports numba, which takes a second, is imported before a solve asks
for execution="compiled", has chains on large arrays (`fused_kernels`) or convolutions by Winograd's algorithm
(`compiled_winograd`, `compiled_strided`), or an optimiser steps large arrays (`updates`).

`odegrad.jit` is none of this: `jitted.py` replays a function by NumPy's calls, and needs no compiler.
"""

from .layout import Layout, Unsupported
from .source import kernel_source

__all__ = ["Layout", "Unsupported", "kernel_source"]
