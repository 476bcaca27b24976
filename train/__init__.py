"""Data, optimisers, the training loop, run folders and the command line."""

from .config import TrainConfig, defaults_for, load_toml, make_config
from .optimizers import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "TrainConfig", "defaults_for", "load_toml", "make_config"]
