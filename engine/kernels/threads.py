"""Shares of one kernel on several threads, with BLAS held at one thread meanwhile.

Small matrix products on one thread each beat one product on all threads: the kernels cut the batch into tiles
and deal them out. The number of threads is BLAS's own (`OPENBLAS_NUM_THREADS`,
`threadpoolctl.threadpool_limits`), so that whoever limits BLAS limits the kernels too.

A thread of BLAS that has done its part waits for the next one by spinning, on a core that a kernel's thread
could use. Around work that mixes products with kernels, hold BLAS at one thread throughout: the kernels
inside keep their threads. Measured by `benchmarks/conv.py`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any

from threadpoolctl import ThreadpoolController

Share = Callable[[int], None]

_local = threading.local()


def is_share() -> bool:
    """Whether this thread is at work on a share: its kernels then divide nothing themselves."""
    return getattr(_local, "is_share", False)


class _BlasLimit:
    """BLAS at one thread while at least one caller is inside; counted, since the limit is the process's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._libraries: list[Any] | None = None
        self._before: list[int] = []

    def enter(self) -> int:
        """Hold BLAS at one thread; returns how many threads BLAS has outside."""
        with self._lock:
            if self._libraries is None:  # a scan of the loaded libraries, once a process
                self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            if self._n_inside == 0:
                self._before = [library.num_threads or 1 for library in self._libraries]
            self._n_inside += 1  # before BLAS is told, and after it in `leave`: a fork may come in between
            if self._n_inside == 1:
                self._set([1] * len(self._before))
            return max(self._before, default=1)

    def leave(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                return  # a block of the process that this one was forked from
            if self._n_inside == 1:
                self._set(self._before)
            self._n_inside -= 1

    def renewed(self) -> _BlasLimit:
        """That of a forked child, whose BLAS nobody holds:
        what it does may well never leave the block in which it was forked.
        """
        if self._n_inside:
            self._set(self._before)
        self._lock, self._n_inside = threading.Lock(), 0
        limit = _BlasLimit()
        limit._libraries = self._libraries
        return limit

    def _set(self, numbers: list[int]) -> None:
        for library, number, before in zip(self._libraries or [], numbers, self._before, strict=True):
            if before > 1:
                _set_threads(library, number)


def _set_threads(library: Any, number: int) -> None:
    """Set the number of threads of the process, whichever thread set it before.

    OpenBLAS has one number for all; from 3.8 on threadpoolctl leaves it to the thread that set it first, and
    silently does nothing in the others. Who leaves last, though, may be another than who entered first.
    """
    of_nobody = getattr(library, "clear_controlling_thread", lambda force: None)
    of_nobody(force=True)
    library.set_num_threads(number)
    of_nobody(force=True)


class _Shares:
    """One piece of work in n shares: what became of each, and a queue that wakes the caller."""

    def __init__(self, work: Share, n_shares: int) -> None:
        self._work = work
        self._is_done = [False] * n_shares
        self._errors: list[BaseException | None] = [None] * n_shares
        self._contexts = [copy_context() for _ in range(n_shares)]  # NumPy's errstate is the caller's
        self._wake: SimpleQueue[None] = SimpleQueue()

    def do(self, share: int) -> None:
        """Run one share; its exception is kept for the caller."""
        was_inside, _local.is_share = is_share(), True
        try:
            self._contexts[share].run(self._work, share)
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`
            self._errors[share] = error
        finally:
            _local.is_share = was_inside
            self._is_done[share] = True
            self._wake.put(None)

    def wait(self) -> None:
        """Return when every share is done, whatever happens meanwhile: they write into the caller's buffers.

        What a signal raises (Ctrl-C, a timeout) is raised afterwards. Each share is marked before it wakes,
        so that a wake-up lost to the signal cannot leave the caller waiting.
        """
        interrupt: BaseException | None = None
        is_over = False
        while not is_over:
            try:
                while not all(self._is_done):
                    self._wake.get()
                is_over = True
            except BaseException as error:  # noqa: BLE001 - raised below
                interrupt = error
        for raised in (interrupt, *self._errors):
            if raised is not None:
                raise raised


class _Workers:
    """Daemon threads that wait for shares; started when first needed, and anew in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inbox: SimpleQueue[tuple[_Shares, int]] = SimpleQueue()
        self._n_started = 0

    def submit(self, shares: _Shares, numbers: range) -> None:
        with self._lock:
            while self._n_started < len(numbers):
                name = f"odegrad-kernel-{self._n_started + 1}"
                threading.Thread(target=_serve, args=(self._inbox,), name=name, daemon=True).start()
                self._n_started += 1  # only now: there may be no more threads to be had
        for number in numbers:
            self._inbox.put((shares, number))


def _serve(inbox: SimpleQueue[tuple[_Shares, int]]) -> None:
    while True:
        shares, number = inbox.get()
        shares.do(number)
        del shares  # its arrays must not live until the next task arrives


_blas = _BlasLimit()
_workers = _Workers()


def _forget_threads() -> None:
    """After a fork the child has none of the threads, and the locks may have been held."""
    global _blas, _workers
    _blas, _workers = _blas.renewed(), _Workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


class one_blas_thread:  # noqa: N801  used like a function: with one_blas_thread() as n_threads
    """Hold BLAS at one thread inside the block; gives the number of threads it has outside,
    which are ours to use.

    Inside of a share that is one: the other threads have shares of their own.
    """

    __slots__ = ("_held",)

    def __enter__(self) -> int:
        self._held = None if is_share() else _blas  # a share is inside of a block already
        return self._held.enter() if self._held is not None else 1

    def __exit__(self, *raised: object) -> None:
        if self._held is not None:
            self._held.leave()


def blas_threads() -> int:
    """The threads that BLAS has, and work may be divided among."""
    with one_blas_thread() as n_threads:
        return n_threads


def run_shares(work: Share, n_shares: int) -> None:
    """Call `work(share)` for share = 0 .. n_shares - 1, each on its own thread; share 0 is done by the
    caller. Inside of a share the caller does all of them.

    Returns when all have finished; the first exception of a share is raised here.
    """
    if n_shares == 1 or is_share():
        for share in range(n_shares):
            work(share)
        return
    shares = _Shares(work, n_shares)
    _workers.submit(shares, range(1, n_shares))
    try:
        shares.do(0)
    finally:
        shares.wait()
