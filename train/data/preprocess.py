"""From bytes to numbers: statistics of the training images and normalisation with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...engine.errors import ArgumentError, ArgumentTypeError

_CHUNK = 1024  # images a pass: the sums need float64 copies, which must not be those of all images at once


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (biased) of pixels / 255 for each channel.

    Args:
        images: uint8 (N, H, W, C), N * H * W at least 1.
    Returns: mean (C,) and std (C,), float64. Sums of bytes and their squares are integers below 2**53, hence
        exact, so the result depends neither on the order nor on the chunks.
    """
    _check_images(images)
    channels = images.shape[3]
    totals, squares, n = [0] * channels, [0] * channels, images.size // channels
    for start in range(0, len(images), _CHUNK):
        values = images[start : start + _CHUNK].reshape(-1, channels).astype(np.float64)
        for c in range(channels):
            totals[c] += int(values[:, c].sum())
            squares[c] += int(np.dot(values[:, c], values[:, c]))
    mean = np.array([total / (255 * n) for total in totals])
    variance = [
        (n * square - total * total) / (255 * n) ** 2 for total, square in zip(totals, squares, strict=True)
    ]
    return mean, np.sqrt(np.array(variance))


def normalise(images: np.ndarray, mean: np.ndarray, std: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    """(images / 255 - mean) / std for each channel: uint8 (N, H, W, C) -> `dtype` (N, H, W, C).

    Args:
        mean, std: (C,), as `channel_statistics` of the training images gives them; std positive.
        dtype: float32 or float64.
    Raises: ArgumentError, ArgumentTypeError.
    Cost: two passes over the result, computed as images * scale + shift.
    """
    _check_images(images)
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    channels = images.shape[3]
    if mean.shape != (channels,) or std.shape != (channels,):
        raise ArgumentError(
            f"`mean` and `std` must have shape ({channels},); got {mean.shape} and {std.shape}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ArgumentError(
            f"`mean` must be finite and `std` positive; got {mean} and {std}. A channel in which all pixels "
            "are equal holds nothing to learn from: drop it."
        )
    scaled = np.multiply(images, (1.0 / (255.0 * std)).astype(dtype), dtype=dtype)
    scaled -= (mean / std).astype(dtype)
    return scaled


def _check_images(images: Any) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        got = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise ArgumentTypeError(f"`images` must be a NumPy array of uint8; got {got}")
    if images.ndim != 4 or images.size == 0:
        raise ArgumentError(f"`images` must have shape (N, H, W, C) and not be empty; got {images.shape}")
