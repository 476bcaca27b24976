"""`NoticedInterrupts`: a Ctrl-C that no library can lose."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any


class NoticedInterrupts:
    """While inside, Ctrl-C raises KeyboardInterrupt as usual,
    and `check` raises it once more where it got lost.

    Python throws away what is raised inside a weak reference's callback or a `__del__`. HDF5 objects end in
    such callbacks, so a Ctrl-C that comes while a checkpoint is written could leave the run going, with
    nothing but a traceback on standard error, which is left out too. A program that has its own handler, or
    ignores Ctrl-C, or trains in another thread, keeps what it has.
    """

    def __init__(self) -> None:
        self._is_pending = self._is_installed = False

    def __enter__(self) -> NoticedInterrupts:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._unraisable = sys.unraisablehook
            sys.unraisablehook = self._lost
            signal.signal(signal.SIGINT, self._notice)
            self._is_installed = True
        return self

    def __exit__(self, *raised: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.unraisablehook = self._unraisable
            self._is_installed = False

    def check(self) -> None:
        """Raises: KeyboardInterrupt if there was a Ctrl-C since entry;
        to be called between pieces of work.
        """
        if self._is_pending:
            raise KeyboardInterrupt

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._is_pending = True
        signal.default_int_handler(number, frame)

    def _lost(self, lost: Any) -> None:
        """What is raised where Python has nobody to tell; a Ctrl-C among it is told by `check`."""
        if not (self._is_pending and issubclass(lost.exc_type, KeyboardInterrupt)):
            self._unraisable(lost)
