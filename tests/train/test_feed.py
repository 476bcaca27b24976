"""Batches on their way to the device: their order, one ahead, and what a job raises."""

import threading

import numpy as np
import pytest
from odegrad.train.feed import feed


def jobs_of(n, log=None, wrong=None):
    """n jobs that make batches of their number; `log` gets the numbers as they run, job `wrong` raises."""

    def job(k):
        def make():
            if log is not None:
                log.append((k, threading.current_thread() is threading.main_thread()))
            if k == wrong:
                raise ValueError(f"batch {k}")
            return np.full((2, 3), float(k)), np.full(2, k)

        return make

    return [job(k) for k in range(n)]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_batches_come_in_order(xp_of_a_test, n):
    found = [float(images[0, 0]) for images, _ in feed(jobs_of(n), xp_of_a_test)]
    assert found == list(range(n))


@pytest.fixture(params=["numpy", "fake"])
def xp_of_a_test(request):
    return np if request.param == "numpy" else request.getfixturevalue("fake_cupy")


def test_on_the_host_a_batch_is_made_when_it_is_asked_for():
    log = []
    fed = feed(jobs_of(3, log), np)
    next(fed)
    assert log == [(0, True)]


def test_on_a_device_the_next_batch_is_made_elsewhere_meanwhile(fake_cupy):
    is_made = threading.Event()

    def second():
        is_made.set()
        return (np.ones(2),)

    fed = feed([lambda: (np.zeros(2),), second], fake_cupy)
    next(fed)
    assert is_made.wait(10.0), "the second batch was not begun while the first one was in use"


def test_jobs_run_beside_the_main_thread(fake_cupy):
    log = []
    list(feed(jobs_of(3, log), fake_cupy))
    assert log == [(0, False), (1, False), (2, False)]


def test_what_a_job_raises_comes_with_its_batch(fake_cupy):
    fed = feed(jobs_of(3, wrong=1), fake_cupy)
    next(fed)
    with pytest.raises(ValueError, match="batch 1"):
        next(fed)


def test_leaving_early_ends_the_thread(fake_cupy):
    fed = feed(jobs_of(5), fake_cupy)
    next(fed)
    fed.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("odegrad-feed")]


def test_leaving_early_waits_for_the_copies_that_nobody_asked_for(fake_cupy):
    """The computation does: the pool gives their memory out again."""
    fed = feed(jobs_of(5), fake_cupy)
    next(fed)
    fed.close()
    compute = fake_cupy.cuda.get_current_stream()
    waits = [call for call in fake_cupy.calls if call[:2] == ("wait", compute)]
    copies = [call for call in fake_cupy.calls if call[0] == "upload"]
    assert (len(waits), len(copies)) == (2, 2 * 2)
