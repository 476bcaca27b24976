"""One product of matrices, or of each two of a stack, by cublasLt: planned once for its layouts,
run on CuPy's current stream.

CuPy refuses its own calls of cuBLAS while a stream captures; cublasLt (by the bindings of nvmath-python) is
asked directly, with memory that the caller owns, and what it launches becomes part of a CUDA graph.

cublasLt reads matrices column by column. For each operand it is told how many values lie side by side
(`rows`), and the distance from one such run to the next (its leading dimension);
an operand may be taken turned. It computes

    result = turn(first) turn(second)        (factors 1 and 0: what was in the result is never read)

Kinds of products, all added up in the type of the result:

| kind | operands | their rounding | result |
|---|---|---|---|
| fp64 | float64 | none | float64 |
| fp32 | float32 | none | float32 |
| tf32 | float32 | TF32, by the tensor cores | float32 |
| bf16 | bfloat16 | done by the caller | float32 |

A plan is the first that cublasLt's heuristics propose. The same plan gives the same bits at each run. With
`deterministic` sums over k that are divided among blocks are added up in a pass of their own, never in the
result in the order in which the blocks finish. Each thread has a handle a device, and its own plans.

Source: NVIDIA, cuBLAS Library documentation, "Using the cuBLASLt API";
    the numbers of types are those of its C interface.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import backend
from ..backend import Array
from .plan_store import PlanStore

logger = logging.getLogger("odegrad")

MOST_WORKSPACE = 1 << 25  # bytes, what NVIDIA recommends for Hopper
WIDEST_ALIGNMENT = 256  # bytes, of what cublasLt takes for granted unless told otherwise
_PROPOSALS = 4  # of the heuristics, best first: the first that can be run is taken
_MOST_PLANS = 512  # a thread; a network has a few dozen, each again for the last, smaller batch


class Kind(NamedTuple):
    """cublasComputeType_t, and cudaDataType of the operands and of the result (which is also that of the
    factors).
    """

    compute: int
    operand: int
    result: int


KINDS = {
    "fp64": Kind(compute=70, operand=1, result=1),  # COMPUTE_64F, R_64F
    "fp32": Kind(compute=68, operand=0, result=0),  # COMPUTE_32F, R_32F
    "tf32": Kind(compute=77, operand=0, result=0),  # COMPUTE_32F_FAST_TF32, R_32F
    "bf16": Kind(compute=68, operand=14, result=0),  # COMPUTE_32F, R_16BF and R_32F
}


class Matrix(NamedTuple):
    """How a matrix, or a stack of them, lies in memory; all numbers count values.

    Attributes:
        rows: that lie side by side.
        columns: runs of `rows` values.
        step: from one run to the next, at least `rows`.
        stack_step: from one matrix of the stack to the next; 0 for an operand that is the same for all.
    """

    rows: int
    columns: int
    step: int
    stack_step: int = 0


class Problem(NamedTuple):
    """What a plan is made for.

    Attributes:
        kind: of KINDS.
        first, second, result: as they lie in memory.
        turned: whether first and second are taken turned.
        n_matrices: in the stack.
        alignments: bytes of which the addresses of first, second and result are multiples, powers of 2.
        deterministic: whether sums over k must not be added up in the result by several blocks.
    """

    kind: str
    first: Matrix
    second: Matrix
    result: Matrix
    turned: tuple[bool, bool]
    n_matrices: int
    alignments: tuple[int, int, int]
    deterministic: bool


class Plan:
    """cublasLt's descriptions of a problem and the algorithm that it chose; they are destroyed with the plan.

    Attributes:
        workspace: bytes that a run needs.
    Raises: NoAlgorithm; the package's cuBLASLtError for what it takes for a mistake.
    """

    def __init__(self, lt: Any, handle: int, problem: Problem) -> None:
        self._owned: list[tuple[Callable[[int], None], int]] = []
        weakref.finalize(self, _destroy, self._owned).atexit = False  # the library may be gone by then
        kind = KINDS[problem.kind]
        factors = np.array([1.0, 0.0], np.float64 if problem.kind == "fp64" else np.float32)
        self._factors = factors  # read by every run
        self.one, self.zero = (factors[i:].ctypes.data for i in range(2))
        self.description = self._own(lt.matmul_desc_create(kind.compute, kind.result), lt.matmul_desc_destroy)
        names = lt.MatmulDescAttribute.TRANSA, lt.MatmulDescAttribute.TRANSB
        for name, is_turned in zip(names, problem.turned, strict=True):
            _set(lt.matmul_desc_set_attribute, self.description, name, np.int32(is_turned))
        matrices = (problem.first, problem.second, problem.result)
        types = (kind.operand, kind.operand, kind.result)
        self.layouts = [
            self._layout(lt, *pair, problem.n_matrices) for pair in zip(matrices, types, strict=True)
        ]
        self._found = self._proposals(lt, handle, problem)
        chosen = next((i for i, one in enumerate(self._found) if one["state"] == 0), None)
        if chosen is None:
            raise NoAlgorithm
        self.workspace = int(self._found[chosen]["workspace_size"])
        self.algorithm = self._found[chosen:]["algo"].ctypes.data

    def _own(self, pointer: int, destroy: Callable[[int], None]) -> int:
        self._owned.append((destroy, pointer))
        return pointer

    def _layout(self, lt: Any, matrix: Matrix, data_type: int, count: int) -> int:
        pointer = lt.matrix_layout_create(data_type, matrix.rows, matrix.columns, matrix.step)
        self._own(pointer, lt.matrix_layout_destroy)
        if count > 1:
            names = lt.MatrixLayoutAttribute
            _set(lt.matrix_layout_set_attribute, pointer, names.BATCH_COUNT, np.int32(count))
            step = np.int64(matrix.stack_step)
            _set(lt.matrix_layout_set_attribute, pointer, names.STRIDED_BATCH_OFFSET, step)
        return pointer

    def _proposals(self, lt: Any, handle: int, problem: Problem) -> np.ndarray:
        """Rows of `matmul_heuristic_result_dtype`: what cublasLt proposes, best first."""
        names, first, second, result = lt.MatmulPreferenceAttribute, *problem.alignments
        wanted: list[tuple[Any, np.generic]] = [
            (names.MAX_WORKSPACE_BYTES, np.uint64(MOST_WORKSPACE)),
            (names.MIN_ALIGNMENT_A_BYTES, np.uint32(first)),
            (names.MIN_ALIGNMENT_B_BYTES, np.uint32(second)),
            (names.MIN_ALIGNMENT_C_BYTES, np.uint32(result)),
            (names.MIN_ALIGNMENT_D_BYTES, np.uint32(result)),
        ]
        if problem.deterministic:
            wanted.append((names.REDUCTION_SCHEME_MASK, np.uint32(lt.ReductionScheme.COMPUTE_TYPE)))
        found = np.zeros(_PROPOSALS, lt.matmul_heuristic_result_dtype)
        n_found = np.zeros(1, np.int32)
        preference = lt.matmul_preference_create()
        try:
            for name, value in wanted:
                _set(lt.matmul_preference_set_attribute, preference, name, value)
            layouts = (*self.layouts, self.layouts[-1])
            lt.matmul_algo_get_heuristic(
                handle, self.description, *layouts, preference, len(found), found.ctypes.data, n_found.ctypes.data
            )  # fmt: skip
        finally:
            lt.matmul_preference_destroy(preference)
        return found[: n_found[0]]


class NoAlgorithm(Exception):
    """cublasLt proposes nothing that it could run."""


def _set(setter: Callable[..., None], target: int, name: Any, value: np.generic) -> None:
    """Set one attribute, whose C type is that of `value`."""
    cell = np.array(value)
    setter(target, int(name), cell.ctypes.data, cell.nbytes)


def _destroy(owned: list[tuple[Callable[[int], None], int]]) -> None:
    for destroy, pointer in owned:
        destroy(pointer)


class _Library(PlanStore[Problem, Plan]):
    """cublasLt on one device, for one thread: the handle and the plans made so far,
    None for what has no algorithm.
    """

    def __init__(self, lt: Any) -> None:
        super().__init__(_MOST_PLANS)
        self.lt = lt
        self.handle = lt.create()

    def made(self, problem: Problem) -> Plan | None:
        try:
            return Plan(self.lt, self.handle, problem)
        except (NoAlgorithm, self.lt.cuBLASLtError) as error:
            logger.info(
                "odegrad: cublasLt has no algorithm for %s%s: such products are made with less rounding, or by cuBLAS, and "
                "then steps with them are launched kernel by kernel",
                problem,
                f" ({error})" if str(error) else "",
            )
            return None


_local = threading.local()


def library() -> _Library:
    """cublasLt on the device of this thread's CuPy calls; made at the first call."""
    libraries: dict[int, _Library] = _local.__dict__.setdefault("libraries", {})
    device = backend.device_number()
    if device not in libraries:
        libraries[device] = _Library(backend.cublaslt_module())
    return libraries[device]


def plan_for(problem: Problem) -> Plan | None:
    """The plan of `problem` on this thread and device, made at the first call;
    None if cublasLt has no algorithm.
    """
    return library().plan(problem)


def plans_in_use() -> dict[Problem, Plan | None]:
    """For each problem met on this thread and device its plan, None for those left to cuBLAS."""
    return dict(library().plans)


def run(plan: Plan, first: Array, second: Array, result: Array) -> None:
    """Write the result of a plan for two operands that lie as its problem says.

    The workspace comes from CuPy's pool. For a call that is being captured that is the memory of its graph,
    which has it since the call was carried out there, so that nothing is allocated; freed at return, it is
    used again in the order of the stream.
    """
    own = library()
    workspace, address = None, 0
    if plan.workspace:
        workspace = backend.namespace_of(result).empty(plan.workspace, dtype="uint8")
        address = backend.device_address(workspace)
    first_layout, second_layout, layout = plan.layouts
    target = backend.device_address(result)
    own.lt.matmul(
        own.handle, plan.description,
        plan.one, backend.device_address(first), first_layout, backend.device_address(second), second_layout,
        plan.zero, target, layout, target, layout,
        plan.algorithm, address, plan.workspace, backend.current_stream(),
    )  # fmt: skip
