"""What does a solve keep for its gradient as the interval grows from 1 to 100?

    python -m benchmarks.memory [--toy] [--picture FILE]

A 2-50-2 network, batch 20, dopri5 at rtol 1e-5: `backsolve` keeps the states at the output times and nothing else,
`reversible` two of them, `discrete` one state a step (with keep="none"; residuals of stages come on top while they fit a
budget), `interpolated` the dense output, `tape` everything. The bytes are those that `sol.stats.peak_saved_bytes`
counts. Prints one JSON line a method and length; `--picture` draws them.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from odegrad import odeint, value_and_grad

from .measure import interleaved, machine, report, summary

METHODS: dict[str, dict[str, Any]] = {
    "tape": {"gradient": "tape"},
    "interpolated": {"gradient": "interpolated"},
    "discrete": {"gradient": "discrete", "keep": "none"},
    "reversible": {"gradient": "reversible"},
    "backsolve": {"gradient": "backsolve", "drift_limit": np.inf},
}
LENGTHS = (1, 2, 5, 10, 20, 50, 100)


def f(t: Any, y: Any, p: Any) -> Any:
    """A rotation that a small network bends: neither grows nor decays much over a long time."""
    return y @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 0.1 * np.tanh(y @ p[0]) @ p[1]


def saved(options: dict[str, Any], length: float, y0: np.ndarray, params: list[np.ndarray]) -> Any:
    """The statistics of one gradient over [0, length]."""
    kept = []

    def loss(params: Any) -> Any:
        sol = odeint(f, y0, [0.0, length], params, rtol=1e-5, **options)
        kept.append(sol.stats)
        return np.sum(sol.ys[-1] ** 2)

    value_and_grad(loss)(params)
    return kept[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="two short intervals, for the tests")
    parser.add_argument("--picture", type=Path, help="PNG or SVG file to draw")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    y0 = rng.standard_normal((20, 2))
    params = [rng.normal(0.0, 0.3, shape) for shape in ((2, 50), (50, 2))]
    lengths = LENGTHS[:2] if given.toy else LENGTHS
    found: dict[str, list[int]] = {}
    for name, options in METHODS.items():
        for length in lengths:
            stats = saved(options, length, y0, params)
            call = partial(saved, options, length, y0, params)
            times = interleaved({name: call}, seconds=0.0)[name]
            found.setdefault(name, []).append(stats.peak_saved_bytes)
            report(
                {
                    "benchmark": "memory", "method": name, "length": length, "sizes": [20, 2, 50, 2],
                    "dtype": "float64", "module": "numpy", "device": "cpu", "n_steps": stats.n_accepted,
                    "saved_bytes": stats.peak_saved_bytes, "state_bytes": y0.nbytes, **summary(times),
                    "machine": machine(),
                }
            )  # fmt: skip
    if given.picture:
        draw(found, lengths, y0.nbytes, given.picture)


def draw(found: dict[str, list[int]], lengths: tuple[int, ...], state_bytes: int, path: Path) -> None:
    """Bytes in units of one state, over the length of the interval."""
    from odegrad.train.plots.style import picture

    with picture(path, 6.4, 3.6) as figure:
        axes = figure.add_subplot()
        for (name, saved_bytes), marker in zip(found.items(), "osD^v", strict=True):
            axes.plot(lengths, [max(n / state_bytes, 0.5) for n in saved_bytes], marker=marker, label=name)
        axes.set(xscale="log", yscale="log", xlabel="length of the interval", ylabel="states kept")
        axes.set_title("What a gradient keeps (backsolve nothing, drawn at one half)")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


if __name__ == "__main__":
    main()
