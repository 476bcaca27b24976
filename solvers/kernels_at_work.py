"""What holds for the kernels of f while a solve is at work: the round-off they may add,
and who has the threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import numpy as np

from ..engine.kernels.precision import accepting
from ..engine.kernels.threads import one_blas_thread
from ..engine.primitive import PRIMITIVES
from ..engine.tiled import replaces_blas_threads
from .dynamics import Dynamics
from .options import Options

CONVOLUTIONS = frozenset(name for name in PRIMITIVES if name.startswith("conv2d"))


def kernels_at_work(dynamics: Dynamics, options: Options) -> Callable[[], AbstractContextManager[None]]:
    """The context in which f, its replay and its pull-back are to be evaluated, as a function that makes it.

    Convolutions and tiles divide themselves among threads. Between them, products on all threads of BLAS
    would leave its workers spinning on the cores that these threads need: a training iteration of the network
    `conv-7` of benchmarks/iteration.py takes a sixth of the time with BLAS held at one thread where one of
    two cores is busy.
    """
    return partial(_at_work, options.accepted_round_off, _divides_itself(dynamics, options))


@contextmanager
def _at_work(accepted_round_off: float, divides_itself: bool) -> Iterator[None]:
    held = one_blas_thread() if divides_itself else nullcontext()
    with accepting(accepted_round_off), held:
        yield


def _divides_itself(dynamics: Dynamics, options: Options) -> bool:
    """Whether f is divided among threads in other ways than by BLAS: convolutions, and tiles in replay."""
    program, shape = dynamics.program, dynamics.layout.shapes[0]
    if not CONVOLUTIONS.isdisjoint(program.operations):
        return True
    is_tiled = options.execution == "replay" and dynamics.xp is np and len(shape) > 1
    return is_tiled and replaces_blas_threads(program, shape[0])
