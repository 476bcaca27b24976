"""One convolution as a cuDNN graph: built for its shapes and precision, planned once,
run on CuPy's current stream.

cuDNN names axes (N, C, H, W) for images and (K, C, R, S) for kernels and is told where they lie in memory by
strides. Channels-last images (B, H, W, C) are N, H, W, C in memory and are taken as they are. A kernel must
lie as K, R, S, C; ours, (kh, kw, Cin, Cout), is R, S, C, K and is repacked by the caller.

    fprop: image, kernel -> result;   dgrad: loss, kernel -> image;   wgrad: image, loss -> kernel

Products are added in float32. Operands are float32 (in "tf32" cuDNN may round them), or bfloat16 in "bf16",
where the result has one of three forms, the first that cuDNN has a plan for: float32 behind an epilogue (an
identity that widens the sums; its fused engines have many plans), float32 from the convolution itself (few
shapes), bfloat16. Where only the last is there, results are rounded like operands. A plan is the first that
cuDNN's heuristics propose among those whose numerical notes the precision allows.

Each thread has a handle a device, as cuDNN demands, and its own plans.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from .. import backend
from ..backend import Array
from ..kernels.geometry import Pair
from ..product_precision import Products
from .plan_store import PlanStore

Shape = tuple[int, int, int, int]

_MOST_PLANS = 512  # a thread; a network has a few dozen, each again for the last, smaller batch
_REDUCED = ("DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION")  # what no precision asked for
_NOT_PLAIN_SUMS = ("FFT", "WINOGRAD", "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13")
_REFUSED_NOTES = {  # numerical notes of plans that round more than the precision says
    "fp32": ("TENSOR_CORE", *_REDUCED, *_NOT_PLAIN_SUMS),
    "tf32": _REDUCED,
    "bf16": ("REDUCED_PRECISION_REDUCTION",),
}
EPILOGUE, DIRECT, NARROW = "epilogue", "direct", "narrow"  # forms of the result
_FORMS = {"fp32": (DIRECT,), "tf32": (DIRECT,), "bf16": (EPILOGUE, DIRECT, NARROW)}  # in this order


@dataclass(frozen=True)
class Problem:
    """What a plan is made for.

    Attributes:
        kind: "fprop", "dgrad" or "wgrad".
        x_shape, w_shape, y_shape: of the forward convolution, (B, H, W, Cin), (kh, kw, Cin, Cout),
            (B, Ho, Wo, Cout).
    """

    kind: str
    x_shape: Shape
    w_shape: Shape
    y_shape: Shape
    stride: Pair
    padding: Pair
    products: Products


@dataclass(frozen=True)
class Plan:
    """A built graph.

    Attributes:
        operands: cuDNN's tensors of the two operands, in order.
        result: its tensor of the result; result_is_narrow if that is bfloat16.
        workspace: bytes that a run needs.
    """

    graph: Any
    operands: tuple[Any, Any]
    result: Any
    result_is_narrow: bool
    workspace: int


class _Library(PlanStore[Problem, Plan]):
    """cuDNN on one device, for one thread: the handle and the plans built so far,
    None for what has no plan.
    """

    def __init__(self, cudnn: Any) -> None:
        super().__init__(_MOST_PLANS)
        self.cudnn = cudnn
        self.handle = cudnn.create_handle()

    def made(self, problem: Problem) -> Plan | None:
        for form in _FORMS[problem.products.precision]:
            try:
                return build(self.cudnn, self.handle, problem, form)
            except (self.cudnn.cudnnGraphNotSupportedError, ImportError, RuntimeError):
                continue  # not one engine of this cuDNN takes it; ImportError: an engine's package is missing
        return None


_local = threading.local()


def library() -> _Library:
    """cuDNN on the device of this thread's CuPy calls; made at the first call."""
    libraries: dict[int, _Library] = _local.__dict__.setdefault("libraries", {})
    device = backend.device_number()
    if device not in libraries:
        libraries[device] = _Library(backend.cudnn_module())
    return libraries[device]


def plan_for(problem: Problem) -> Plan | None:
    """The plan of `problem` on this thread and device, built at the first call; None if cuDNN has none."""
    return library().plan(problem)


def plans_in_use() -> dict[Problem, Plan | None]:
    """For each problem met on this thread and device its plan, None for those left to matrix products."""
    return dict(library().plans)


def run(plan: Plan, first: Array, second: Array, result: Array) -> None:
    """Write the result of a plan for two operands; all C-contiguous, in the dtypes of the plan.

    The workspace comes from CuPy's pool, so that a call that is being captured into a CUDA graph takes it
    from the memory of that graph; freed at return, it is used again in the order of the stream.
    """
    own = library()
    xp = backend.namespace_of(result)
    workspace = xp.empty(max(plan.workspace, 1), dtype="uint8")
    own.cudnn.set_stream(handle=own.handle, stream=backend.current_stream())
    tensors = (*plan.operands, plan.result)
    addresses = [backend.device_address(array) for array in (first, second, result)]
    plan.graph.execute(
        dict(zip(tensors, addresses, strict=True)), backend.device_address(workspace), handle=own.handle
    )


def build(cudnn: Any, handle: Any, problem: Problem, form: str) -> Plan:
    """Build the graph of `problem` whose result has the form EPILOGUE, DIRECT or NARROW.

    Raises: cudnnGraphNotSupportedError if no engine takes it.
    """
    narrow, add = cudnn.data_type.BFLOAT16, cudnn.data_type.FLOAT
    operand = narrow if problem.products.precision == "bf16" else add
    graph = cudnn.pygraph(
        io_data_type=operand, intermediate_data_type=add, compute_data_type=add, handle=handle
    )
    image, kernel, loss = _layouts(problem)
    settings = {
        "padding": list(problem.padding),
        "stride": list(problem.stride),
        "dilation": [1, 1],
        "compute_data_type": add,
        "name": problem.kind,
    }

    def tensor(name: str, layout: tuple[list[int], list[int]]) -> Any:
        return graph.tensor(name=name, dim=layout[0], stride=layout[1], data_type=operand)

    if problem.kind == "fprop":
        operands = tensor("image", image), tensor("weight", kernel)
        output, layout = graph.conv_fprop(image=operands[0], weight=operands[1], **settings), loss
    elif problem.kind == "dgrad":
        operands = tensor("loss", loss), tensor("filter", kernel)
        output, layout = graph.conv_dgrad(loss=operands[0], filter=operands[1], **settings), image
    else:
        operands = tensor("image", image), tensor("loss", loss)
        output, layout = graph.conv_wgrad(image=operands[0], loss=operands[1], **settings), kernel
    if form == EPILOGUE:
        output.set_data_type(add).set_dim(layout[0]).set_stride(layout[1])
        output = graph.identity(input=output, compute_data_type=add, name="widen")
    output.set_output(True).set_data_type(narrow if form == NARROW else add)
    output.set_dim(layout[0]).set_stride(layout[1])
    _choose(cudnn, graph, problem.products)
    return Plan(graph, operands, output, form == NARROW, graph.get_workspace_size())


def _choose(cudnn: Any, graph: Any, products: Products) -> None:
    """Plan the graph with the best-rated engine that the precision allows."""
    graph.validate()
    graph.build_operation_graph()
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    names = (*_REFUSED_NOTES[products.precision], *(("NONDETERMINISTIC",) if products.deterministic else ()))
    known = [getattr(cudnn.numerical_note, name) for name in names if hasattr(cudnn.numerical_note, name)]
    graph.deselect_numeric_notes(known)
    graph.check_support()
    graph.build_plans()


def _layouts(problem: Problem) -> tuple[tuple[list[int], list[int]], ...]:
    """(dims, strides) of image, kernel and loss, as cuDNN names the axes."""
    n_taps_h, n_taps_w, n_in, n_out = problem.w_shape
    kernel = (n_out, n_taps_h, n_taps_w, n_in)  # as it lies in memory
    return tuple(_channels_last(shape) for shape in (problem.x_shape, kernel, problem.y_shape))


def _channels_last(shape: Shape) -> tuple[list[int], list[int]]:
    """Dims (N, C, H, W) and strides of an array (N, H, W, C) without gaps."""
    n, height, width, channels = shape
    return [n, channels, height, width], [height * width * channels, 1, width * channels, channels]
