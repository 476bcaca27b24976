"""Reading and writing arrays that are known not to overlap, and kernels that work on such arrays."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from .machine_code import compiled_text, names_of
from .memory import load, pointer, shifted
from .runs import N_WRITTEN

SIGNATURE = types.void(types.int64, types.int64, types.CPointer(types.int64))  # first chunk, end, job


@intrinsic(prefer_literal=True)
def read(typing_context, pointer, position, array):
    """pointer[position], of the array with this number."""

    def build(context, builder, signature, args):
        value = builder.load(builder.gep(args[0], [args[1]], inbounds=True))
        return _apart(builder, value, array.literal_value)

    return pointer.dtype(pointer, types.int64, array), build


@intrinsic(prefer_literal=True)
def write(typing_context, pointer, position, value, array):
    """pointer[position] = value, in the array with this number."""

    def build(context, builder, signature, args):
        place = builder.gep(args[0], [args[1]], inbounds=True)
        _apart(builder, builder.store(args[2], place), array.literal_value)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, pointer.dtype, array), build


def _apart(builder: Any, instruction: Any, array: int) -> Any:
    """Promise that accesses to arrays with different numbers never meet in memory.

    Without the promise LLVM has to compare the addresses of all pairs first, and from a few arrays on it does
    not even try: the loop stays a loop over single values.
    """
    module = builder.module
    domain = module.add_metadata(["odegrad arrays"])
    scopes = [module.add_metadata([f"odegrad array {k}", domain]) for k in range(N_WRITTEN + 1)]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes[array]]))
    instruction.set_metadata("noalias", module.add_metadata([s for k, s in enumerate(scopes) if k != array]))
    return instruction


@lru_cache(maxsize=256)
def run_kernel(source: str, dtype: Any) -> Any:
    """The compiled function `kernel` of a text of `runs`; its `address` stays valid while the result lives.

    Products are not contracted with sums: arithmetic has the bits of NumPy's.
    """
    names = {"load": load, "pointer": pointer, "shifted": shifted, "read": read, "write": write}
    names |= names_of(dtype) | {"u": np.uint8}
    return compiled_text(source, f"run {dtype}", SIGNATURE, names, {"error_model": "numpy"})
