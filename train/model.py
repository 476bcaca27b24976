"""A classifier with its trained state: from images of bytes to probabilities, and how well it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..engine import ops
from ..engine.backend import Array, module_for_device, to_host
from ..engine.errors import ArgumentError, ArgumentTypeError
from ..engine.product_precision import product_precision
from ..engine.tree import Tree, leaves
from ..layers import Chain, solves
from .config import TrainConfig
from .data import normalise
from .experiments import classifier, published_count
from .feed import feed


@dataclass(frozen=True)
class Preprocessing:
    """What a network needs to know of its data: how pixels are normalised,
    and what the classes are called.
    """

    mean: np.ndarray  # (C,), of pixels / 255
    std: np.ndarray  # (C,)
    shape: tuple[int, int, int]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """How a model does on a labelled set: mean loss, accuracy in [0, 1], mean evaluations of f a solve."""

    loss: float
    accuracy: float
    nfe: float


@dataclass
class Model:
    """A network with weights and running statistics.

    `network` is configuration; `weights` and `stats` are trees of arrays of the configured dtype and device.
    """

    config: TrainConfig
    preprocessing: Preprocessing
    network: Chain
    weights: Tree
    stats: Tree

    @classmethod
    def fresh(cls, config: TrainConfig, preprocessing: Preprocessing, key: np.ndarray) -> Model:
        """A model before training, its weights drawn from `key`."""
        network = classifier(config, preprocessing.shape, len(preprocessing.classes))
        xp, dtype = module_for_device(config.device), np.dtype(config.dtype)
        return cls(
            config, preprocessing, network, network.init(key, dtype, xp), network.init_stats(dtype, xp)
        )

    def inputs(self, images: np.ndarray) -> np.ndarray:
        """Normalised host arrays (B, H, W, C) of the configured dtype from uint8 images."""
        found = self.preprocessing
        return normalise(images, found.mean, found.std, np.dtype(self.config.dtype))

    def products(self) -> AbstractContextManager[None]:
        """The context in which products are computed as the configuration says."""
        return product_precision(self.config.precision, deterministic=self.config.deterministic)

    def logits(self, images: np.ndarray, size: int) -> Iterator[tuple[Array, int]]:
        """Logits (B, K) of each `size` uint8 images (N, H, W, C), which are solved together,
        and the evaluations of f.
        """
        jobs = (partial(self._only_inputs, images[k : k + size]) for k in range(0, len(images), size))
        with closing(feed(jobs, module_for_device(self.config.device))) as fed:
            for (x,) in fed:
                with self.products():
                    logits, seen = self.network.apply(self.weights, self.stats, None, x, mode="eval")
                yield logits, sum(solved.stats.nfe for solved in solves(seen))

    def _only_inputs(self, images: np.ndarray) -> tuple[np.ndarray]:
        return (self.inputs(images),)

    def predict_proba(self, images: Any, batch_size: int | None = None) -> np.ndarray:
        """Class probabilities (N, K), float64, on the host; arguments and errors as for `predict`."""
        checked = self._checked(images)
        parts = [
            to_host(ops.softmax(logits.astype(np.float64)))
            for logits, _ in self.logits(checked, self._size(batch_size))
        ]
        return np.concatenate(parts)

    def predict(self, images: Any, batch_size: int | None = None) -> np.ndarray:
        """The most probable class (N,), int64.

        Args:
            images: uint8 (N, H, W, C), or (N, H, W) where C is 1, of the size the network was trained on.
            batch_size: images that are solved together, with common steps;
                None or 0 take the configured number.
        Raises: ArgumentTypeError, ArgumentError for another dtype or shape, or no images.
        """
        return self.predict_proba(images, batch_size).argmax(axis=1)

    def score(self, images: np.ndarray, labels: np.ndarray, batch_size: int | None = None) -> Scores:
        """Loss and accuracy on labelled images."""
        size = self._size(batch_size)
        loss = correct = nfe = n_solves = 0.0
        for k, (logits, evaluations) in enumerate(self.logits(images, size)):
            truth = labels[k * size : (k + 1) * size]
            host = to_host(logits).astype(np.float64)
            loss += len(truth) * float(ops.softmax_cross_entropy(host, truth))
            correct += int((host.argmax(axis=1) == truth).sum())
            nfe += evaluations
            n_solves += 1
        return Scores(loss / len(labels), correct / len(labels), nfe / n_solves)

    def parameter_counts(self) -> dict[str, int]:
        """All trained numbers, and those that papers count (`published_count`)."""
        return {
            "parameters": sum(int(leaf.size) for leaf in leaves(self.weights)),
            "parameters_published": published_count(self.weights),
        }

    def _size(self, batch_size: int | None) -> int:
        if batch_size is not None and batch_size < 0:
            raise ArgumentError(f"`batch_size` must not be negative; got {batch_size}")
        return batch_size or self.config.eval_batch_size

    def _checked(self, images: Any) -> np.ndarray:
        shape = self.preprocessing.shape
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            got = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise ArgumentTypeError(f"images must be a NumPy array of uint8, pixels 0 to 255; got {got}")
        if shape[2] == 1 and images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.shape[1:] != shape or not len(images):
            raise ArgumentError(
                f"images must have shape (N, {', '.join(map(str, shape))}), N >= 1; got {images.shape}"
            )
        return images
