"""Is a gradient right? Tools for any function of a tree of arrays, and for any ODE.

    import numpy as np
    import odegrad

    x = np.random.default_rng(0).standard_normal((50, 3))
    params = {"w": np.ones((3, 2)), "b": np.zeros(2)}

    def loss(p):
        return np.sum(np.tanh(x @ p["w"] + p["b"]) ** 2)

    report = odegrad.check.gradients(loss, params)  # compared with complex steps or differences, leaf by leaf
    print(report)                                   # leaf, norm, relative error, cosine, worst entry, verdict
    report.assert_ok()                              # in a test: AssertionError with that table
    print(odegrad.check.taylor_test(loss, params))  # remainders fall with slopes 1, 2, 3

`solution_gradients` does for a solve what `gradients` does for a function, on the frozen grid of accepted
steps.
"""

from .engine.check import (
    Derivative,
    DotProductReport,
    GradientReport,
    LeafReport,
    TaylorReport,
    WorstEntry,
    central_difference,
    complex_step,
    dot_product_test,
    gradients,
    random_direction,
    taylor_test,
)
from .solvers.check import solution_gradients

__all__ = [
    "Derivative",
    "DotProductReport",
    "GradientReport",
    "LeafReport",
    "TaylorReport",
    "WorstEntry",
    "central_difference",
    "complex_step",
    "dot_product_test",
    "gradients",
    "random_direction",
    "solution_gradients",
    "taylor_test",
]
