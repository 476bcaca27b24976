"""What a value is, not what it says: dtype, complex parts, copies, number or array, host or device."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import device_of, module_for_device, to_host, to_number, to_xp
from ..errors import ArgumentError
from ..primitive import primitive
from ..trace import base_value, dtype_of, is_weak
from .ufuncs import replay_as


def is_complex(x: Any) -> bool:
    """Whether an array, a number or a traced value is complex."""
    return dtype_of(x).kind == "c"


@primitive("astype")
def astype_to(xp, x, *, dtype):
    """x in another float or complex dtype."""
    return xp.asarray(x).astype(dtype)


@astype_to.vjp(saves=("x",))
def astype_vjp(ybar, x, *, dtype):
    """xbar = ybar in the dtype of x; its real part for a real x."""
    return (cotangent_like(ybar, x),)


@primitive("astype_discrete", is_flat=True)
def astype_discrete(xp, x, *, dtype):
    """x cut to integers, or to whether it is not zero."""
    return xp.asarray(x).astype(dtype)


@astype_to.writes_into
@astype_discrete.writes_into
def astype_into(out, x, *, dtype):
    """A casting copy."""
    return [(np.copyto, (out, x), {"casting": "unsafe"})]


def astype(x: Any, dtype: Any) -> Any:
    """x in the given dtype; x itself where it has it already."""
    wanted = np.dtype(dtype)
    if not is_weak(x) and dtype_of(x) == wanted:
        return x
    if dtype_of(x).kind == "c" and wanted.kind != "c":
        raise ArgumentError(
            f"astype from {dtype_of(x)} to {wanted} would drop the imaginary part; use real(x)"
        )
    return (astype_to if wanted.kind in "fc" else astype_discrete)(x, dtype=wanted.name)


@primitive("real")
def real(xp, x):
    """The real part."""
    return xp.real(x)


@real.vjp(saves=("x",))
def real_vjp(ybar, x):
    """xbar = Re(ybar), in the dtype of x."""
    return (astype(real(ybar) if dtype_of(ybar).kind == "c" else ybar, dtype_of(x)),)


@primitive("conj")
def conj(xp, x):
    """The complex conjugate."""
    return x.conjugate() if is_weak(x) else xp.conjugate(x)


@conj.vjp()
def conj_vjp(ybar):
    """xbar = conj(ybar): the map is linear over the real numbers only."""
    return (conj(ybar),)


def cotangent_like(ybar: Any, x: Any) -> Any:
    """ybar in the dtype of the value x that it belongs to; of a real value only the real part counts."""
    if dtype_of(x).kind != "c" and dtype_of(ybar).kind == "c":
        ybar = real(ybar)
    return astype(ybar, dtype_of(x))


@primitive("copy")
def copy(xp, x):
    """A copy of x."""
    return x if is_weak(x) else x.copy()


@copy.vjp()
def copy_vjp(ybar):
    """xbar = ybar."""
    return (ybar,)


@copy.writes_into
def copy_into(out, x):
    """One copy."""
    return [(np.copyto, (out, x), {})]


@primitive("as_number")
def as_number(xp, x):
    """A 0-d array as a Python number: a weak scalar, like the time of an ODE."""
    return to_number(x)


@as_number.vjp(saves=("x",))
def as_number_vjp(ybar, x):
    """xbar = ybar as an array where x is; its real part for a real x."""
    xbar, device = cotangent_like(ybar, x), device_of(base_value(x))
    return (xbar if device_of(base_value(xbar)) == device else on_device(xbar, device=device),)


@primitive("on_device")
def on_device(xp, x, *, device):
    """x on the host ("cpu") or the device ("cuda"): the cotangent of a number that came from there."""
    return x.copy() if device_of(x) == device else to_xp(module_for_device(device), to_host(x))


@on_device.vjp(saves=("x",))
def on_device_vjp(ybar, x, *, device):
    """xbar = ybar where x is."""
    return (on_device(ybar, device=device_of(base_value(x))),)


replay_as(conj, np.conjugate)
