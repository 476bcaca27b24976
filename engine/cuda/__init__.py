"""CUDA kernels of the engine, one family a file: its formula,
its CUDA C text and the functions that launch it.

A launch function takes CuPy arrays, row-major and of one dtype, and writes into `out` or into new arrays. The
operations of `engine/ops` are the oracle of every kernel.
"""

from . import convolution, cublaslt, max_pool, moments  # give primitives their kernels

__all__ = ["convolution", "cublaslt", "max_pool", "moments"]
