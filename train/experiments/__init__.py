"""The networks of the paper's experiments on images."""

from .networks import NETWORKS, classifier, dynamics, published_count

__all__ = ["NETWORKS", "classifier", "dynamics", "published_count"]
