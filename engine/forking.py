"""Locks that are free in a forked child, whichever thread of the parent held them:
the child has only the one that forked.
"""

from __future__ import annotations

import os
from typing import Protocol, TypeVar
from weakref import WeakSet


class _Lock(Protocol):
    def locked(self) -> bool: ...

    def release(self) -> None: ...


AnyLock = TypeVar("AnyLock", bound=_Lock)
_locks: WeakSet[_Lock] = WeakSet()


def free_in_child(lock: AnyLock) -> AnyLock:
    """The lock itself. For locks around changes that are whole at any moment,
    or of what is written anew before it is read.
    """
    _locks.add(lock)
    return lock


def _free_all() -> None:
    for lock in _locks:
        if lock.locked():
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)
