"""Batches on their way to the device: the next one is made and copied while the present one is computed
with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType

import numpy as np

from ..engine.backend import Array
from ..engine.upload import Upload, Uploader

Job = Callable[[], Sequence[np.ndarray]]  # makes a batch: arrays on the host


def feed(jobs: Iterable[Job], xp: ModuleType) -> Generator[Sequence[Array], None, None]:
    """The batches that the jobs make, in order, as arrays of module `xp`.

    On NumPy a job runs when its batch is asked for. On a GPU it runs on a thread of its own one batch ahead,
    so that a batch must depend on nothing that the batch before changes; what a job raises is raised where
    its batch is asked for. Close the iterator when it is left early: that waits for the thread.
    """
    return (job() for job in jobs) if xp is np else _ahead(jobs, Uploader(xp))


def _ahead(jobs: Iterable[Job], uploader: Uploader) -> Generator[Sequence[Array], None, None]:
    def started(job: Job) -> Upload:
        return uploader.start(job())

    waiting: deque[Future[Upload]] = deque()
    with ThreadPoolExecutor(1, "odegrad-feed") as thread:
        try:
            for job in jobs:
                waiting.append(thread.submit(started, job))
                if len(waiting) > 1:
                    yield uploader.finish(waiting.popleft().result())
            if waiting:
                yield uploader.finish(waiting.popleft().result())
        finally:  # left early: the memory of an upload must not be used again before its copies are made
            for upload in waiting:
                if upload.exception() is None:
                    uploader.finish(upload.result())
