"""What `benchmarks/gpu/normalization.py` counts and compares."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from odegrad.engine.cuda import chains
from odegrad.engine.cuda.replay import CudaWorkspace
from odegrad.engine.fusion import Run
from on_device import without_compiling

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.gpu import normalization  # noqa: E402
from benchmarks.gpu.device import Device  # noqa: E402

SHAPE = (4, 6, 6, 4)


def test_programs_move_as_many_tensors_as_it_says(fake_cupy, monkeypatch):
    monkeypatch.setattr(chains, "LARGE", math.prod(SHAPE))
    without_compiling(monkeypatch)
    given, _ = normalization.drawn(Device(np, "cpu"), SHAPE)
    _, plan = normalization.planned(given)
    workspace, metas = CudaWorkspace(plan, fake_cupy), plan.program.metas
    moved = {
        group: sum(
            metas[slot].shape == SHAPE
            for piece in workspace.schedules[group]
            if isinstance(piece, Run)
            for slot in workspace.chain(piece)[1].slots
        )
        for group in normalization.MOVED
    }
    assert moved == normalization.MOVED


def test_wrong_results_are_not_timed(monkeypatch):
    planned, right = normalization.planned, normalization.normalized

    def planned_wrongly(given):
        with monkeypatch.context() as patch:
            patch.setattr(normalization, "normalized", lambda *args: 1.001 * right(*args))
            return planned(given)

    monkeypatch.setattr(normalization, "planned", planned_wrongly)
    with pytest.raises(AssertionError, match="a normalisation is off by"):
        normalization.measure_normalization(Device(np, "cpu"), SHAPE, 0.01)
