"""100,000 Lorenz systems from different starts, with common steps and with steps of their own, beside diffrax.

    python -m benchmarks.gpu.lorenz [--toy] [--seconds S]

Over [0, 2] by dopri5 at rtol = atol = 1e-5 (float32) and 1e-8 (float64), no gradients. The final states are compared before
anything is timed. diffrax's independent steps are `vmap` of a solve, its shared steps one solve of the whole batch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from odegrad import odeint
from odegrad.engine.backend import to_host, to_xp

from ..measure import ratio, summary
from .device import Device, parsed, tell

END = 2.0
TOLERANCES = {"float32": 1e-5, "float64": 1e-8}
Solve = Callable[[], Any]  # -> the final states (n, 3)


def starts(n: int, dtype: str) -> np.ndarray:
    """(n, 3), around the attractor."""
    return (np.random.default_rng(0).standard_normal((n, 3)) * 5 + [0, 0, 25]).astype(dtype)


def slope(t: Any, y: Any, stack: Callable[..., Any] = np.stack) -> Any:
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    return stack([10.0 * (b - a), a * (28.0 - c) - b, a * b - (8.0 / 3.0) * c], -1)


def ours(y0: np.ndarray, device: Device, *, independent: bool) -> Solve:
    there, tolerance = to_xp(device.xp, y0), TOLERANCES[y0.dtype.name]
    return lambda: odeint(
        slope, there, (0.0, END), rtol=tolerance, atol=tolerance, independent=independent
    ).ys[-1]


def diffrax_solve(y0: np.ndarray, *, independent: bool) -> Solve | None:
    """The same by diffrax; None if it is not installed."""
    if importlib.util.find_spec("diffrax") is None:
        return None
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", y0.dtype == np.float64)
    tolerance = TOLERANCES[y0.dtype.name]
    term = diffrax.ODETerm(lambda t, y, args: slope(t, y, jnp.stack))
    control = diffrax.PIDController(rtol=tolerance, atol=tolerance)

    def solve(start: Any) -> Any:
        end = jnp.asarray(END, start.dtype)
        sol = diffrax.diffeqsolve(
            term, diffrax.Dopri5(), 0.0 * end, end, None, start, stepsize_controller=control, max_steps=4096
        )
        return sol.ys[-1]

    compiled, there = jax.jit(jax.vmap(solve) if independent else solve), jnp.asarray(y0)
    return lambda: jax.block_until_ready(compiled(there))


def main() -> None:
    given = parsed(__doc__)
    device: Device = given.device
    for dtype in TOLERANCES:
        for steps in ("shared", "independent"):
            y0 = starts(8 if given.toy else 100_000, dtype)
            calls: dict[str, Solve] = {"odegrad": ours(y0, device, independent=steps == "independent")}
            peer = None if given.toy else diffrax_solve(y0, independent=steps == "independent")
            if peer is not None:
                calls["diffrax"] = peer
                apart = np.abs(to_host(calls["odegrad"]()) - np.asarray(peer())).max()
                assert apart <= 1e4 * TOLERANCES[dtype], (
                    f"{steps}, {dtype}: final states are {apart:.1e} apart"
                )
            times = device.timed(calls, seconds=given.seconds)
            for name, found in times.items():
                tell(
                    benchmark="lorenz", method=name, steps=steps, dtype=dtype, sizes=list(y0.shape),
                    device=device.name, **summary(found),
                )  # fmt: skip
            if peer is not None:
                value = ratio(times["odegrad"], times["diffrax"])
                tell(benchmark="lorenz", bar=f"lorenz {steps} {dtype}", value=value)


if __name__ == "__main__":
    main()
