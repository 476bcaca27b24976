"""Arrays, primitives and their rules, tracing, programs, replay, transforms."""

from . import compiled_strided, compiled_winograd, errors, ops, protocols, random
from .program import Program, trace
from .transforms import grad, hvp, jvp, value_and_grad, vjp

__all__ = [
    "Program",
    "compiled_strided",
    "compiled_winograd",
    "errors",
    "grad",
    "hvp",
    "jvp",
    "ops",
    "protocols",
    "random",
    "trace",
    "value_and_grad",
    "vjp",
]
