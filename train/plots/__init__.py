"""Pictures of a run, as PNG files."""

from .curves import draw_learning_curves, draw_nfe
from .temporal_norms import TemporalNorm, draw_temporal_norms
from .worst import draw_worst

__all__ = ["TemporalNorm", "draw_learning_curves", "draw_nfe", "draw_temporal_norms", "draw_worst"]
