"""Products of matrices and tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..primitive import primitive
from ..trace import shape_of
from .shaping import broadcast_to, expand_dims, reshape, swapaxes, unbroadcast


@primitive("matmul")
def matmul_arrays(xp, a, b):
    """y = a @ b for at least two axes each; the leading ones broadcast."""
    return xp.matmul(a, b)


@matmul_arrays.vjp(saves=("a", "b"))
def matmul_vjp(ybar, a, b, *, needs):
    """abar = ybar @ b^T, bbar = a^T @ ybar, each summed over the axes that broadcasting added."""
    return (
        unbroadcast(matmul_arrays(ybar, swapaxes(b, -1, -2)), shape_of(a)) if needs[0] else None,
        unbroadcast(matmul_arrays(swapaxes(a, -1, -2), ybar), shape_of(b)) if needs[1] else None,
    )


@matmul_arrays.writes_into
def matmul_into(out, a, b):
    """`np.dot` has less overhead than `np.matmul` for two matrices."""
    return [(np.dot if a.ndim == b.ndim == 2 else np.matmul, (a, b), {"out": out})]


def matmul(a: Any, b: Any) -> Any:
    """a @ b as in NumPy: a vector is a row on the left and a column on the right.

    Leading axes of `a` before a matrix `b` are joined, so that the product is a single GEMM.
    """
    a_shape, b_shape = shape_of(a), shape_of(b)
    if not a_shape or not b_shape or a_shape[-1] != b_shape[max(0, len(b_shape) - 2)]:
        raise ArgumentError(
            f"matmul: shapes {a_shape} and {b_shape} do not fit (last of a, second to last of b)"
        )
    if len(a_shape) == 1:
        product = matmul(expand_dims(a, 0), b)
        return (
            reshape(product, shape_of(product)[:-2] + shape_of(product)[-1:])
            if len(b_shape) > 1
            else product[0]
        )
    if len(b_shape) == 1:
        product = matmul(a, expand_dims(b, 1))
        return reshape(product, shape_of(product)[:-1])
    if len(a_shape) > 2 and len(b_shape) == 2:
        rows = reshape(a, (math.prod(a_shape[:-1]), a_shape[-1]))
        return reshape(matmul_arrays(rows, b), (*a_shape[:-1], b_shape[-1]))
    return matmul_arrays(a, b)


@primitive("einsum")
def einsum_arrays(xp, *operands, subscripts):
    """Einstein summation with explicit output, every index of an operand distinct."""
    return xp.einsum(subscripts, *operands)


@einsum_arrays.vjp(saves=("operands",))
def einsum_vjp(ybar, operands, *, subscripts, needs):
    """The cotangent of an operand is the einsum of ybar with the other operands;
    lost indices are broadcast.
    """
    inputs, _, output = subscripts.partition("->")
    names = inputs.split(",")
    sizes = {
        i: n for name, x in zip(names, operands, strict=True) for i, n in zip(name, shape_of(x), strict=True)
    }
    bars: list[Any] = []
    for k, name in enumerate(names):
        if not needs[k]:
            bars.append(None)
            continue
        others = [(names[j], operands[j]) for j in range(len(names)) if j != k]
        known = set(output).union(*(n for n, _ in others))
        kept = "".join(i for i in name if i in known)
        terms = ",".join([output, *(n for n, _ in others)])
        bar = einsum_arrays(ybar, *(x for _, x in others), subscripts=f"{terms}->{kept}")
        bars.append(_spread(bar, kept, name, sizes))
    return bars


def _spread(x: Any, kept: str, name: str, sizes: dict[str, int]) -> Any:
    """x with indices `kept`, repeated along the indices of `name` that it lacks."""
    with_ones = reshape(x, tuple(sizes[i] if i in kept else 1 for i in name))
    return broadcast_to(with_ones, tuple(sizes[i] for i in name))


def einsum(subscripts: str, *operands: Any) -> Any:
    """Einstein summation, e.g. einsum("bij,bj->bi", a, x); no ellipsis, no index twice in one operand."""
    subscripts = subscripts.replace(" ", "")
    inputs, arrow, output = subscripts.partition("->")
    names = inputs.split(",")
    if "." in subscripts or any(len(set(name)) < len(name) for name in names):
        raise ArgumentError(
            f"einsum {subscripts!r}: an ellipsis or a repeated index in one operand is not supported"
        )
    if len(names) != len(operands) or any(
        len(n) != len(shape_of(x)) for n, x in zip(names, operands, strict=False)
    ):
        raise ArgumentError(f"einsum {subscripts!r} does not fit shapes {[shape_of(x) for x in operands]}")
    pairs = {
        (i, n)
        for name, x in zip(names, operands, strict=True)
        for i, n in zip(name, shape_of(x), strict=True)
    }
    if len(pairs) > len({i for i, _ in pairs}):
        raise ArgumentError(
            f"einsum {subscripts!r}: an index has two lengths in {[shape_of(x) for x in operands]}"
        )
    if not arrow:
        once = sorted(i for i in set("".join(names)) if "".join(names).count(i) == 1)
        output = "".join(once)
    return einsum_arrays(*operands, subscripts=f"{inputs}->{output}")


def dot(a: Any, b: Any) -> Any:
    """numpy.dot: the inner product of vectors, the matrix product otherwise."""
    if not shape_of(a) or not shape_of(b):
        return a * b
    if len(shape_of(b)) > 2:
        raise ArgumentError(f"dot of shapes {shape_of(a)} and {shape_of(b)}: use matmul or einsum")
    return matmul(a, b)


def outer(a: Any, b: Any) -> Any:
    """a_i b_j for vectors."""
    return expand_dims(reshape(a, (-1,)), 1) * expand_dims(reshape(b, (-1,)), 0)
