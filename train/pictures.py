"""The pictures of a run, from its metrics, its last checkpoint and the test images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..engine.backend import to_host
from ..engine.tree import Tree
from ..layers import Chain, Layer, ODEBlock, TABatchNorm
from ..layers.chain import Skip
from . import metrics
from .data import load_dataset
from .model import Model
from .plots import TemporalNorm, draw_learning_curves, draw_nfe, draw_temporal_norms, draw_worst
from .predictor import restored
from .progress import Reporter
from .run_folder import RunFolder


def draw(run: RunFolder, reporter: Reporter) -> list[Path]:
    """Draw everything that there is to draw of a run; returns the PNG files."""
    epochs = list(metrics.epochs_of(metrics.read(run.metrics)))
    model, _ = restored(run, "last")
    run.pictures.mkdir(exist_ok=True)
    made = [run.pictures / "learning_curves.png", run.pictures / "nfe.png"]
    draw_learning_curves(epochs, made[0])
    draw_nfe(epochs, made[1])
    norms, grid = temporal_norms(model)
    if norms:
        made.append(run.pictures / "temporal_norms.png")
        draw_temporal_norms(norms, grid, made[-1])
    data = load_dataset(model.config.dataset, model.config.data_dir)
    made.append(run.pictures / "worst.png")
    probabilities = model.predict_proba(data.test_images)
    draw_worst(data.test_images, data.test_labels, probabilities, data.classes, made[-1])
    for path in made:
        reporter.message(f"picture {path}")
    return made


def temporal_norms(model: Model) -> tuple[dict[str, TemporalNorm], np.ndarray]:
    """What every TA-BN layer of a network has learnt, by name, and the times of their nodes."""
    found = list(_norms(model.network, model.weights, model.stats))
    norms = {f"norm {k}": norm for k, (_, norm) in enumerate(found, start=1)}
    return norms, np.array(found[0][0].nodes) if found else np.zeros(0)


def _norms(layer: Layer, weights: Tree, stats: Tree) -> Iterator[tuple[TABatchNorm, TemporalNorm]]:
    if isinstance(layer, TABatchNorm):
        mean, var = layer.population(stats)
        learnt = (mean, var, weights["gamma"], weights["alpha"], stats["visits"])
        yield layer, TemporalNorm(*map(to_host, learnt))
    elif isinstance(layer, Chain):
        for inner, own_weights, own_stats in zip(layer.layers, weights, stats, strict=True):
            yield from _norms(inner, own_weights, own_stats)
    elif isinstance(layer, (ODEBlock, Skip)):
        inner = layer.net if isinstance(layer, ODEBlock) else layer.inner
        yield from _norms(inner, weights, stats)
