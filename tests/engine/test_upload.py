"""Uploads: what is copied, on which stream, and who waits for whom, on the stand-in for CuPy."""

import numpy as np
import pytest
from odegrad.engine import backend
from odegrad.engine.upload import N_SLOTS, Uploader


@pytest.fixture
def uploader(fake_cupy):
    return Uploader(fake_cupy)


def batch(k=0, n=4):
    return np.arange(n * 3.0).reshape(n, 3) + k, np.arange(n) + k


def kinds(calls):
    return [call[0] for call in calls]


def test_the_arrays_arrive(uploader):
    arrays = uploader.finish(uploader.start(batch()))
    for array, expected in zip(arrays, batch(), strict=True):
        np.testing.assert_array_equal(array.get(), expected)


def test_the_source_may_be_written_to_at_once(uploader):
    x, labels = batch()
    upload = uploader.start((x, labels))
    x[...] = np.nan
    np.testing.assert_array_equal(uploader.finish(upload)[0].get(), batch()[0])


def test_uploads_do_not_share_memory(uploader):
    """As many as there may be at once, the last one of another size."""
    batches = [batch(k, n) for k, n in enumerate((4, 4, 3, 4))]
    uploads = [uploader.start(arrays) for arrays in batches]
    for upload, expected in zip(uploads, batches, strict=True):
        np.testing.assert_array_equal(upload.arrays[0].get(), expected[0])


def test_copies_wait_for_the_computation_that_may_still_use_the_memory(fake_cupy, uploader):
    uploader.start(batch())
    record = next(call for call in fake_cupy.calls if call[0] == "record")
    wait = next(call for call in fake_cupy.calls if call[0] == "wait")
    compute, copies = fake_cupy.cuda.get_current_stream(), wait[1]
    assert record[1] is compute and wait[2] is record[2] and copies is not compute
    assert (
        fake_cupy.calls.index(record) < fake_cupy.calls.index(wait) < kinds(fake_cupy.calls).index("upload")
    )


def test_copies_are_made_from_page_locked_memory(fake_cupy, uploader):
    uploader.start(batch())
    assert [call[2] for call in fake_cupy.calls if call[0] == "upload"] == ["page-locked"] * 2


def test_uploads_start_on_the_device_of_the_uploader(fake_cupy, uploader):
    """On whatever thread: another one would begin on device 0."""
    uploader.start(batch())
    first, last = fake_cupy.calls[0], fake_cupy.calls[-1]
    assert isinstance(first[1], fake_cupy.cuda.Device) and (first[0], last) == ("enter", ("leave", first[1]))


def test_copies_run_on_a_stream_of_their_own(fake_cupy, uploader):
    uploader.start(batch())
    streams = {call[1] for call in fake_cupy.calls if call[0] == "upload"}
    assert len(streams) == 1 and streams.pop().is_non_blocking


def test_the_computation_waits_for_the_copies_and_the_host_does_not(fake_cupy, uploader):
    upload = uploader.start(batch())
    last = next(call for call in reversed(fake_cupy.calls) if call[0] == "record")
    fake_cupy.calls.clear()
    uploader.finish(upload)
    assert last[2] is upload.done
    assert fake_cupy.calls == [("wait", fake_cupy.cuda.get_current_stream(), upload.done)]


def test_page_locked_memory_is_used_again_after_its_copy(fake_cupy, uploader):
    first = [uploader.start(batch(k)) for k in range(N_SLOTS)]
    fake_cupy.calls.clear()
    uploader.start(batch())
    assert ("synchronize", first[0].done) in fake_cupy.calls and "pin" not in kinds(fake_cupy.calls)


def test_an_upload_is_counted(uploader):
    before = backend.transfers().writes
    uploader.start(batch())
    assert backend.transfers().writes == before + 2


def test_one_after_the_other_they_all_arrive(device_xp, rng):
    uploader = Uploader(device_xp)
    batches = [(rng.standard_normal((256, 100)), rng.integers(0, 9, 256)) for _ in range(5)]
    for arrays in batches:
        found = uploader.finish(uploader.start(arrays))
        assert all((backend.to_host(x) == expected).all() for x, expected in zip(found, arrays, strict=True))
