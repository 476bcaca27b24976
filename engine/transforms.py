"""Derivatives as functions of functions: value_and_grad, grad, vjp, jvp, hvp, on trees,
nested to any depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import ops
from .backend import is_array, namespace_of
from .errors import ArgumentError, ArgumentTypeError, NotReachedError, TracedValueError
from .trace import Trace, Var, base_value, describe, dtype_of, is_weak, new_trace, pull, shape_of
from .tree import Tree, leaves, leaves_with_paths, path_name, unflatten

Function = Callable[..., Any]


def vjp(f: Function, *primals: Tree, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of f and the function that pulls cotangents of the value back to the arguments.

    Args:
        f: function of trees of arrays, returning a tree of arrays (or a pair (tree, aux) with `has_aux`).
        primals: where to evaluate f; every leaf a float or complex array, or a Python number.
    Returns: (value, pull_back) or (value, pull_back, aux). pull_back(ybar) takes a tree shaped like the value
        and returns a tuple of trees, one a primal; a leaf on which the value does not depend gets zeros.
    Raises: NotReachedError (from pull_back) if the value depends on no leaf at all; ArgumentTypeError for
        leaves that cannot be differentiated.
    Cost: one evaluation of f, whose intermediate results are kept while pull_back exists.
    """
    flat = leaves(primals)
    if not all([_is_differentiable(leaf) for leaf in flat]):
        raise _not_differentiable(primals)
    with new_trace() as trace:
        inputs = [trace.input(leaf) for leaf in flat]
        result = f(*unflatten(primals, inputs))
        value, aux = _split_aux(result, has_aux)
    outputs = leaves(value)
    _check_scope(outputs, trace)
    instructions = trace.instructions

    def pull_back(ybar: Tree) -> tuple[Tree, ...]:
        bars = leaves(ybar)
        _check_cotangents(bars, outputs)
        seeds: dict[int, Any] = {}
        for output, bar in zip(outputs, bars, strict=True):
            if _belongs(output, trace):
                bar = _beside(bar, output)
                seeds[output.slot] = seeds[output.slot] + bar if output.slot in seeds else bar
        found = pull(instructions, seeds, [v.slot for v in inputs])
        if not found and inputs:
            raise NotReachedError(
                "nothing that is differentiated reaches the result: "
                + ", ".join(path_name(path) for path, _ in leaves_with_paths(primals))
            )
        finished = [_finish(found.get(v.slot), leaf) for v, leaf in zip(inputs, flat, strict=True)]
        return unflatten(primals, _unshared(finished, [*flat, *bars]))

    lowered = unflatten(value, _unshared([_lower(output, trace) for output in outputs], flat))
    return (lowered, pull_back, _lower_tree(aux, trace)) if has_aux else (lowered, pull_back)


def _beside(bar: Any, output: Any) -> Any:
    """The cotangent of a number on a device there, where it is given as a Python number."""
    xp = namespace_of(base_value(output))
    return bar if xp is np or not is_weak(bar) else xp.full((), bar, dtype_of(output))


def value_and_grad(f: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Function:
    """A function that returns (value, gradient) of the scalar f with respect to the arguments `argnums`.

    With `has_aux` f returns (value, aux), and the result is ((value, aux), gradient).
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def differentiated(*args: Tree, **kwargs: Any) -> tuple[Any, Any]:
        if any(not -len(args) <= n < len(args) for n in numbers):
            raise ArgumentError(
                f"`argnums` {argnums} does not fit a call with {len(args)} positional arguments"
            )

        def of_chosen(*chosen: Tree) -> Any:
            full = list(args)
            for n, argument in zip(numbers, chosen, strict=True):
                full[n] = argument
            return f(*full, **kwargs)

        value, pull_back, *aux = vjp(of_chosen, *(args[n] for n in numbers), has_aux=has_aux)
        if len(leaves(value)) != 1 or isinstance(value, (dict, list, tuple)) or shape_of(value) != ():
            raise ArgumentError(
                f"the gradient of a scalar was asked for; the function returned {_describe_tree(value)}"
            )
        grads = pull_back(ops.ones_like(value))
        gradient = grads[0] if isinstance(argnums, int) else grads
        return ((value, aux[0]) if has_aux else value), gradient

    return differentiated


def grad(f: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Function:
    """A function that returns the gradient of the scalar f (with `has_aux` the pair (gradient, aux))."""
    with_value = value_and_grad(f, argnums, has_aux=has_aux)

    def differentiated(*args: Tree, **kwargs: Any) -> Any:
        value, gradient = with_value(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return differentiated


def jvp(
    f: Function, primals: Sequence[Tree], tangents: Sequence[Tree], *, has_aux: bool = False
) -> tuple[Any, ...]:
    """The value of f and its directional derivative: the transpose of the VJP,
    which is linear in its cotangent.

    Returns (value, ydot) or (value, ydot, aux). A value that depends on no leaf has the derivative zero.
    """
    if len(leaves(list(primals))) != len(leaves(list(tangents))):
        raise ArgumentError(
            f"{len(leaves(list(primals)))} primal leaves need as many tangents; got {tangents!r}"
        )
    value, pull_back, *aux = vjp(f, *primals, has_aux=has_aux)
    zeros = unflatten(value, (ops.zeros_like(leaf) for leaf in leaves(value)))
    try:
        _, push = vjp(pull_back, zeros)
        (ydot,) = push(tuple(tangents))
    except NotReachedError:
        ydot = zeros
    return (value, ydot, *aux)


def hvp(
    f: Function, primals: Sequence[Tree], tangents: Sequence[Tree], *, has_aux: bool = False
) -> tuple[Any, ...]:
    """The gradient of the scalar f and its Hessian times the tangents, for all primals:
    (gradients, products).

    Where the gradient is constant the products are zero.
    """
    argnums = tuple(range(len(primals)))
    gradient = grad(f, argnums, has_aux=has_aux)
    gradients, pull_back, *aux = vjp(gradient, *primals, has_aux=has_aux)
    try:
        products = pull_back(tuple(tangents))
    except NotReachedError:
        products = unflatten(tuple(primals), (ops.zeros_like(leaf) for leaf in leaves(tuple(primals))))
    return (gradients, products, *aux)


def _split_aux(result: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentTypeError(
            f"with has_aux=True the function must return (value, aux); got {type(result).__name__}"
        )
    return result


def _belongs(value: Any, trace: Trace) -> bool:
    return type(value) is Var and value.trace is trace


def _check_scope(outputs: list[Any], trace: Trace) -> None:
    """A traced value that was kept from an earlier call (in a list, a global) means nothing any more."""
    if any(type(v) is Var and v.trace is not trace and v.trace.level >= trace.level for v in outputs):
        raise TracedValueError(
            "the function returned a value of a trace that has ended; a traced value must not be kept between calls"
        )


def _lower(value: Any, trace: Trace) -> Any:
    """The value one level further out."""
    return value.value if _belongs(value, trace) else value


def _lower_tree(tree: Tree, trace: Trace) -> Tree:
    return unflatten(tree, (_lower(leaf, trace) for leaf in leaves(tree)))


def _is_differentiable(leaf: Any) -> bool:
    return (hasattr(base_value(leaf), "dtype") or is_weak(leaf)) and dtype_of(leaf).kind in "fc"


def _not_differentiable(primals: Tree) -> ArgumentTypeError:
    wrong = [
        f"{path_name(path)}: {describe(leaf)}"
        for path, leaf in leaves_with_paths(primals)
        if not _is_differentiable(leaf)
    ]
    return ArgumentTypeError(
        "only float and complex arrays or numbers can be differentiated; got " + ", ".join(wrong)
    )


def _check_cotangents(bars: list[Any], outputs: list[Any]) -> None:
    expected, given = [shape_of(y) for y in outputs], [shape_of(bar) for bar in bars]
    if expected != given:
        raise ArgumentError(f"the cotangent must have the shapes of the value {expected}; got {given}")


def _finish(bar: Any, leaf: Any) -> Any:
    """A cotangent in the type of its leaf; zeros where there is none."""
    if bar is None:
        return ops.zeros_like(leaf)
    if type(bar) is type(leaf) is np.ndarray and bar.shape == leaf.shape and bar.dtype == leaf.dtype:
        return bar
    if dtype_of(leaf).kind == "f" and dtype_of(bar).kind == "c":
        bar = ops.real(bar)
    if is_weak(leaf):
        return bar.item() if isinstance(bar, (np.ndarray, np.generic)) else bar
    bar = ops.astype(ops.broadcast_to(bar, shape_of(leaf)), dtype_of(leaf))
    return np.asarray(bar) if isinstance(bar, np.generic) else bar


def _unshared(results: list[Any], given: list[Any]) -> list[Any]:
    """The results as arrays that the caller may write to: no views, none twice, none of the arrays `given`.

    Traced values pass: what they become is decided at the outermost level.
    """
    known = {id(array) for array in given if is_array(array)}
    own = []
    for result in results:
        if is_array(result):
            is_new = result.flags.owndata and id(result) not in known
            result = result if is_new else result.copy()
            known.add(id(result))
        own.append(result)
    return own


def _describe_tree(tree: Tree) -> str:
    return ", ".join(describe(leaf) for leaf in leaves(tree)) or "nothing"
