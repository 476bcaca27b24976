"""Machine code for traced programs: source text of scalar loops, compiled by numba and kept on disk.

`layout` and `source` turn a partitioned program into text and need no numba; `machine` compiles it. Nothing here is
imported before a solve asks for execution="compiled": numba is an extra, and takes a second to import.
"""

from .layout import Layout, Unsupported
from .source import kernel_source

__all__ = ["Layout", "Unsupported", "kernel_source"]
