"""What does one replayed evaluation of a small network cost, beside its bare NumPy calls?

    python -m benchmarks.replay [--toy]

The network is 2-50-2 with tanh on y**3, batch 20, float32. The bare calls are those that a person would write by hand,
each with `out=`. Prints one JSON line for f and one for f with its pull-back to the state and the parameters. Bar: 1.5.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from odegrad.engine.partition import partition
from odegrad.engine.program import record
from odegrad.engine.replay import StageSet, Workspace

from .measure import interleaved, machine, ratio, report, summary

BATCH, SIZE, HIDDEN = 20, 2, 50
Calls = tuple[Callable[[], None], Callable[[], None]]


def network(t: Any, y: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    return np.tanh(y**3 @ w1 + b1) @ w2 + b2


def arrays(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """State, parameters and the cotangent of the slope."""
    shapes = [(BATCH, SIZE), (SIZE, HIDDEN), (HIDDEN,), (HIDDEN, SIZE), (SIZE,), (BATCH, SIZE)]
    y, *params, ybar = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
    return y, params, ybar


def replayed(y: np.ndarray, params: list[np.ndarray], ybar: np.ndarray) -> tuple[Calls, list[np.ndarray]]:
    """The calls for f and for its pull-back, and the arrays of their results."""
    names = ["t", "y", "w1", "b1", "w2", "b2"]
    recording = record(network, [0.0, y, *params], names)
    program = recording.program.vjp(recording.program.inputs[1:])
    plan = partition(
        program,
        {"slope": program.outputs[:1], "pullback": program.outputs[1:]},
        {"slope": [program.inputs[1]], "pullback": [program.inputs[-1]]},
        time=program.inputs[0],
    )
    workspace = Workspace(plan)
    results = [np.empty(program.metas[slot].shape, np.float32) for slot in program.outputs]
    targets = [*zip(program.outputs, results, strict=True)]
    stage = StageSet(
        workspace,
        {program.inputs[1]: y, program.inputs[-1]: ybar},
        {"slope": targets[:1], "pullback": targets[1:]},
    )
    given = [
        *zip(program.inputs[2:6], params, strict=True),
        *zip(program.hidden, recording.hidden, strict=True),
    ]
    workspace.load(dict(given))
    slope, pullback = stage.run["slope"], stage.run["pullback"]
    return (lambda: slope(0.0), lambda: pullback(0.0)), results


def bare(y: np.ndarray, params: list[np.ndarray], ybar: np.ndarray) -> tuple[Calls, list[np.ndarray]]:
    """The same by hand: 7 calls for f, 7 to the state, 4 to the parameters."""
    w1, b1, w2, b2 = params
    square, cube, slope, ystate = (np.empty_like(y) for _ in range(4))
    hidden, hidden_bar, flat = (np.empty((BATCH, HIDDEN), np.float32) for _ in range(3))
    bars = [np.empty_like(p) for p in params]
    w1_bar, b1_bar, w2_bar, b2_bar = bars
    one, three = np.float32(1).reshape(()), np.float32(3).reshape(())
    w1_t, w2_t, cube_t, hidden_t = w1.T, w2.T, cube.T, hidden.T
    multiply, subtract, add, tanh, dot, total = (
        np.multiply,
        np.subtract,
        np.add,
        np.tanh,
        np.dot,
        np.add.reduce,
    )

    def forward() -> None:
        multiply(y, y, out=square)
        multiply(square, y, out=cube)
        dot(cube, w1, out=hidden)
        add(hidden, b1, out=hidden)
        tanh(hidden, out=hidden)
        dot(hidden, w2, out=slope)
        add(slope, b2, out=slope)

    def pullback() -> None:
        dot(ybar, w2_t, out=hidden_bar)
        multiply(hidden, hidden, out=flat)
        subtract(one, flat, out=flat)
        multiply(hidden_bar, flat, out=hidden_bar)
        dot(hidden_bar, w1_t, out=ystate)
        multiply(square, three, out=slope)
        multiply(ystate, slope, out=ystate)
        dot(hidden_t, ybar, out=w2_bar)
        total(ybar, axis=0, out=b2_bar)
        dot(cube_t, hidden_bar, out=w1_bar)
        total(hidden_bar, axis=0, out=b1_bar)

    return (forward, pullback), [slope, ystate, *bars]


def both(calls: Calls) -> Callable[[], None]:
    """f and its pull-back, one after the other."""
    forward, pullback = calls

    def run() -> None:
        forward()
        pullback()

    return run


def check(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    """Both ways give the same cotangents; slopes are compared by the caller, whose buffer is used again."""
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="a fraction of a second, for the tests")
    toy = parser.parse_args().toy
    inputs = arrays(np.random.default_rng(0))
    ours, our_results = replayed(*inputs)
    plain, plain_results = bare(*inputs)
    ours[0](), plain[0]()
    check(our_results[:1], plain_results[:1])
    ours[1](), plain[1]()
    check(our_results[1:], plain_results[1:])
    cases = {"f": (ours[0], plain[0]), "f and pull-back": (both(ours), both(plain))}
    for name, (replay_call, bare_call) in cases.items():
        calls = {"replay": replay_call, "bare": bare_call}
        times = interleaved(calls, seconds=0.05 if toy else 4.0, repeats=5 if toy else 200)
        report(
            {
                "benchmark": "replay", "what": name, "sizes": [BATCH, SIZE, HIDDEN, SIZE], "dtype": "float32",
                "module": "numpy", "device": "cpu", **summary(times["replay"]), "bare": summary(times["bare"]),
                "ratio": ratio(times["replay"], times["bare"]), "machine": machine(),
            }
        )  # fmt: skip


if __name__ == "__main__":
    main()
