"""Where a warning points to: the line outside of this package that called it."""

from __future__ import annotations

import sys


def level_of_caller() -> int:
    """`stacklevel` for a `warnings.warn` in the function that calls this one."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
