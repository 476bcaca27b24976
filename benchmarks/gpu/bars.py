"""The bars of the GPU engine, by name: what is measured, and what it must reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """`limit` is the least value that will do, or the largest if `is_most`."""

    what: str
    limit: float
    is_most: bool = True

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.is_most else value >= self.limit

    @property
    def wording(self) -> str:
        return f"{'<=' if self.is_most else '>='} {self.limit:g}"


def _convolutions() -> dict[str, Bar]:
    return {
        f"conv {kind} {precision}": Bar(
            f"{kind} of (256, 32, 32, 64) by 3x3, {precision}: speed over that of torch, channels last",
            0.95,
            False,
        )
        for precision in ("tf32", "bf16")
        for kind in ("fprop", "dgrad", "wgrad")
    }


BARS = {
    **_convolutions(),
    "normalize forward": Bar("normalise, affine, ReLU: bytes a second over the copy's", 0.8, False),
    "normalize backward": Bar("its backward: bytes a second over the copy's", 0.8, False),
    "conv-w5 adjoint": Bar("W5, forward and gradient: time over torchdiffeq's adjoint", 0.5),
    "conv-w5 compiled": Bar("W5: time over torchdiffeq's adjoint with compiled f", 0.7),
    "conv-w5 diffrax": Bar("W5: time over diffrax's best adjoint", 0.8),
    "unet epoch": Bar("U-Net on CIFAR-10, batch 256: seconds an epoch over torch + torchdiffeq", 0.5),
    "unet busy": Bar("U-Net: share of the time in which the GPU works", 0.9, False),
    "unet memory": Bar("U-Net: device memory over that of torchdiffeq's backpropagation", 0.6),
    "spiral torchdiffeq": Bar("W1: time over torchdiffeq's adjoint", 0.2),
    "spiral diffrax": Bar("W1: time over diffrax's best adjoint", 1.0),
    **{
        f"lorenz {steps} {dtype}": Bar(
            f"100,000 Lorenz systems, {steps} steps, {dtype}: time over diffrax", 0.2
        )
        for steps in ("shared", "independent")
        for dtype in ("float32", "float64")
    },
}
