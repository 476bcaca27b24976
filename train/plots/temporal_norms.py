"""What TA-BN layers have learnt over time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.errors import ArgumentError
from .style import BLUE, GREEN, GREY, ORANGE, picture


@dataclass(frozen=True, eq=False)
class TemporalNorm:
    """What one TA-BN layer has learnt, a row for each of its K time nodes.

    Args:
        mean, var: of the population as evaluation reads them, (K, C).
        gamma, alpha: (K, C).
        visits: (K,) accumulated weight of the observations of a node; below 1 the node counts as not visited.
    """

    mean: np.ndarray
    var: np.ndarray
    gamma: np.ndarray
    alpha: np.ndarray
    visits: np.ndarray


def draw_temporal_norms(
    norms: Mapping[str, TemporalNorm], grid: np.ndarray, path: str | os.PathLike[str]
) -> None:
    """mu(t), sigma(t), gamma(t), alpha(t) of every TA-BN layer, a row each,
    and how often its nodes were visited.

    Over channels: the median, the bands of 50% and 90% of them, and the single channels that vary most with
    time. Below mu and sigma a grey strip marks nodes that were not visited:
    evaluation interpolates over them.
    Args:
        norms: layer name -> what it has learnt, all on one grid.
        grid: times of the nodes (K,).
    Raises: ArgumentError lists what has another shape; OSError.
    """
    _check_norms(norms, grid)
    with picture(path, 13.0, 2.1 * len(norms) + 0.7) as figure:
        rows = figure.subplots(len(norms), 5, sharex=True, squeeze=False, width_ratios=(1, 1, 1, 1, 0.8))
        for row, (name, norm) in zip(rows, norms.items(), strict=True):
            columns = (norm.mean, np.sqrt(norm.var), norm.gamma, norm.alpha)
            for axes, values in zip(row, columns, strict=False):
                _channel_bands(axes, grid, values)
            for axes in row[:2]:
                _mark_unvisited(axes, grid, norm.visits)
            _visits(row[4], grid, norm.visits)
            row[0].set_ylabel(f"{name}\n({norm.mean.shape[1]} ch.)")
        titles = (
            "mean $\\mu(t)$",
            "deviation $\\sigma(t)$",
            "scale $\\gamma(t)$",
            "shift $\\alpha(t)$",
            "visits of a node",
        )
        for axes, title in zip(rows[0], titles, strict=True):
            axes.set_title(title)
        for axes in rows[-1]:
            axes.set_xlabel("time t")
        legend = {
            label: handle
            for row in rows
            for handle, label in zip(*row[0].get_legend_handles_labels(), strict=True)
        }
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=len(legend))


def _channel_bands(axes: Any, grid: np.ndarray, values: np.ndarray) -> None:
    """Quantiles over channels of values (K, C) if there are many, and the liveliest channels on their own."""
    n_channels = values.shape[1]
    if n_channels > 4:
        low, quarter, median, three_quarters, high = np.quantile(
            values, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1
        )
        axes.fill_between(grid, low, high, color=BLUE, alpha=0.15, linewidth=0, label="90% of channels")
        axes.fill_between(grid, quarter, three_quarters, color=BLUE, alpha=0.3, linewidth=0, label="50%")
        axes.plot(grid, median, color=BLUE, label="median")
    liveliest = np.argsort(-np.ptp(values, axis=0), kind="stable")[: 3 if n_channels > 4 else 4]
    for rank, channel in enumerate(liveliest):
        axes.plot(
            grid,
            values[:, channel],
            color=ORANGE,
            linewidth=0.9,
            linestyle=("-", "--", ":", "-.")[rank],
            label="single channels" if rank == 0 else None,
        )


def _mark_unvisited(axes: Any, grid: np.ndarray, visits: np.ndarray) -> None:
    """A grey mark at the foot of the panel, half a cell to either side,
    for each node with less than one visit.
    """
    if (visits >= 1.0).all():
        return  # an empty mark would still stand in the legend
    edges = np.concatenate([grid[:1], 0.5 * (grid[1:] + grid[:-1]), grid[-1:]])
    axes.fill_between(
        np.repeat(edges, 2)[1:-1],
        0.0,
        0.04,
        where=np.repeat(visits < 1.0, 2),
        transform=axes.get_xaxis_transform(),
        color=GREY,
        linewidth=0,
        label="nodes not visited",
    )


def _visits(axes: Any, grid: np.ndarray, visits: np.ndarray) -> None:
    """Accumulated weight of each node; the scale is linear up to 1 and logarithmic above."""
    axes.bar(grid, visits, width=np.gradient(grid), color=GREEN, alpha=0.6, linewidth=0)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(bottom=0.0)


def _check_norms(norms: Mapping[str, TemporalNorm], grid: np.ndarray) -> None:
    if not norms:
        raise ArgumentError("`norms` is empty: this network has no TA-BN layer to draw")
    problems = []
    for name, norm in norms.items():
        shape = (len(grid), norm.mean.shape[-1])
        wrong = [
            f"{field} {getattr(norm, field).shape}"
            for field in ("mean", "var", "gamma", "alpha")
            if getattr(norm, field).shape != shape
        ]
        if norm.visits.shape != (len(grid),):
            wrong.append(f"visits {norm.visits.shape}")
        if wrong:
            problems.append(f"{name}: expected (K, C) = {shape} and visits (K,); got {', '.join(wrong)}")
    if problems:
        raise ArgumentError("`norms`: " + "; ".join(problems))
