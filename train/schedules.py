"""Learning rates: a linear warm-up, then constant, stepwise or cosine decay; pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from ..engine.errors import ArgumentError
from .config import TrainConfig

Decay = Callable[[float], float]  # progress in [0, 1] -> factor on the peak learning rate


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def step_decay(progress: float, at: tuple[float, ...] = (0.5,), factor: float = 0.1) -> float:
    """`factor` for each fraction in `at` that `progress` has reached."""
    return factor ** sum(progress >= fraction for fraction in at)


def cosine(progress: float) -> float:
    """(1 + cos(pi * progress)) / 2: from 1 down to 0. Source: Loshchilov & Hutter (2017), eq. 5,
    one period.
    """
    return 0.5 * (1.0 + math.cos(math.pi * progress))


DECAYS: dict[str, Decay] = {"constant": constant, "step": step_decay, "cosine": cosine}


def learning_rate(step: int, *, peak: float, decay: Decay, total_steps: int, warmup_steps: int = 0) -> float:
    """The learning rate of optimiser step `step`, counted from 0.

    Args:
        peak: reached in the last step of the warm-up (its first step has peak / warmup_steps),
            or at once without.
        decay: gets the share of the steps after the warm-up that are done, (step - warmup) / (total
            - warmup); beyond the end it stays at 1. A warm-up as long as the training leaves nothing to
                decay.
    Raises: ArgumentError for a negative step or warm-up, or no steps at all.
    """
    if step < 0 or warmup_steps < 0 or total_steps < 1:
        raise ArgumentError(
            "`step` and `warmup_steps` must not be negative and `total_steps` must be positive; "
            f"got {step}, {warmup_steps}, {total_steps}"
        )
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    remaining = max(total_steps - warmup_steps, 1)
    return peak * decay(min((step - warmup_steps) / remaining, 1.0))


def make_schedule(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """step -> learning rate, as the configuration says."""
    return partial(
        learning_rate,
        peak=config.lr,
        decay=DECAYS[config.schedule],
        total_steps=config.epochs * steps_per_epoch,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
    )
