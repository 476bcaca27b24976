"""Convolutions of CuPy arrays by cuDNN: forward, input gradient (the transposed convolution),
weight gradient.

float32 arrays go to cuDNN in the precision that `product_precision` says, where nvidia-cudnn-frontend is
installed and has a plan. All else (float64, complex, no cuDNN, shapes that it refuses) is the plain kernel:
windows gathered into rows and multiplied as other matrices are (`cublaslt`), in the same precision.

Costs beside cuDNN's own: the kernel (kh, kw, Cin, Cout) is repacked as (Cout, kh, kw, Cin) and back, a copy
of its size; in "bf16" both operands are read once and written in half the bytes.
"""

from __future__ import annotations

from typing import Any

from .. import backend, kernels
from ..backend import Array
from ..kernels.geometry import Pair, as_pair
from ..ops.convolution import conv2d_arrays, conv2d_input_grad, conv2d_weight_grad
from ..product_precision import current_products
from .bfloat16 import narrowed, widened
from .cudnn_plans import Plan, Problem, Shape, plan_for, run

Size = int | Pair


def fits(first: Any, second: Any, **static: Any) -> bool:
    """Whether cuDNN may take these operands: float32, four axes, not empty."""
    return all(
        backend.is_array(array) and array.dtype == "float32" and array.ndim == 4 and array.size
        for array in (first, second)
    ) and bool(backend.cudnn_module())


@conv2d_arrays.on_cuda(fits)
def conv2d_cudnn(x: Array, w: Array, out: Array | None = None, *, stride: Size, padding: Size) -> Array:
    """`kernels.conv2d`: x (B, H, W, Cin), w (kh, kw, Cin, Cout) -> (B, Ho, Wo, Cout)."""
    y_shape = kernels.conv2d_output_shape(x.shape, w.shape, stride, padding)
    plan = _plan("fprop", x.shape, w.shape, y_shape, stride, padding)
    if plan is None:
        return kernels.conv2d(_xp(x), x, w, stride=stride, padding=padding, out=out)
    return _result(plan, x, w.transpose(3, 0, 1, 2), y_shape, out)


@conv2d_input_grad.on_cuda(fits)
def conv2d_input_grad_cudnn(
    y: Array, w: Array, out: Array | None = None, *, size: Pair, stride: Size, padding: Size
) -> Array:
    """`kernels.conv2d_input_grad`: y (B, Ho, Wo, Cout), w (kh, kw, Cin, Cout) -> (B, *size, Cin)."""
    x_shape = (y.shape[0], *size, w.shape[2])
    plan = None
    if kernels.conv2d_output_shape(x_shape, w.shape, stride, padding) == y.shape:
        plan = _plan("dgrad", x_shape, w.shape, y.shape, stride, padding)
    if plan is None:
        settings: dict[str, Any] = {"input_shape": size, "stride": stride, "padding": padding, "out": out}
        return kernels.conv2d_input_grad(_xp(y), y, w, **settings)
    return _result(plan, y, w.transpose(3, 0, 1, 2), x_shape, out)


@conv2d_weight_grad.on_cuda(fits)
def conv2d_weight_grad_cudnn(
    x: Array, y: Array, out: Array | None = None, *, kernel: Pair, stride: Size, padding: Size
) -> Array:
    """`kernels.conv2d_weight_grad`: x (B, H, W, Cin), y (B, Ho, Wo, Cout) -> (*kernel, Cin, Cout)."""
    w_shape = (*kernel, x.shape[3], y.shape[3])
    plan = None
    if kernels.conv2d_output_shape(x.shape, w_shape, stride, padding) == y.shape:
        plan = _plan("wgrad", x.shape, w_shape, y.shape, stride, padding)
    if plan is None:
        settings: dict[str, Any] = {"kernel_shape": kernel, "stride": stride, "padding": padding, "out": out}
        return kernels.conv2d_weight_grad(_xp(x), x, y, **settings)
    packed = _result(plan, x, y, (y.shape[3], *kernel, x.shape[3]), None)
    if out is None:
        return _xp(x).ascontiguousarray(packed.transpose(1, 2, 3, 0))
    out[...] = packed.transpose(1, 2, 3, 0)
    return out


def _xp(array: Array) -> Any:
    return backend.namespace_of(array)


def _plan(
    kind: str, x_shape: Shape, w_shape: Shape, y_shape: Shape, stride: Size, padding: Size
) -> Plan | None:
    steps = as_pair(stride, "stride", 1), as_pair(padding, "padding", 0)
    return plan_for(Problem(kind, x_shape, w_shape, y_shape, *steps, current_products()))


def _result(plan: Plan, first: Array, second: Array, shape: Shape, out: Array | None) -> Array:
    """The result (of `shape`, float32) of a plan for operands of any strides, in `out` if that is given."""
    xp, is_bf16 = _xp(first), current_products().precision == "bf16"
    first, second = xp.ascontiguousarray(first), xp.ascontiguousarray(second)
    if is_bf16:
        first, second = narrowed(first), narrowed(second)
    if plan.result_is_narrow:
        narrow = xp.empty(shape, dtype="uint16")
        run(plan, first, second, narrow)
        return widened(narrow, out)
    if out is not None and out.flags.c_contiguous:
        run(plan, first, second, out)
        return out
    result = xp.empty(shape, dtype="float32")
    run(plan, first, second, result)
    if out is None:
        return result
    out[...] = result
    return out
