"""Hypothesis strategies for gradient cases: networks, shapes, trees, times, tolerances, dtypes, ways to execute."""

from __future__ import annotations

from typing import Any

from gradient_cases import ConvNet, GradientCase, Perceptron
from hypothesis import strategies as st
from strategies import seeds, shapes

activations = st.sampled_from(["tanh", "softplus", "sigmoid"])


@st.composite
def output_times(draw: st.DrawFn, spans: tuple[float, ...]) -> tuple[float, ...]:
    """2 to 5 times, strictly monotone in either direction, the inner ones at sixteenths of the span."""
    t0, span = draw(st.sampled_from([0.0, 0.3, -1.0])), draw(st.sampled_from(spans))
    inner = draw(st.sets(st.integers(1, 15), max_size=3))
    return tuple(t0 + span * k / 16 for k in [0, *sorted(inner), 16])


@st.composite
def executions(draw: st.DrawFn, rtols: tuple[float, ...]) -> dict[str, Any]:
    """Options of a GradientCase: how it is solved. Eager evaluation is slow, so its tolerances are loose."""
    execution = draw(st.sampled_from(["replay", "replay", "eager"]))
    dtype = draw(st.sampled_from(["float64", "float64", "float64", "float32"]))
    largest = 1e-3 if execution == "eager" else 1e-5 if dtype == "float32" else 0.0
    return {
        "method": draw(st.sampled_from(["dopri5", "dopri5", "bosh3", "rk4", "euler"])),
        "rtol": draw(st.sampled_from([rtol for rtol in rtols if rtol >= largest])),
        "dtype": dtype,
        "execution": execution,
        "keep": draw(st.sampled_from(["auto", "all", "none"])),
    }


@st.composite
def perceptron_cases(draw: st.DrawFn, structures: tuple[str, ...]) -> GradientCase:
    """Perceptrons on states of the given structures."""
    structure = draw(st.sampled_from(structures))
    n_leaves = 1 if structure == "array" else draw(st.integers(1, 3))
    return GradientCase(
        Perceptron(
            widths=tuple(draw(st.lists(st.integers(1, 5), max_size=2))),
            activation=draw(activations),
        ),
        structure,
        shapes=tuple(
            draw(shapes(max_ndim=3 if structure == "array" else 2, max_side=3)) for _ in range(n_leaves)
        ),
        seed=draw(seeds),
        ts=draw(output_times((1.0, -1.0, 0.1, -2.0, 2.0))),
        **draw(executions((1e-2, 1e-4, 1e-6, 1e-8))),
    )


@st.composite
def conv_cases(draw: st.DrawFn, mode: str, normalize: str) -> GradientCase:
    """Networks with TA-BN; at least 16 values a channel in every layer, so that no variance comes close to zero.

    Of two values a batch norm returns little but their order, a step whose slope is that of eps: differences miss it. Of
    eight, small variances still come up that magnify round-off beyond 1e-12.
    """
    size = (draw(st.integers(2, 3)), draw(st.integers(2, 4)))
    channels, stride = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2]))
    fewest = -(-16 // (-(-size[0] // stride) * -(-size[1] // stride)))
    network = ConvNet(
        size,
        channels,
        width=draw(st.integers(1, 3)),
        stride=stride,
        activation=draw(activations),
        mode=mode,
        normalize=normalize,
        unvisited=draw(st.sampled_from(["skip", "initial"])),
        nodes=draw(st.sampled_from([(-4.0, 4.0), (0.0, 1.0), (0.0, 0.25, 0.5, 1.0)])),
    )
    return GradientCase(
        network,
        "array",
        shapes=((draw(st.integers(fewest, fewest + 1)), *size, channels),),
        seed=draw(seeds),
        ts=draw(output_times((1.0, -1.0, 0.1))),
        **draw(executions((1e-2, 1e-3, 1e-4))),
    )
