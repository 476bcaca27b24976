"""A stand-in for the package `cudnn` that records what is asked of it and computes from the memory it is pointed to.

It knows a tensor by its dims, strides and type alone, as cuDNN does, so that a wrong stride gives a wrong result. The
arithmetic is a sum over taps in float64. `engines` says which plans it proposes, best first: each a set of numerical
notes, or None for an engine that refuses.
"""

from __future__ import annotations

import ctypes
import enum
from dataclasses import dataclass, field

import numpy as np


class data_type(enum.Enum):  # noqa: N801  the names of the package
    FLOAT = 4
    BFLOAT16 = 2


class heur_mode(enum.Enum):  # noqa: N801
    A = 0
    FALLBACK = 1


class numerical_note(enum.Enum):  # noqa: N801
    TENSOR_CORE = 0
    DOWN_CONVERT_INPUTS = 1
    REDUCED_PRECISION_REDUCTION = 2
    FFT = 3
    NONDETERMINISTIC = 4
    WINOGRAD = 5


class cudnnGraphNotSupportedError(RuntimeError):  # noqa: N801
    """No engine takes the graph."""


@dataclass
class Tensor:
    """A tensor's description; `address` is known while a graph runs."""

    name: str
    dim: list[int] = field(default_factory=list)
    stride: list[int] = field(default_factory=list)
    data_type: data_type | None = None
    is_output: bool = False

    __hash__ = object.__hash__

    def set_output(self, value):
        self.is_output = value
        return self

    def set_data_type(self, value):
        self.data_type = value
        return self

    def set_dim(self, value):
        self.dim = value
        return self

    def set_stride(self, value):
        self.stride = value
        return self

    def view(self, address):
        """The memory at `address` as an array of `dim` and `stride` (uint16 for bfloat16)."""
        dtype = np.dtype(np.float32 if self.data_type is data_type.FLOAT else np.uint16)
        size = 1 + sum((n - 1) * step for n, step in zip(self.dim, self.stride, strict=True))
        raw = (ctypes.c_char * (size * dtype.itemsize)).from_address(address)
        steps = [step * dtype.itemsize for step in self.stride]
        return np.ndarray(self.dim, dtype, raw, strides=steps)

    def read(self, address):
        """The values at `address`, float64."""
        view = self.view(address)
        if self.data_type is data_type.BFLOAT16:
            view = (view.astype(np.uint32) << 16).view(np.float32)
        return view.astype(np.float64)

    def write(self, address, values):
        """`values` at `address`; bfloat16 by cutting off the lower half."""
        values = values.astype(np.float32)
        is_narrow = self.data_type is data_type.BFLOAT16
        self.view(address)[...] = (values.view(np.uint32) >> 16).astype(np.uint16) if is_narrow else values


class FakeCudnn:
    """The package. `engines(graph)` gives the notes of the plans it proposes for a graph."""

    data_type, heur_mode, numerical_note = data_type, heur_mode, numerical_note
    cudnnGraphNotSupportedError = cudnnGraphNotSupportedError

    def __init__(self, engines=lambda graph: [set()]):
        self.engines = engines
        self.graphs, self.streams, self.runs, self.handles = [], [], [], []

    def create_handle(self):
        self.handles.append(object())
        return self.handles[-1]

    def set_stream(self, *, handle, stream):
        assert handle in self.handles
        self.streams.append(stream)

    def pygraph(self, **settings):
        self.graphs.append(Graph(self, settings))
        return self.graphs[-1]


class Graph:
    """One convolution."""

    def __init__(self, cudnn, settings):
        self.cudnn, self.settings = cudnn, settings
        self.calls, self.refused = [], set()
        self.kind = self.node = self.chosen = None
        self.has_epilogue = False

    def tensor(self, *, name, dim, stride, data_type):
        return Tensor(name, dim, stride, data_type)

    def _convolve(self, kind, operands, node):
        self.kind, self.operands, self.node = kind, operands, node
        self.result = Tensor("result")
        return self.result

    def conv_fprop(self, *, image, weight, **node):
        return self._convolve("fprop", (image, weight), node)

    def conv_dgrad(self, *, loss, filter, **node):
        return self._convolve("dgrad", (loss, filter), node)

    def conv_wgrad(self, *, image, loss, **node):
        return self._convolve("wgrad", (image, loss), node)

    def identity(self, *, input, compute_data_type, name):
        """An epilogue: what the graph writes is its result, in another type."""
        assert input is self.result and input.data_type is compute_data_type is data_type.FLOAT
        assert input.dim and input.stride
        self.has_epilogue, self.result = True, Tensor(name)
        return self.result

    def validate(self):
        self.calls.append("validate")

    def build_operation_graph(self):
        self.calls.append("build_operation_graph")

    def create_execution_plans(self, modes):
        self.calls.append("create_execution_plans")
        self.modes = modes

    def deselect_numeric_notes(self, notes):
        assert self.calls[-1] == "create_execution_plans", "notes are filtered among plans that exist"
        self.refused |= set(notes)

    def check_support(self):
        allowed = [
            notes for notes in self.cudnn.engines(self) if notes is not None and not notes & self.refused
        ]
        if not allowed:
            raise cudnnGraphNotSupportedError("no engine")
        self.chosen = allowed[0]

    def build_plans(self):
        assert self.chosen is not None

    def get_workspace_size(self):
        return 64

    def execute(self, pack, workspace, handle):
        assert workspace and handle is self.settings["handle"]
        first, second, result = *self.operands, self.result
        a, b = (tensor.read(pack[tensor]) for tensor in (first, second))
        result.write(pack[result], _KINDS[self.kind](a, b, result.dim, self.node))
        self.cudnn.runs.append(self)


def _padded(x, padding):
    (p_h, p_w) = padding
    return np.pad(x, ((0, 0), (0, 0), (p_h, p_h), (p_w, p_w)))


def _seen(padded, k, l, rows, columns, stride):
    """What tap (k, l) sees at each output position; a view."""
    s_h, s_w = stride
    return padded[:, :, k : k + (rows - 1) * s_h + 1 : s_h, l : l + (columns - 1) * s_w + 1 : s_w]


def _fprop(x, w, dim, node):
    y, padded = np.zeros(dim), _padded(x, node["padding"])
    for k in range(w.shape[2]):
        for l in range(w.shape[3]):
            y += np.einsum("nchw,kc->nkhw", _seen(padded, k, l, *dim[2:], node["stride"]), w[:, :, k, l])
    return y


def _dgrad(y, w, dim, node):
    p_h, p_w = node["padding"]
    padded = _padded(np.zeros(dim), (p_h, p_w))
    for k in range(w.shape[2]):
        for l in range(w.shape[3]):
            seen = _seen(padded, k, l, *y.shape[2:], node["stride"])
            seen += np.einsum("nkhw,kc->nchw", y, w[:, :, k, l])
    return padded[:, :, p_h : p_h + dim[2], p_w : p_w + dim[3]]


def _wgrad(x, y, dim, node):
    w, padded = np.zeros(dim), _padded(x, node["padding"])
    for k in range(dim[2]):
        for l in range(dim[3]):
            seen = _seen(padded, k, l, *y.shape[2:], node["stride"])
            w[:, :, k, l] = np.einsum("nchw,nkhw->kc", seen, y)
    return w


_KINDS = {"fprop": _fprop, "dgrad": _dgrad, "wgrad": _wgrad}
