"""Data sets: their published files, checked; batches, normalisation and augmentation."""

from .augmentation import augment
from .batching import batches, batches_per_epoch
from .dataset import Dataset, LabelledImages, split_validation
from .image_files import read_images
from .load import DATASETS, load_dataset
from .preprocess import channel_statistics, normalise

__all__ = [
    "DATASETS",
    "Dataset",
    "LabelledImages",
    "augment",
    "batches",
    "batches_per_epoch",
    "channel_statistics",
    "load_dataset",
    "normalise",
    "read_images",
    "split_validation",
]
