"""A gradient case as a script of its own, which needs odegrad and NumPy but none of the tests."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import gradient_cases
import oracles
import solving
from gradient_cases import GradientCase

HEADER = '''\
"""One comparison of gradients: raises AssertionError where they differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from odegrad import grad, layers, odeint, ops, random
from odegrad.engine.tree import leaves, leaves_with_paths, tree_map, unflatten
'''

ORACLES = [oracles.host, oracles.norm, oracles.inner, oracles.inner_all, oracles.assert_close]
ORACLES += [oracles.central_difference, solving.distance]
JUDGES = [gradient_cases.GradientCase, gradient_cases.check_gradients, gradient_cases.check_distance]
JUDGES += [gradient_cases.compare_with_differences, gradient_cases.compare]


@functools.cache
def source(piece: Any) -> str:
    """The text of a function or class."""
    return inspect.getsource(piece).rstrip()


def reproducing_script(case: GradientCase) -> str:
    """The text of a script that runs `check_gradients(case)`."""
    pieces = [source(piece) for piece in (*ORACLES, type(case.network), *JUDGES)]
    main = f'case = {case!r}\ncheck_gradients(case)\nprint("the gradients agree")\n'
    return "\n\n\n".join([HEADER.rstrip(), *pieces, main])
