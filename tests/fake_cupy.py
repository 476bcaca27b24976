"""A stand-in for CuPy on the host, so that code for the device can be run where there is none.

`FakeCupy()` is a module whose arrays hold NumPy arrays and behave as CuPy 14's do where the two differ:

- an array of NumPy (other than one value) is refused wherever CuPy refuses it, and nothing is converted to NumPy except
  by `get`; `np.tanh(x)` and `np.concatenate` of device arrays stay on the device (`__array_ufunc__`,
  `__array_function__`), as far as CuPy has the function;
- reductions and single elements are 0-d arrays; `float`, `int`, `bool`, `item`, `tolist` and `get` read from the device:
  they are counted in `reads`, and those that the package makes elsewhere than in `engine/backend.py` are listed in
  `silent_reads`; arrays that arrive from the host are counted in `writes`;
- only functions, parameters and methods that CuPy 14 has are there (`tests/test_fake_cupy.py` compares them with the
  installed CuPy), and no warning comes from arithmetic.

Pinned memory, streams and events are there with their order recorded in `calls`; the memory pool counts nothing.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np

UFUNCS = (
    "absolute add arctan bitwise_and bitwise_or bitwise_xor ceil conjugate cos cosh divide equal exp expm1 floor greater "
    "greater_equal invert isfinite isinf isnan left_shift less less_equal log log1p logical_and logical_not logical_or "
    "maximum minimum multiply negative not_equal power remainder right_shift rint sign sin sinh sqrt square subtract tan "
    "tanh true_divide"
).split()

# The parameters of CuPy's functions; "*" stands for any number of positional ones.
FUNCTIONS = {
    "all": "a axis out keepdims",
    "any": "a axis out keepdims",
    "arange": "start stop step dtype",
    "argmax": "a axis dtype out keepdims",
    "array_equal": "a1 a2 equal_nan",
    "ascontiguousarray": "a dtype",
    "broadcast_to": "array shape",
    "clip": "a a_min a_max out",
    "concatenate": "tup axis out dtype casting",
    "copyto": "dst src casting where",
    "cumsum": "a axis dtype out",
    "dot": "a b out",
    "einsum": "*",
    "empty": "shape dtype order",
    "empty_like": "prototype dtype order subok shape",
    "expand_dims": "a axis",
    "eye": "N M k dtype order",
    "flip": "a axis",
    "full": "shape fill_value dtype order",
    "full_like": "a fill_value dtype order subok shape",
    "matmul": "* out dtype casting axes axis keepdims signature order",
    "max": "a axis out keepdims",
    "may_share_memory": "a b max_work",
    "mean": "a axis dtype out keepdims",
    "min": "a axis out keepdims",
    "moveaxis": "a source destination",
    "ndim": "a",
    "ones": "shape dtype order",
    "ones_like": "a dtype order subok shape",
    "outer": "a b out",
    "pad": "array pad_width mode",
    "real": "val",
    "repeat": "a repeats axis",
    "reshape": "a newshape order copy",
    "searchsorted": "a v side sorter",
    "shape": "a",
    "shares_memory": "a b max_work",
    "stack": "tup axis out dtype casting",
    "sum": "a axis dtype out keepdims",
    "swapaxes": "a axis1 axis2",
    "take": "a indices axis out",
    "transpose": "a axes",
    "vdot": "a b",
    "where": "condition x y",
    "zeros": "shape dtype order",
    "zeros_like": "a dtype order subok shape",
}

# The parameters of the methods that are NumPy's but for what NumPy has beyond them.
METHODS = {
    "all": "axis out keepdims",
    "any": "axis out keepdims",
    "argmax": "axis out dtype keepdims",
    "astype": "dtype order casting subok copy",
    "clip": "min max out",
    "conj": "",
    "conjugate": "",
    "copy": "order",
    "cumsum": "axis dtype out",
    "dot": "b out",
    "flatten": "order",
    "max": "axis out keepdims",
    "mean": "axis dtype out keepdims",
    "min": "axis out keepdims",
    "prod": "axis dtype out keepdims",
    "ravel": "order",
    "repeat": "repeats axis",
    "reshape": "* order copy",
    "round": "decimals out",
    "squeeze": "axis",
    "std": "axis dtype out ddof keepdims",
    "sum": "axis dtype out keepdims",
    "swapaxes": "axis1 axis2",
    "take": "indices axis out",
    "transpose": "*",
    "var": "axis dtype out ddof keepdims",
    "view": "dtype type",
}

NEEDS_ARRAYS = {
    "clip": 1,
    "where": 1,
    "vdot": 2,
    "dot": 2,
    "transpose": 1,
    "reshape": 1,
}  # where CuPy takes no number

UFUNC_OF = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift", "eq": "equal", "ne": "not_equal",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}  # fmt: skip

COMPUTING = {__name__, "mixing", "numpy", "scipy"}  # modules that read for another


class ndarray:
    """An array on the device: a NumPy array that only `get` hands out."""

    __array_priority__ = 100
    __slots__ = ("_host", "_cupy", "_base", "__weakref__")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: Any, cupy: FakeCupy, base: Any = None) -> None:
        self._host = np.asarray(host)
        self._cupy = cupy
        self._base = base

    # --- what is known without asking the device ---

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    base = property(lambda self: self._base)
    T = property(lambda self: self._wrap(self._host.T))
    real = property(lambda self: self._wrap(self._host.real) if self.dtype.kind == "c" else self)
    imag = property(lambda self: self._wrap(self._host.imag))

    @property
    def flags(self) -> Any:
        flags = self._host.flags
        is_own = self._base is None
        return types.SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=is_own
        )

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._host.ctypes.data)

    def __len__(self) -> int:
        return len(self._host)

    # --- reads from the device ---

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        return self._read().copy()

    def item(self) -> Any:
        return self._read().item()

    def tolist(self) -> Any:
        return self._read().tolist()

    def __bool__(self) -> bool:
        return bool(self._read())

    def __int__(self) -> int:
        return int(self._read())

    def __float__(self) -> float:
        return float(self._read())

    def __complex__(self) -> complex:
        return complex(self._read())

    def __repr__(self) -> str:
        """No silent read: the package shows arrays in messages only."""
        self._cupy.reads += 1
        return repr(self._host)

    def __format__(self, spec: str) -> str:
        return format(self._read(), spec)

    def _read(self) -> np.ndarray:
        self._cupy._count_read()
        return self._host

    # --- what CuPy refuses or takes over ---

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        if isinstance(out, tuple) and len(out) == 1:
            kwargs["out"] = out[0]
        own = getattr(self._cupy, "true_divide" if ufunc is np.true_divide else ufunc.__name__, None)
        return NotImplemented if own is None or method != "__call__" else own(*inputs, **kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if not set(types) <= {ndarray, np.ndarray}:
            return NotImplemented
        own = self._cupy.linalg if "linalg" in (function.__module__ or "") else self._cupy
        if not hasattr(own, function.__name__):
            return NotImplemented
        return getattr(own, function.__name__)(*args, **kwargs)

    # --- elements ---

    def __getitem__(self, index: Any) -> ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, ndarray) and part.dtype == bool for part in parts):
            self._cupy._count_read()  # the shape of the result is a value on the device
        return self._wrap(self._host[_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        with np.errstate(all="ignore"):
            self._host[_index(index)] = _value(value)

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def fill(self, value: Any) -> None:
        self._host.fill(_value(value))

    def set(self, array: np.ndarray, stream: Any = None) -> None:
        if array.dtype != self.dtype or array.shape != self.shape:
            raise ValueError("set wants an array of the same shape and dtype")
        self._cupy._count_write(stream, array)
        self._host[...] = array

    def __copy__(self) -> ndarray:
        return self._wrap(self._host.copy())

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self._wrap(self._host.copy())

    def _wrap(self, found: Any) -> ndarray:
        """A result; it is a view of this array where NumPy says so."""
        found = np.asarray(found)
        is_view = found is self._host or np.may_share_memory(found, self._host)
        return ndarray(
            found, self._cupy, self if is_view and self._base is None else self._base if is_view else None
        )


def _method(name: str, parameters: list[str]) -> Any:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> ndarray:
        _check_call(f"ndarray.{name}", parameters, args, kwargs)
        out = kwargs.get("out")
        with np.errstate(all="ignore"):
            found = getattr(self._host, name)(
                *map(_argument, args), **{key: _argument(value) for key, value in kwargs.items()}
            )
        return self._wrap(found) if out is None else out

    return method


def _check_call(name: str, parameters: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """TypeError for arguments that CuPy does not take."""
    is_too_long = "*" not in parameters and len(args) > len(parameters)
    if is_too_long or not set(kwargs) <= set(parameters):
        raise TypeError(f"cupy.{name} takes {parameters}; got {len(args)} positional and {sorted(kwargs)}")


def _operator(name: str) -> Any:
    def operate(self: ndarray, *others: Any) -> Any:
        if (traced := _traced(others)) is not None:
            return _given_to(traced, name, self, others)
        with np.errstate(all="ignore"):
            found = getattr(self._host, name)(*map(_argument, others))
        if found is NotImplemented:
            return found
        return self if found is self._host else ndarray(found, self._cupy)

    return operate


for _name, _parameters in METHODS.items():
    setattr(ndarray, _name, _method(_name, _parameters.split()))
for _name in (
    "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
    + "radd rsub rmul rtruediv rfloordiv rmod rpow rmatmul rand ror rxor".split()
    + "iadd isub imul itruediv ifloordiv imod ipow iand ior ixor".split()
    + "eq ne lt le gt ge neg pos abs invert".split()
):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def _argument(value: Any) -> Any:
    """An argument for NumPy. Its own arrays are refused, as CuPy does."""
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, (tuple, list)):
        return type(value)(_argument(part) for part in value)
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _traced(args: tuple[Any, ...]) -> Any:
    """The first argument that takes elementwise functions over; None if none does."""
    return next((arg for arg in args if hasattr(arg, "__cupy_override_elementwise_kernel__")), None)


def _handed_over(name: str, traced: Any, args: tuple[Any, ...]) -> Any:
    return traced.__cupy_override_elementwise_kernel__(types.SimpleNamespace(name=f"cupy_{name}"), *args)


def _given_to(traced: Any, name: str, array: ndarray, others: tuple[Any, ...]) -> Any:
    """What CuPy makes of an operator beside what takes ufuncs over: it asks for the ufunc, in the order of the operands."""
    plain = name.strip("_")
    is_reflected = plain not in UFUNC_OF and plain[1:] in UFUNC_OF
    ufunc = getattr(np, UFUNC_OF[plain[1:] if is_reflected else plain])
    operands = (*others, array) if is_reflected else (array, *others)
    return traced.__array_ufunc__(ufunc, "__call__", *operands)


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return _argument(index)


def _value(value: Any) -> Any:
    """What may be assigned: CuPy takes a NumPy array of no dimension for its number."""
    return value if isinstance(value, np.ndarray) and not value.ndim else _argument(value)


class Ufunc:
    """A ufunc of CuPy: no `where=`."""

    def __init__(self, cupy: FakeCupy, name: str) -> None:
        self._cupy, self._numpy = cupy, getattr(np, name)
        self.name = self.__name__ = name

    def __call__(self, *args: Any, out: Any = None, dtype: Any = None, casting: str = "same_kind") -> Any:
        if (traced := _traced(args)) is not None:
            return _handed_over(self.name, traced, args)
        options = {"casting": casting} if dtype is None else {"casting": casting, "dtype": dtype}
        if out is None:
            return self._cupy._computed(self._numpy, args, options)
        self._cupy._computed(self._numpy, args, {**options, "out": out})
        return out

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        self._numpy.at(a._host, _index(indices), _argument(b))

    def reduce(
        self, array: ndarray, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False
    ) -> Any:
        found = self._cupy._computed(
            self._numpy.reduce, (array,), {"axis": axis, "dtype": dtype, "keepdims": keepdims, "out": out}
        )
        return found if out is None else out


class FakeCupy(types.ModuleType):
    """The module. `reads`, `silent_reads`, `writes` and `calls` say what crossed between host and device."""

    inf, nan, newaxis, pi = np.inf, np.nan, None, np.pi
    ndarray = ndarray
    __version__ = "14.0.0"

    def __init__(self) -> None:
        super().__init__("cupy")
        self.reset()
        for name in UFUNCS:
            setattr(self, name, Ufunc(self, name))
        for name, parameters in FUNCTIONS.items():
            setattr(self, name, self._function(name, getattr(np, name), parameters.split()))
        for name in (
            "float32",
            "float64",
            "complex64",
            "complex128",
            "int64",
            "uint32",
            "bool_",
            "dtype",
        ):
            setattr(self, name, getattr(np, name))
        self.result_type = lambda *found: np.result_type(*(getattr(one, "dtype", one) for one in found))
        self.linalg = types.SimpleNamespace(
            inv=self._function("inv", np.linalg.inv, ["a"]),
            norm=self._function("norm", np.linalg.norm, ["x", "ord", "axis", "keepdims"]),
        )
        tricks = types.SimpleNamespace(
            as_strided=self._function(
                "as_strided", np.lib.stride_tricks.as_strided, ["x", "shape", "strides"]
            )
        )
        self.lib = types.SimpleNamespace(stride_tricks=tricks)
        self.abs, self.conj = self.absolute, self.conjugate  # type: ignore[attr-defined]
        self.cuda = _cuda(self)

    def reset(self) -> None:
        """Forget what crossed so far."""
        self.reads = self.writes = 0
        self.silent_reads: list[str] = []
        self.calls: list[tuple[Any, ...]] = []
        self.pinned: list[np.ndarray] = []

    def array(
        self, obj: Any, dtype: Any = None, copy: bool = True, order: str = "K", subok: bool = False, ndmin: int = 0,
        *, blocking: bool = False,
    ) -> ndarray:  # fmt: skip
        return ndarray(np.array(self._arriving(obj), dtype, ndmin=ndmin), self)

    def asarray(
        self, a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False
    ) -> ndarray:
        if isinstance(a, ndarray) and (dtype is None or a.dtype == dtype):
            return a
        return ndarray(np.array(self._arriving(a), dtype), self)

    def asnumpy(
        self, a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
    ) -> Any:
        return a.get() if isinstance(a, ndarray) else np.asarray(a)

    def get_default_memory_pool(self) -> Any:
        return types.SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: 3 << 20)

    def _arriving(self, value: Any) -> Any:
        """Host data on its way to the device, lists of device arrays among it."""
        if isinstance(value, np.ndarray):
            self._count_write(None, value)
            return value
        return _argument(value)

    def _function(self, name: str, function: Any, parameters: list[str]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            _check_call(name, parameters, args, kwargs)
            if name == "where" and (traced := _traced(args)) is not None:
                return _handed_over(name, traced, args)
            if any(not isinstance(arg, ndarray) for arg in args[: NEEDS_ARRAYS.get(name, 0)]):
                raise AttributeError(f"cupy.{name} wants arrays; got {[type(arg).__name__ for arg in args]}")
            if name == "reshape":
                return args[0].reshape(*args[1:], **kwargs)
            if name == "copyto" and isinstance(args[1], np.ndarray):
                args = (args[0], _value(args[1]))
            found = self._computed(function, args, kwargs)
            return kwargs["out"] if kwargs.get("out") is not None else found

        call.__name__ = call.__qualname__ = name
        return call

    def _computed(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        host = [arg if isinstance(arg, np.ndarray) and not arg.ndim else _argument(arg) for arg in args]
        if isinstance(function, np.ufunc) and any(isinstance(arg, np.ndarray) for arg in args):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        with np.errstate(all="ignore"):
            found = function(*host, **{key: _argument(value) for key, value in kwargs.items()})
        if isinstance(found, (np.ndarray, np.generic)):
            for arg in args:
                if isinstance(arg, ndarray) and np.may_share_memory(arg._host, found):
                    return arg._wrap(found)
            return ndarray(found, self)
        return found

    def _count_read(self) -> None:
        self.reads += 1
        place = _package_place()
        if place is not None:
            self.silent_reads.append(place)

    def _count_write(self, stream: Any, source: np.ndarray) -> None:
        self.writes += 1
        is_pinned = any(np.may_share_memory(source, memory) for memory in self.pinned)
        self.calls.append(("upload", stream, "page-locked" if is_pinned else "pageable"))


def _package_place() -> str | None:
    """file:line of the package that reads from the device by itself; None where the reader is the backend or a test."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in COMPUTING:
        frame = frame.f_back  # type: ignore[assignment]
    name = frame.f_globals.get("__name__", "") if frame is not None else ""
    if not name.startswith("odegrad.") or name == "odegrad.engine.backend":
        return None
    return f"{name}:{frame.f_lineno}"


class Event:
    """An event: recorded and waited for."""

    cupy: FakeCupy

    def synchronize(self) -> None:
        self.cupy.calls.append(("synchronize", self))


class Stream:
    """A stream, whose calls are written down."""

    cupy: FakeCupy

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: Any = None
    ) -> None:
        self.is_non_blocking = non_blocking

    ptr = property(id)

    def __enter__(self) -> Stream:
        self.cupy.calls.append(("enter", self))
        return self

    def __exit__(self, *_: Any) -> None:
        self.cupy.calls.append(("leave", self))

    def record(self, event: Any = None) -> Event:
        event = event or self.cupy.cuda.Event()
        self.cupy.calls.append(("record", self, event))
        return event

    def wait_event(self, event: Event) -> None:
        self.cupy.calls.append(("wait", self, event))

    def synchronize(self) -> None:
        self.cupy.calls.append(("synchronize", self))


class Device:
    """A GPU, as the current one of a thread."""

    cupy: FakeCupy

    def __enter__(self) -> Device:
        self.cupy.calls.append(("enter", self))
        return self

    def __exit__(self, *_: Any) -> None:
        self.cupy.calls.append(("leave", self))


def _cuda(cupy: FakeCupy) -> Any:
    """What of cupy.cuda the package uses."""
    own = type("Stream", (Stream,), {"cupy": cupy})
    event = type("Event", (Event,), {"cupy": cupy})
    current = own()

    def alloc_pinned_memory(nbytes: int) -> Any:
        cupy.calls.append(("pin", nbytes))
        memory = bytearray(nbytes)
        cupy.pinned.append(np.frombuffer(memory, np.uint8))
        return memory

    return types.SimpleNamespace(
        Stream=own,
        Event=event,
        Device=type("Device", (Device,), {"cupy": cupy}),
        get_current_stream=lambda: current,
        alloc_pinned_memory=alloc_pinned_memory,
        runtime=types.SimpleNamespace(
            CUDARuntimeError=RuntimeError,
            getDeviceCount=lambda: 1,
            getDevice=lambda: 0,
            getDeviceProperties=lambda device: {"name": b"stand-in"},
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 13000,
        ),
    )
