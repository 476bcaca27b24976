"""NumPy as the tests of a device see it: the arrays that they make lie on the device.

`Placing` is the module `numpy` but for its functions that make arrays from numbers, lists and shapes: their results go to
the device. What NumPy computes from its own arrays stays on the host, and what it is asked about arrays of the device
goes to CuPy by NumPy's own protocols.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy
from mixing import Mixing, holds, is_asked_by_package

DRAWS = (
    "beta binomial choice exponential gamma geometric integers laplace lognormal multivariate_normal normal permutation "
    "poisson random standard_cauchy standard_exponential standard_gamma standard_normal standard_t uniform"
).split()

CONVERSIONS = {"array", "asarray", "ascontiguousarray"}  # NumPy's protocols have nothing for these


class Placing(types.ModuleType):
    """NumPy, with new arrays on the device of `mixing`."""

    def __init__(self, mixing: Mixing) -> None:
        super().__init__("numpy")
        self._mixing = mixing
        self.ndarray = mixing.kind
        self.random = types.SimpleNamespace(**vars(numpy.random))
        generator = _generator(mixing)
        self.random.default_rng = lambda *seed: generator(numpy.random.default_rng(*seed).bit_generator)

    def __getattr__(self, name: str) -> Any:
        found = getattr(numpy, name)
        if callable(found) and not isinstance(found, (type, numpy.ufunc)):
            found = placed(self._mixing, found)
        setattr(self, name, found)
        return found


def placed(mixing: Mixing, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its new arrays on the device: not those that it computes from arrays of NumPy."""

    of_device = getattr(mixing.xp, function.__name__) if function.__name__ in CONVERSIONS else None

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if of_device is not None and isinstance(args[0], mixing.kind):
            return of_device(*args, **options)
        found = function(*args, **options)
        return found if holds(numpy.ndarray, (args, options)) else mixing.on_device(found)

    return call


def _generator(mixing: Mixing) -> type[numpy.random.Generator]:
    """Random numbers whose arrays lie on the device, but for the package: what it draws it draws on the host."""

    def drawing(name: str) -> Any:
        own = getattr(numpy.random.Generator, name)

        @wraps(own)
        def draw(rng: Any, *args: Any, **options: Any) -> Any:
            found = own(rng, *mixing.on_host(args), **mixing.on_host(options))
            return found if is_asked_by_package() else mixing.on_device(found)

        return draw

    return type("Generator", (numpy.random.Generator,), {name: drawing(name) for name in DRAWS})


def making(mixing: Mixing, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the package that makes arrays of a module `xp`, from keys on the host: for the tests, of the device's."""
    signature = inspect.signature(function)

    @wraps(function)
    def make(*args: Any, **options: Any) -> Any:
        if is_asked_by_package():
            return function(*args, **options)
        given = signature.bind_partial(*mixing.on_host(args), **mixing.on_host(options))
        if given.arguments.get("xp", numpy) is numpy or isinstance(given.arguments["xp"], Placing):
            given.arguments["xp"] = mixing.xp
        return function(*given.args, **given.kwargs)

    return make


def of_the_host(mixing: Mixing, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the package whose first argument belongs on the host: times, numbers of rows.

    Its result goes to the device where a test has asked.
    """

    @wraps(method)
    def call(owner: Any, first: Any, *rest: Any, **options: Any) -> Any:
        found = method(owner, mixing.on_host(first), *rest, **options)
        return found if is_asked_by_package() else mixing.on_device(found)

    return call
