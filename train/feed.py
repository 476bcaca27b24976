"""Batches on their way to the device: the next one is made and copied while the present one is computed with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType

import numpy as np

from ..engine.backend import Array
from ..engine.upload import Upload, Uploader

Job = Callable[[], Sequence[np.ndarray]]  # makes a batch: arrays on the host


def feed(jobs: Iterable[Job], xp: ModuleType) -> Generator[Sequence[Array], None, None]:
    """The batches that the jobs make, in order, as arrays of module `xp`.

    On NumPy a job runs when its batch is asked for. On a GPU it runs on a thread of its own one batch ahead, so that a
    batch must depend on nothing that the batch before changes; what a job raises is raised where its batch is asked for.
    Close the iterator when it is left early: that waits for the thread.
    """
    return (job() for job in jobs) if xp is np else _ahead(jobs, Uploader(xp))


def _ahead(jobs: Iterable[Job], uploader: Uploader) -> Generator[Sequence[Array], None, None]:
    def started(job: Job) -> Upload:
        return uploader.start(job())

    waiting: Future[Upload] | None = None
    with ThreadPoolExecutor(1, "odegrad-feed") as thread:
        for job in jobs:
            following = thread.submit(started, job)
            if waiting is not None:
                yield uploader.finish(waiting.result())
            waiting = following
        if waiting is not None:
            yield uploader.finish(waiting.result())
