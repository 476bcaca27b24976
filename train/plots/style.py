"""What all pictures share: style, colours, and how one is made and saved."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...engine.atomic import replace_file

# matplotlib takes 0.4 s to load, so it is imported where it is used, and by its Figure class: no display is
# needed.

# Okabe & Ito's palette, which colour-blind people can tell apart; marks and line styles differ as well.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
_DPI = 120
_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


@contextmanager
def picture(path: str | os.PathLike[str], width: float, height: float) -> Iterator[Any]:
    """An empty figure of the project's style, inches wide and high, for the block to fill.

    Then it is saved, in the format that the suffix of `path` names.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format=os.path.splitext(path)[1].removeprefix(".") or "png")
    replace_file(path, [buffer.getvalue()])
