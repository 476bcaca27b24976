"""What do products in TF32 and bfloat16 cost a solve in evaluations, and its result and gradient in accuracy?

    python -m benchmarks.precision [--toy]

The network of the digits in training, its products rounded on NumPy as a GPU rounds them (`tests/rounded_products.py`), at
several tolerances; and its gradient on fixed steps, beside that of images changed by the error of rounding one operand.
Prints one JSON line a case. No time is measured: where the rounding is done by a GPU it costs none.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from odegrad import ops, random, value_and_grad
from odegrad.engine.product_precision import OPERAND_ERRORS
from odegrad.engine.tree import leaves
from odegrad.layers import solves
from odegrad.train.config import TrainConfig, defaults_for
from odegrad.train.data import load_dataset
from odegrad.train.experiments import classifier

from .measure import machine, report

sys.path.insert(
    0, str(Path(__file__).parents[1] / "tests")
)  # where the rounding is, for the tests first of all

from rounded_products import rounded_products  # noqa: E402

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
SEEDS = range(4)


class Network:
    """The classifier of a configuration with first weights, on normalised images of the digits."""

    def __init__(self, config: TrainConfig, seed: int, batch: int) -> None:
        data = load_dataset("digits")
        rows = slice(seed * batch, (seed + 1) * batch)
        images = data.train_images[rows].astype(np.float32)
        self.x, self.labels = (images - images.mean()) / images.std(), data.train_labels[rows]
        self.layers = classifier(config, self.x.shape[1:], 10)
        self.weights = self.layers.init(random.key(seed))
        self.stats = self.layers.init_stats()

    def logits(self, weights: Any, x: np.ndarray) -> tuple[Any, Any]:
        return self.layers.apply(weights, self.stats, None, x, mode="train", key=random.key(0))

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Of the mean cross-entropy, all weights in one vector."""

        def loss(weights: Any) -> Any:
            return ops.softmax_cross_entropy(self.logits(weights, x)[0], self.labels)

        found = value_and_grad(loss)(self.weights)[1]
        return np.concatenate([leaf.ravel() for leaf in leaves(found)]).astype(float)


def solve(config: TrainConfig, tolerance: float, batch: int) -> dict[str, Any]:
    """Evaluations, and the relative distance of the logits from those in float32, of each precision."""
    network = Network(replace(config, rtol=tolerance, atol=tolerance), 0, batch)
    found, plain = {}, None
    for precision in OPERAND_ERRORS:
        with rounded_products(precision):
            logits, seen = network.logits(network.weights, network.x)
        plain = logits if plain is None else plain
        off = float(np.abs(logits - plain).max() / np.abs(plain).max())
        found[precision] = {"nfe": solves(seen)[0].stats.nfe, "off": float(f"{off:.1e}")}
    return found


def gradients(config: TrainConfig, seed: int, batch: int) -> dict[str, Any]:
    """Relative distance from the gradient in float32: of each precision, and of images changed as much as an operand."""
    network = Network(replace(config, method="rk4", step_size=0.25), seed, batch)
    plain = network.gradient(network.x)
    noise = np.random.default_rng(seed).standard_normal(network.x.shape).astype(np.float32)
    found = {}
    for precision, error in OPERAND_ERRORS.items():
        if error == 0.0:
            continue
        with rounded_products(precision):
            rounded = network.gradient(network.x)
        changed = network.gradient(network.x * (1 + np.float32(error) * noise))
        distances = {"off": rounded, "off_by_changed_images": changed}
        found[precision] = {
            name: round(float(np.linalg.norm(g - plain) / np.linalg.norm(plain)), 4)
            for name, g in distances.items()
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="one small case of each kind")
    toy = parser.parse_args().toy
    config, batch = replace(defaults_for("digits"), dropout=0.0, execution="eager"), 4 if toy else 32
    if toy:
        config = replace(config, network="4-layer")
    common = {"benchmark": "precision", "network": config.network, "dtype": "float32", "machine": machine()}
    for tolerance in TOLERANCES[:1] if toy else TOLERANCES:
        report(common | {"what": "solve", "rtol": tolerance, **solve(config, tolerance, batch)})
    for seed in list(SEEDS)[:1] if toy else SEEDS:
        report(common | {"what": "gradient", "seed": seed, **gradients(config, seed, batch)})


if __name__ == "__main__":
    main()
