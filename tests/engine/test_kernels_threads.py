"""The shares of a kernel, the limit on BLAS around them, and the scratch memory they use."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from odegrad.engine.kernels import threads
from odegrad.engine.kernels.scratch import scratch
from odegrad.engine.kernels.threads import one_blas_thread, run_shares
from odegrad.engine.kernels.tiles import cut
from threadpoolctl import threadpool_info, threadpool_limits


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("n_shares", [1, 2, 5])
def test_every_share_is_done_once(n_shares):
    done = np.zeros(n_shares, dtype=int)

    def work(share):
        done[share] += 1

    run_shares(work, n_shares)
    assert (done == 1).all()


@pytest.mark.parametrize(
    "n_images, positions", [(1, (1, 1)), (300, (8, 8)), (3, (500, 300)), (2, (1, 10**6))]
)
def test_tiles_cover_every_position_once(n_images, positions):
    seen = np.zeros((n_images, positions[0]), dtype=int)
    for tile in cut(np, n_images, positions, depth=90, width=7, itemsize=4):
        seen[tile.images, tile.rows] += 1
    assert (seen == 1).all()


def test_share_zero_runs_in_the_caller_and_the_others_elsewhere():
    threads = {}
    run_shares(lambda share: threads.setdefault(share, threading.get_ident()), 3)
    assert threads[0] == threading.get_ident()
    assert threading.get_ident() not in (threads[1], threads[2])


@pytest.mark.parametrize("failing", [0, 1])
def test_the_error_of_a_share_reaches_the_caller_after_all_have_finished(failing):
    finished = []

    def work(share):
        if share == failing:
            raise ZeroDivisionError(f"share {share}")
        finished.append(share)

    with pytest.raises(ZeroDivisionError, match=f"share {failing}"):
        run_shares(work, 2)
    assert finished == [1 - failing]


def test_a_thread_that_cannot_be_started_is_not_counted_on(monkeypatch):
    """The next call would wait for it."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    workers = threads._Workers()
    monkeypatch.setattr(threads, "_workers", workers)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="new thread"):
        patch.setattr(threading.Thread, "start", refuse)
        run_shares(lambda share: None, 2)
    assert workers._n_started == 0


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signal to a thread")
@pytest.mark.parametrize("raised", [KeyboardInterrupt, TimeoutError])
def test_what_a_signal_raises_is_raised_after_all_shares_have_finished(raised):
    finished = []

    def handler(number, frame):
        raise raised

    def work(share):
        if share == 1:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.05)
            finished.append(share)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(raised):
            run_shares(work, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished == [1]


def test_blas_has_one_thread_inside_and_what_it_had_before_outside():
    with threadpool_limits(2):
        before = blas_threads()
        with one_blas_thread() as n_threads:
            assert n_threads == max(before)
            assert set(blas_threads()) == {1}
        assert blas_threads() == before


def test_overlapping_holders_restore_what_was_before_the_first():
    with threadpool_limits(2):
        before = blas_threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        assert second.__enter__() == max(before)
        first.__exit__(None, None, None)
        assert set(blas_threads()) == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before


def test_holders_on_several_threads_leave_in_any_order():
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with one_blas_thread():
            entered.set()
            leave.wait()

    with threadpool_limits(2):
        before = blas_threads()
        other = threading.Thread(target=hold)
        with one_blas_thread():
            other.start()
            entered.wait()
        assert set(blas_threads()) == {1}
        leave.set()
        other.join()
        assert blas_threads() == before


def test_a_thread_holds_blas_that_another_one_set():
    inside = []

    def hold():
        with one_blas_thread():
            inside.extend(blas_threads())

    with threadpool_limits(2):
        other = threading.Thread(target=hold)
        other.start()
        other.join()
        assert set(inside) == {1} and set(blas_threads()) == {2}


def test_blas_is_released_after_an_error():
    before = blas_threads()
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert blas_threads() == before


FORKING = """
import os, sys, warnings
import numpy as np
from odegrad.engine.kernels import conv2d
from threadpoolctl import threadpool_limits
x, w = np.ones((64, 16, 16, 16)), np.ones((3, 3, 16, 16))
with threadpool_limits(2):
    expected = conv2d(np, x, w)
    warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork of a process with threads
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(conv2d(np, x, w), expected) else 3)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_its_own_threads():
    """In a process of its own, so that the threads of the test runner are not forked."""
    result = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, "")


FORKING_UNDER_A_LIMIT = """
import os, sys, threading, warnings
import numpy as np
from contextlib import nullcontext
from odegrad.engine.kernels.threads import one_blas_thread
from threadpoolctl import threadpool_info, threadpool_limits

def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

def hold(entered, leave):
    with one_blas_thread():
        entered.set()
        leave.wait()

with threadpool_limits(2):
    entered, leave = threading.Event(), threading.Event()
    other = threading.Thread(target=hold, args=(entered, leave))
    if sys.argv[1] != "mine":
        other.start()
        entered.wait()
    with one_blas_thread() if sys.argv[1] != "others" else nullcontext():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork of a process with threads
        child = os.fork()
        inside = blas_threads()
    after = blas_threads()
    if child == 0:
        with one_blas_thread() as n_threads:
            again = blas_threads()
        found = inside, after, n_threads, again, blas_threads()
        os._exit(0 if found == ({2}, {2}, 2, {1}, {2}) else 3)
    elif sys.argv[1] != "others" and inside != {1}:
        sys.exit("the parent's own block has ended")
    leave.set()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("holder", ["others", "mine", "both"])
def test_blas_is_free_in_a_forked_child(holder):
    """Whichever thread held it; the block in which the process was forked may never end there."""
    command = [sys.executable, "-c", FORKING_UNDER_A_LIMIT, holder]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, "")


def test_scratch_of_one_role_is_reused():
    first = scratch(np, "test", (4, 5), np.float64)
    second = scratch(np, "test", (3,), np.complex128)
    assert first.ctypes.data == second.ctypes.data
    assert (second.shape, second.dtype) == ((3,), np.complex128)


def test_scratch_of_another_role_or_thread_is_apart():
    arrays = [scratch(np, role, (1000,), np.float64) for role in ("one", "other")]
    thread = threading.Thread(target=lambda: arrays.append(scratch(np, "one", (1000,), np.float64)))
    thread.start()
    thread.join()
    assert not any(np.shares_memory(arrays[i], arrays[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_scratch_begins_on_a_cache_line():
    assert scratch(np, "aligned", (7,), np.float32).ctypes.data % 64 == 0


def test_large_scratch_is_not_kept():
    large = scratch(np, "large", (1 << 25,), np.float64)
    small = scratch(np, "large", (8,), np.float64)
    assert not np.shares_memory(large, small)


def test_a_kernel_inside_a_share_divides_nothing():
    """The other threads have shares of their own; waiting for them would never end."""
    inner = {}

    def work(share):
        with one_blas_thread() as n_threads:
            threads = set()
            run_shares(lambda _: threads.add(threading.get_ident()), 3)
        inner[share] = n_threads, threads == {threading.get_ident()}

    with threadpool_limits(2, user_api="blas"), one_blas_thread():
        run_shares(work, 2)
        with one_blas_thread() as n_after:
            assert n_after == 2
    assert inner == {0: (1, True), 1: (1, True)}


def test_a_share_treats_overflow_as_the_caller_does():
    with np.errstate(over="ignore"):
        run_shares(lambda share: np.exp(np.full(3, 1e4)), 2)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        run_shares(lambda share: np.exp(np.full(3, 1e4)) if share else None, 2)
