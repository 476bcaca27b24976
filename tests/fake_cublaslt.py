"""A stand-in for `nvmath.bindings.cublasLt` that checks what the library checks and computes from the memory it is pointed to.

It knows a matrix by its layout alone (type, rows, columns, leading dimension, stack), column by column, so that a wrong
leading dimension gives a wrong result. Attributes must have the size of their C type. A descriptor counts only until it is
destroyed. An algorithm serves the layouts that it was proposed for, at addresses of the alignment that was declared.
Every address must be that of a living array (`address_of`, to be put in the place of `backend.device_address`), with room
for the whole matrix. The arithmetic is in float64, of operands rounded to TF32 (by cutting off bits) or bfloat16.

`algorithms(kind)` says what the heuristics propose for "fp64", "fp32", "tf32" or "bf16", best first: bytes of workspace, or
None for a proposal that cannot be run.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import weakref
from dataclasses import dataclass, field
from typing import Any

import cuda_on_cpu
import numpy as np
from rounded_products import rounded


class MatmulDescAttribute(enum.IntEnum):
    TRANSA = 3
    TRANSB = 4


class MatrixLayoutAttribute(enum.IntEnum):
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(enum.IntEnum):
    MAX_WORKSPACE_BYTES = 1
    REDUCTION_SCHEME_MASK = 3
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


class ReductionScheme(enum.IntEnum):
    NONE = 0
    INPLACE = 1
    COMPUTE_TYPE = 2
    OUTPUT_TYPE = 4
    MASK = 7


class cuBLASLtError(Exception):  # noqa: N801  the name of the package
    """What the library refuses."""


algo_dtype = np.dtype([("data_", "<u8", (8,))])
result_dtype = np.dtype(
    [
        ("algo", algo_dtype),
        ("workspace_size", "<u8"),
        ("state", "<i4"),
        ("waves_count", "<f4"),
        ("reserved", "<i4", (4,)),
    ]
)
R_32F, R_64F, R_16BF = 0, 1, 14
TYPES = {R_32F: np.dtype("f4"), R_64F: np.dtype("f8"), R_16BF: np.dtype("u2")}
COMBINATIONS = {  # (compute type, operands, result), as in the library's table
    (68, R_32F, R_32F): "fp32",
    (77, R_32F, R_32F): "tf32",
    (68, R_16BF, R_32F): "bf16",
    (70, R_64F, R_64F): "fp64",
}


@dataclass
class Layout:
    """A matrix, or a stack of them, column by column."""

    type: int
    rows: int
    columns: int
    step: int
    count: int = 1
    stack_step: int = 0

    @property
    def reach(self) -> int:
        """Values from the first to behind the last."""
        return (self.count - 1) * self.stack_step + (self.columns - 1) * self.step + (self.rows - 1) + 1

    def view(self, address: int) -> np.ndarray:
        """(count, rows, columns) of the memory at `address`."""
        dtype = TYPES[self.type]
        raw = (ctypes.c_char * (self.reach * dtype.itemsize)).from_address(address)
        steps = [n * dtype.itemsize for n in (self.stack_step, 1, self.step)]
        return np.ndarray((self.count, self.rows, self.columns), dtype, raw, strides=steps)


@dataclass
class Description:
    """A product."""

    compute: int
    scale: int
    turned: list[int] = field(default_factory=lambda: [0, 0])


@dataclass
class Proposal:
    """What an algorithm was proposed for."""

    description: int
    layouts: tuple[int, ...]
    alignments: dict[str, int]
    workspace: int
    reductions: int


class FakeCublasLt:
    """The package; `runs` holds the kind, the turns and the reductions allowed of each product that was computed."""

    MatmulDescAttribute, MatrixLayoutAttribute = MatmulDescAttribute, MatrixLayoutAttribute
    MatmulPreferenceAttribute, ReductionScheme = MatmulPreferenceAttribute, ReductionScheme
    matmul_heuristic_result_dtype, cuBLASLtError = result_dtype, cuBLASLtError

    def __init__(self, algorithms=lambda kind: [4096]) -> None:
        self.algorithms = algorithms
        self.recorder: Any = None  # of `fake_graphs`, where streams capture
        self.handles: list[int] = []
        self.streams: list[int] = []
        self.runs: list[dict[str, Any]] = []
        self.objects: dict[int, Any] = {}  # descriptors that live
        self.proposals: dict[int, Proposal] = {}
        self.arrays: dict[int, list[weakref.ref[Any]]] = {}  # by address, whose address was asked for
        self._numbers = itertools.count(1000)

    # --- arrays and their addresses ---

    def address_of(self, array: Any) -> int:
        """The address of an array, which is known from now on, for as long as it lives."""
        address = cuda_on_cpu.address_of(array)
        self.arrays.setdefault(address, []).append(weakref.ref(array))
        return address

    def _living(self, address: int, n_bytes: int) -> Any:
        """The array at an address, with room for `n_bytes` there."""
        for known in reversed(self.arrays.get(address, [])):
            array = known()
            if array is not None and address + n_bytes <= _end_of(getattr(array, "_host", array)):
                return array
        raise AssertionError(f"no living array has {n_bytes} bytes at {address}")

    # --- descriptors ---

    def create(self) -> int:
        self.handles.append(next(self._numbers))
        return self.handles[-1]

    def _new(self, value: Any) -> int:
        number = next(self._numbers)
        self.objects[number] = value
        return number

    def _destroy(self, number: int) -> None:
        del self.objects[number]

    matmul_desc_destroy = matrix_layout_destroy = matmul_preference_destroy = _destroy

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        return self._new(Description(compute_type, scale_type))

    def matmul_desc_set_attribute(self, matmul_desc: int, attr: int, buf: int, size: int) -> None:
        self.objects[matmul_desc].turned[attr - MatmulDescAttribute.TRANSA] = _read(buf, size, "i4")

    def matrix_layout_create(self, type: int, rows: int, cols: int, ld: int) -> int:
        assert type in TYPES and min(rows, cols) >= 1
        return self._new(Layout(type, rows, cols, ld))

    def matrix_layout_set_attribute(self, mat_layout: int, attr: int, buf: int, size: int) -> None:
        layout = self.objects[mat_layout]
        if attr == MatrixLayoutAttribute.BATCH_COUNT:
            layout.count = _read(buf, size, "i4")
        else:
            assert attr == MatrixLayoutAttribute.STRIDED_BATCH_OFFSET
            layout.stack_step = _read(buf, size, "i8")

    def matmul_preference_create(self) -> int:
        return self._new({name: 256 for name in MatmulPreferenceAttribute if "ALIGNMENT" in name.name})

    def matmul_preference_set_attribute(self, pref: int, attr: int, buf: int, size: int) -> None:
        name = MatmulPreferenceAttribute(attr)
        is_bytes = name is MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES
        self.objects[pref][name] = _read(buf, size, "u8" if is_bytes else "u4")

    # --- the choice of an algorithm ---

    def matmul_algo_get_heuristic(
        self, light_handle, operation_desc, adesc, bdesc, cdesc, ddesc, preference, requested, results, count
    ) -> None:  # fmt: skip
        assert light_handle in self.handles
        wanted, layouts = self.objects[preference], (adesc, bdesc, cdesc, ddesc)
        kind = self._check_sizes(operation_desc, layouts)
        most = wanted.get(MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES, 0)
        proposed = self.algorithms(kind)[:requested]
        rows = np.ndarray(requested, result_dtype, _memory(results, requested * result_dtype.itemsize))
        for row, workspace in zip(rows, proposed, strict=False):
            number = next(self._numbers)
            row["algo"]["data_"][0] = number
            row["state"] = 15 if workspace is None else 0
            row["workspace_size"] = workspace or 0
            assert workspace is None or workspace <= most
            self.proposals[number] = Proposal(
                operation_desc,
                layouts,
                {name.name[14]: wanted[name] for name in wanted if "ALIGNMENT" in name.name},
                workspace or 0,
                wanted.get(MatmulPreferenceAttribute.REDUCTION_SCHEME_MASK, ReductionScheme.MASK),
            )
        np.ndarray(1, "i4", _memory(count, 4))[0] = len(proposed)

    def _check_sizes(self, description: int, layouts: tuple[int, ...]) -> str:
        """The kind of a product, whose matrices fit together."""
        found = self.objects[description]
        a, b, c, d = (self.objects[layout] for layout in layouts)
        kind = COMBINATIONS[found.compute, a.type, d.type]
        assert b.type == a.type and c == d and found.scale == d.type
        (m, k), (k_again, n) = (
            (x.columns, x.rows) if turn else (x.rows, x.columns)
            for x, turn in zip((a, b), found.turned, strict=True)
        )
        if k != k_again or (d.rows, d.columns) != (m, n) or len({a.count, b.count, c.count, d.count}) > 1:
            raise cuBLASLtError("CUBLAS_STATUS_INVALID_VALUE: sizes")
        for layout in (a, b, d):
            if layout.step < layout.rows:
                raise cuBLASLtError("CUBLAS_STATUS_INVALID_VALUE: leading dimension")
        matrix = (d.columns - 1) * d.step + d.rows
        assert d.count == 1 or d.stack_step >= matrix or d.step >= d.count * d.stack_step >= d.rows, (
            "matrices of the result on top of each other"
        )
        return kind

    # --- a product ---

    def matmul(
        self, light_handle, compute_desc, alpha, a, adesc, b, bdesc, beta, c, cdesc, d, ddesc, algo, workspace,
        workspace_size, stream,
    ) -> None:  # fmt: skip
        assert light_handle in self.handles
        self.streams.append(stream)
        layouts = (adesc, bdesc, cdesc, ddesc)
        proposal = self.proposals[int(np.ndarray(8, "u8", _memory(algo, 64))[0])]
        assert (proposal.description, proposal.layouts) == (compute_desc, layouts), (
            "another product's algorithm"
        )
        kind = self._check_sizes(compute_desc, layouts)
        scale = TYPES[self.objects[compute_desc].scale]
        factors = [np.ndarray(1, scale, _memory(p, scale.itemsize))[0] for p in (alpha, beta)]
        assert factors == [1.0, 0.0] and c == d
        found = [self.objects[layout] for layout in (adesc, bdesc, ddesc)]
        turned = list(self.objects[compute_desc].turned)
        held = []
        for name, address, layout in zip("ABD", (a, b, d), found, strict=True):
            assert address % proposal.alignments[name] == 0, (
                f"{name} at {address} is less aligned than declared"
            )
            held.append(self._living(address, layout.reach * TYPES[layout.type].itemsize))
        assert workspace_size >= proposal.workspace
        if workspace_size:
            held.append(self._living(workspace, workspace_size))
        kept = [Layout(**vars(layout)) for layout in found]

        def work(_held: Any = held) -> None:
            left, right = (_values(layout.view(at), kind) for layout, at in zip(kept, (a, b), strict=False))
            left, right = (
                x.swapaxes(1, 2) if turn else x for x, turn in zip((left, right), turned, strict=True)
            )
            kept[2].view(d)[...] = left @ right

        self.runs.append({"kind": kind, "turned": turned, "reductions": proposal.reductions})
        if self.recorder is not None and self.recorder.nodes is not None:
            self.recorder.nodes.append(("cublasLt", work))
        else:
            work()


def _memory(address: int, n_bytes: int) -> Any:
    return (ctypes.c_char * n_bytes).from_address(address)


def _read(address: int, n_bytes: int, dtype: str) -> int:
    """An attribute, which must have the size of its C type."""
    if n_bytes != np.dtype(dtype).itemsize:
        raise cuBLASLtError(f"CUBLAS_STATUS_INVALID_VALUE: {n_bytes} bytes in the place of {dtype}")
    return int(np.ndarray(1, dtype, _memory(address, n_bytes))[0])


def _values(view: np.ndarray, kind: str) -> np.ndarray:
    """Operands as the tensor cores see them, in float64."""
    if kind == "bf16":
        view = (view.astype(np.uint32) << 16).view(np.float32)
    return rounded(view, "tf32" if kind == "tf32" else "fp32").astype(np.float64)


def _end_of(array: np.ndarray) -> int:
    """Behind the last byte of the memory that an array lies in."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return (
        array.ctypes.data
        + sum((n - 1) * abs(s) for n, s in zip(array.shape, array.strides, strict=True))
        + (array.itemsize)
    )
