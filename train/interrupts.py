"""`NoticedInterrupts`: a Ctrl-C that no library can lose."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class NoticedInterrupts:
    """While inside, Ctrl-C raises KeyboardInterrupt as usual, and `check` raises it once more where it got lost.

    Python throws away what is raised inside a weak reference's callback or a `__del__`. HDF5 objects end in such
    callbacks, so a Ctrl-C that comes while a checkpoint is written could leave the run going. A program that has its
    own handler, or ignores Ctrl-C, or trains in another thread, keeps what it has.
    """

    def __init__(self) -> None:
        self._is_pending = self._is_installed = False

    def __enter__(self) -> NoticedInterrupts:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._notice)
            self._is_installed = True
        return self

    def __exit__(self, *raised: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._is_installed = False

    def check(self) -> None:
        """Raises: KeyboardInterrupt if there was a Ctrl-C since entry; to be called between pieces of work."""
        if self._is_pending:
            raise KeyboardInterrupt

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._is_pending = True
        signal.default_int_handler(number, frame)
