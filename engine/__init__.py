"""Arrays, primitives and their rules, tracing, programs, replay, transforms."""

from . import ops, protocols
from .transforms import grad, hvp, jvp, value_and_grad, vjp

__all__ = ["grad", "hvp", "jvp", "ops", "protocols", "value_and_grad", "vjp"]
