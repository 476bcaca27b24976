"""Every error odegrad raises by name. Each derives from `NeuralODEError` and from the built-in it
resembles.
"""

from __future__ import annotations

from typing import Any


class NeuralODEError(Exception):
    """Root of the project's errors. Keyword arguments become attributes,
    so that a caller can act on numbers.
    """

    def __init__(self, message: str, **numbers: Any) -> None:
        super().__init__(message)
        self.__dict__.update(numbers)


class ArgumentError(NeuralODEError, ValueError):
    """An argument has a wrong value or shape; says what was given and what was expected."""


class ArgumentTypeError(NeuralODEError, TypeError):
    """An argument has a wrong type, dtype or array module."""


class TracedValueError(NeuralODEError, TypeError):
    """The function needs something that a trace cannot give: a branch on a traced value,
    a float taken from one.
    """


class TracedAttributeError(TracedValueError, AttributeError):
    """An array attribute that a traced value does not have; an AttributeError too,
    so that hasattr answers no.
    """


class NoRuleError(NeuralODEError, NotImplementedError):
    """A derivative passes through a primitive that has no VJP rule."""


class NotReachedError(NeuralODEError, ValueError):
    """A derivative was asked for in which nothing that is differentiated reaches the result."""


class ImpureDynamicsError(NeuralODEError, ValueError):
    """The replayed program and a plain call of the dynamics disagree."""


class ImpureFunctionError(NeuralODEError, ValueError):
    """A function that is checked writes into its argument, or gives two values for one argument."""


class NonFiniteGradient(NeuralODEError, FloatingPointError):
    """A gradient, or what it would be compared with, is NaN or infinite,
    so that nothing can be said about it.
    """


class SolveError(NeuralODEError):
    """A solve that could not be finished; `solution` holds what was computed before."""

    solution: Any = None


class NonFiniteDynamics(SolveError, FloatingPointError):
    """The dynamics stayed NaN or infinite while the step was reduced."""


class NonConvergence(SolveError, ArithmeticError):
    """The equations of an implicit step could not be solved, however short it was made."""


class StepSizeUnderflow(SolveError, ArithmeticError):
    """The error test asks for a step below the spacing of floating-point numbers at t."""


class TooManySteps(SolveError, RuntimeError):
    """`max_steps` attempts did not reach the end of the interval."""


class EventAccumulation(SolveError, ArithmeticError):
    """An event follows itself closer than floating-point numbers can tell."""


class GrazingEvent(NeuralODEError, ArithmeticError):
    """A condition is zero together with its time derivative,
    so that the time of the event has no derivative.
    """


class DriftError(SolveError, ArithmeticError):
    """The state that a gradient method solved back is further from the stored one than `drift_limit`
    allows.
    """


class StiffnessWarning(UserWarning):
    """Stability, and not the tolerances, holds the steps of an explicit method small:
    an implicit one would be better.
    """


class PrecisionWarning(UserWarning):
    """The tolerances of a solve are below what its arithmetic can resolve."""


class ConfigError(NeuralODEError, ValueError):
    """A configuration that names an unknown field or holds a value that is not allowed."""


class DataError(NeuralODEError, ValueError):
    """A data file that is missing, damaged or not what it claims to be."""


class SolutionFileError(NeuralODEError, ValueError):
    """A file of a solution that is missing, truncated, damaged, or something else."""


class CheckpointError(NeuralODEError, ValueError):
    """A checkpoint that is missing, damaged, or of another architecture."""
