"""Images to predict, from the files that people have: PNG, JPEG, .npy and idx."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from ...engine.errors import ArgumentError, DataError
from .files import parsing
from .idx import read_idx

_PICTURES = (".png", ".jpg", ".jpeg")


def read_images(paths: Sequence[str | PathLike[str]], shape: tuple[int, int, int]) -> np.ndarray:
    """All images of the files `paths`, in order: uint8 (N, H, W, C).

    Args:
        paths: PNG or JPEG files (8 bits, grey or colour, no transparency; turned to grey or colour as
            `shape` asks), .npy files of uint8 with one image or many, idx files (.gz or names that end in
            -ubyte) of grey images.
        shape: (H, W, C) that every image must have; nothing is resized.
    Raises: DataError names the first file that is missing, damaged or of another kind or size; ArgumentError
        if there are no paths.
    """
    if not paths:
        raise ArgumentError("`paths` must name at least one file")
    return np.concatenate([_read_file(Path(path), shape) for path in paths])


def _read_file(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The images of one file, uint8 (N, H, W, C), N at least 1."""
    name = path.name.lower()
    if name.endswith(_PICTURES):
        images = _read_picture(path, shape)
    elif name.endswith(".npy"):
        images = _read_npy(path)
    elif name.endswith((".gz", "-ubyte")):
        images = read_idx(path, 3)
    else:
        raise DataError(
            f"{path}: expected a file .png, .jpg, .jpeg, .npy, .gz (idx) or *-ubyte (idx)", path=path
        )
    return _as_batch(images, shape, path)


def _as_batch(images: np.ndarray, shape: tuple[int, int, int], path: Path) -> np.ndarray:
    """`images` with the axes (N, H, W, C); one image and a missing channel axis are allowed for."""
    for single in (shape, shape[:2]) if shape[2] == 1 else (shape,):
        if images.shape == single or (images.shape[1:] == single and len(images)):
            return images.reshape(-1, *shape)
    raise DataError(
        f"{path}: expected images of (height, width, channels) = {shape}; got an array {images.shape}. "
        "Resize or crop them to the size the network was trained on.",
        path=path,
    )


def _read_npy(path: Path) -> np.ndarray:
    """A uint8 array; the file is mapped, so that a header cannot claim more memory than there are bytes."""
    with parsing(path, "a NumPy .npy file of uint8"):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(images, np.ndarray):
            images.close()
            raise ValueError("it is an .npz archive")
    if images.dtype != np.uint8:
        raise DataError(f"{path}: expected uint8, pixels from 0 to 255; got {images.dtype}", path=path)
    return np.array(images)


def _read_picture(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A PNG or JPEG as grey (H, W) or colour (H, W, 3); the size is checked before a pixel is decoded."""
    from PIL import Image  # takes 0.05 s, so only here

    height, width, channels = shape
    with parsing(path, "a PNG or JPEG picture"):
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            size, mode, is_opaque = picture.size, picture.mode, "transparency" not in picture.info
            if size == (width, height) and mode in ("1", "L", "P", "RGB") and is_opaque:
                return np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    if size != (width, height):
        raise DataError(
            f"{path}: expected a picture {width} wide and {height} high; got {size[0]} x {size[1]}. "
            "Resize or crop it to the size the network was trained on.",
            path=path,
        )
    raise DataError(
        f"{path}: expected 8-bit grey or colour without transparency; got mode {mode}. Save it as such.",
        path=path,
    )
