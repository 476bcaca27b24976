"""Locks that are free in a forked child, whichever thread of the parent held them:
the child has only the one that forked.
"""

from __future__ import annotations

import os
from typing import Protocol, TypeVar


class _Lock(Protocol):
    def locked(self) -> bool: ...

    def release(self) -> None: ...


AnyLock = TypeVar("AnyLock", bound=_Lock)


def free_in_child(lock: AnyLock) -> AnyLock:
    """The lock itself. For locks that live as long as the process,
    around changes that are whole at any moment.
    """

    def free() -> None:
        if lock.locked():
            lock.release()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=free)
    return lock
