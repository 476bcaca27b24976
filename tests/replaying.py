"""A function f(t, y, params) as the solvers replay it: traced, differentiated, partitioned, bound to buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from odegrad.engine.partition import Plan, partition
from odegrad.engine.program import Program, Recording, record
from odegrad.engine.replay import StageSet, Workspace

NAMES = ("t", "y")


class Replayed:
    """F (slope), S (cotangent of y), Q (cotangents of the parameters) of one traced function.

    `forward`, `pull` and `pull_params` run one group each on the buffers `y`, `ybar`; the results are in `slope`,
    `state_bar`, `param_bars`.
    """

    def __init__(self, f: Callable[..., Any], t: float, y: np.ndarray, params: list[np.ndarray]) -> None:
        self.recording = self.record(f, t, y, params)
        self.joint = joint_program(self.recording.program)
        program, n = self.joint, len(params)
        self.plan: Plan = partition(
            program,
            {"F": program.outputs[:1], "S": program.outputs[1:2], "Q": program.outputs[2:]},
            {"F": [program.inputs[1]], "S": [program.inputs[-1]]},
            time=program.inputs[0],
        )
        self.y, self.ybar = np.zeros_like(y), np.zeros(self.recording.values[0].shape, y.dtype)
        self.slope = self._result(program.outputs[0])
        self.state_bar = self._result(program.outputs[1])
        self.param_bars = [self._result(slot) for slot in program.outputs[2:]]
        self.workspace = Workspace(self.plan)
        self.param_slots = program.inputs[2 : 2 + n]
        self.load(params)
        self.set = self.stage_set()

    @staticmethod
    def record(f: Callable[..., Any], t: float, y: np.ndarray, params: list[np.ndarray]) -> Recording:
        return record(f, [t, y, *params], [*NAMES, *(f"p{k}" for k in range(len(params)))])

    def _result(self, slot: int) -> np.ndarray:
        meta = self.joint.metas[slot]
        return np.full(meta.shape, np.nan, meta.dtype or np.float64)

    def stage_set(self) -> StageSet:
        program = self.joint
        return StageSet(
            self.workspace,
            {program.inputs[1]: self.y, program.inputs[-1]: self.ybar},
            {
                "F": [(program.outputs[0], self.slope)],
                "S": [(program.outputs[1], self.state_bar)],
                "Q": [*zip(program.outputs[2:], self.param_bars, strict=True)],
            },
        )

    def load(self, params: list[np.ndarray], hidden: list[Any] | None = None) -> None:
        """Give the parameters and what f captured."""
        hidden = self.recording.hidden if hidden is None else hidden
        given = [*zip(self.param_slots, params, strict=True), *zip(self.joint.hidden, hidden, strict=True)]
        self.workspace.load(dict(given))

    def __call__(self, t: float, y: np.ndarray, ybar: np.ndarray) -> list[np.ndarray]:
        """[slope, state cotangent, *parameter cotangents], copied out."""
        self.y[...], self.ybar[...] = y, ybar
        for group in ("F", "S", "Q"):
            self.set.run[group](t)
        return [array.copy() for array in (self.slope, self.state_bar, *self.param_bars)]


def joint_program(program: Program) -> Program:
    """The program with its pull-back to every input but time."""
    return program.vjp(program.inputs[1:])
