"""Reading, writing and calling through addresses in compiled code, without the bookkeeping of arrays."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def kernel_signature(dtype: np.dtype) -> types.Type:
    """That of the kernels of `source.py`."""
    values = types.CPointer(types.float32 if dtype == np.float32 else types.float64)
    numbers = types.CPointer(types.float64)
    return types.void(types.float64, values, numbers, values, values, values, values, values)


@intrinsic
def load(typing_context, pointer, position):
    """pointer[position]."""

    def build(context, builder, signature, args):
        return builder.load(builder.gep(args[0], [args[1]], inbounds=True))

    return pointer.dtype(pointer, types.int64), build


@intrinsic
def store(typing_context, pointer, position, value):
    """pointer[position] = value."""

    def build(context, builder, signature, args):
        builder.store(args[2], builder.gep(args[0], [args[1]], inbounds=True))
        return context.get_dummy_value()

    return types.void(pointer, types.int64, pointer.dtype), build


@intrinsic
def pointer(typing_context, address, like):
    """The address as that of values of the type of `like`."""

    def build(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), build


@intrinsic
def shifted(typing_context, pointer, position):
    """The pointer to pointer[position]."""

    def build(context, builder, signature, args):
        return builder.gep(args[0], [args[1]], inbounds=True)

    return pointer(pointer, types.int64), build


@intrinsic
def run_kernel(typing_context, kernel, t, const, numbers, stage, work, given, result, params):
    """Call the kernel at an address with its blocks: pointers, `const`, `numbers` and `work` as addresses."""
    values = (stage, given, result, params)
    signature = types.void(
        types.int64, types.float64, types.int64, types.int64, stage, types.int64, *values[1:]
    )

    def build(context, builder, signature, args):
        block = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [ir.DoubleType(), *[block] * 7])
        blocks = [
            builder.inttoptr(value, block) if given == types.int64 else builder.bitcast(value, block)
            for value, given in zip(args[2:], signature.args[2:], strict=True)
        ]
        builder.call(builder.inttoptr(args[0], function.as_pointer()), [args[1], *blocks])
        return context.get_dummy_value()

    return signature, build
