"""odegrad: a hand-written adjoint ODE engine on NumPy and CuPy.

Reverse-mode automatic differentiation, adaptive Runge-Kutta solvers, and the ways to differentiate through
them; with temporal adaptive batch normalization as a layer. No deep-learning framework is underneath.
"""

import importlib
from typing import Any

from . import engine, layers, solvers
from .engine import errors, grad, hvp, jvp, ops, random, trace, value_and_grad, vjp
from .engine.errors import (
    ArgumentError,
    NeuralODEError,
    NonConvergence,
    NonFiniteDynamics,
    PrecisionWarning,
    StepSizeUnderflow,
    StiffnessWarning,
    TooManySteps,
)
from .engine.jitted import jit
from .engine.ops import where
from .engine.product_precision import product_precision
from .solvers import Event, Solution, odeint, solve_ivp

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Event",
    "NeuralODEError",
    "NonConvergence",
    "NonFiniteDynamics",
    "PrecisionWarning",
    "Solution",
    "StepSizeUnderflow",
    "StiffnessWarning",
    "TooManySteps",
    "check",
    "engine",
    "errors",
    "grad",
    "hvp",
    "jit",
    "jvp",
    "layers",
    "load",
    "odeint",
    "ops",
    "product_precision",
    "random",
    "solve_ivp",
    "solvers",
    "trace",
    "value_and_grad",
    "vjp",
    "where",
]


def __getattr__(name: str) -> Any:
    """`odegrad.check`, imported at its first use."""
    if name == "check":
        return importlib.import_module(".check", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(run: Any, which: str = "best", *, device: Any = None) -> Any:
    """The trained model of a run folder: `odegrad.load(run).predict(images)`; `which` is "best" or "last".

    `device` is where it computes, "cpu" or "cuda"; by default where it was trained.
    """
    from .train.predictor import load as load_run  # reading checkpoints needs h5py, which solving does not

    return load_run(run, which, device=device)
