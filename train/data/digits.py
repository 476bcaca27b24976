"""The digits that ship with the package: 1,797 handwritten digits, 8 x 8 pixels of 17 grey levels.

"Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, licensed CC BY 4.0: its test part, unchanged, in the original
order (digits.npz; digits.NOTICE.txt travels with it). Each pixel counts the ink in 4 x 4 points of a scan:
0 to 16.
"""

from __future__ import annotations

import io
from importlib import resources

import numpy as np

from .classes import DIGITS
from .dataset import Dataset
from .files import parsing

N_TEST = 360
_LEVELS = 16


def load_digits() -> Dataset:
    """The digits: uint8 (N, 8, 8, 1), the first 1,437 for training and the last 360 for the test.

    A count c of 0 .. 16 becomes the grey value round(255 c / 16), so that black and white are 0 and 255 as
    in the other data sets, and `round(value * 16 / 255)` gives the count back.
    """
    file = resources.files(__package__) / "digits.npz"
    with parsing(str(file), "the archive of digits that ships with the package"):
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as archive:
            counts, labels = archive["images"], archive["labels"].astype(np.int64)
    images = np.rint(counts * (255.0 / _LEVELS)).astype(np.uint8)[..., None]
    return Dataset(
        "digits",
        images[:-N_TEST],
        labels[:-N_TEST],
        images[-N_TEST:],
        labels[-N_TEST:],
        DIGITS,
        allows_flip=False,
    )
