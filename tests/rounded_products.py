"""What a GPU's tensor cores do to the operands of products, done to NumPy's: TF32 and bfloat16 without a GPU."""

from __future__ import annotations

import contextlib

import numpy as np
from odegrad.engine.primitive import PRIMITIVES

PRODUCTS = ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "matmul")


def rounded(x, precision):
    """float32 x with the operands' bits of `precision`: TF32 by cutting off 13 bits, the worst that a kernel may do;
    bfloat16 to nearest. Other dtypes as they are."""
    if getattr(x, "dtype", None) != np.float32 or precision == "fp32":
        return x
    bits = np.ascontiguousarray(x).view(np.uint32)
    if precision == "tf32":
        return (bits & np.uint32(0xFFFFE000)).view(np.float32)
    upper = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return upper.view(np.float32)


@contextlib.contextmanager
def rounded_products(precision):
    """Inside the block the operands of every product that a primitive computes are rounded to `precision`.

    For dynamics that are evaluated eagerly (execution="eager"): a replay computes some products otherwise.
    """
    ops = [PRIMITIVES[name] for name in PRODUCTS]
    before = [(op.forward, op.into) for op in ops]
    for op in ops:
        op.forward, op.into = _rounding(op.forward, precision), None
    try:
        yield
    finally:
        for op, (forward, into) in zip(ops, before, strict=True):
            op.forward, op.into = forward, into


def _rounding(forward, precision):
    def rounding_forward(xp, a, b, **static):
        return forward(xp, rounded(a, precision), rounded(b, precision), **static)

    return rounding_forward
