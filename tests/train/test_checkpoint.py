"""Checkpoints: what is saved comes back, damage of any kind is named, and an interrupted write harms nothing."""

import errno
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError, ArgumentTypeError, CheckpointError
from odegrad.train import checkpoint
from odegrad.train.checkpoint import load, match, named_arrays, restored_tree, save

ARRAYS = {
    "weights/block/0/w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "weights/block/0/b": np.array([np.pi, np.nan, -np.inf, -0.0]),
    "weights/block/10": np.array(7, np.int64),
    "stats/visited": np.array([True, False]),
    "state/empty": np.zeros((0, 3), np.float32),
    "state/complex": np.array([1 + 2j]),
    "key": np.array([1, 2**32 - 1], np.uint32),
}
HEADER = {"step": 12, "config": {"lr": 1e-3, "out": None}, "random": [2**63 + 1], "text": "é"}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.h5"
    save(path, ARRAYS, HEADER)
    return path


def with_trailer(contents):
    return contents + b"odegrad sha-256\n" + hashlib.sha256(contents).digest()


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_bit_for_bit(saved, name):
    got = load(saved).arrays[name]
    assert (got.dtype, got.shape, got.tobytes()) == (
        ARRAYS[name].dtype,
        ARRAYS[name].shape,
        ARRAYS[name].tobytes(),
    )


def test_the_header_comes_back(saved):
    assert load(saved).header == HEADER


def test_no_other_array_comes_back(saved):
    assert set(load(saved).arrays) == set(ARRAYS)


def test_arrays_that_come_back_are_writable(saved):
    assert all(array.flags.writeable for array in load(saved).arrays.values())


def test_views_and_foreign_byte_order_are_saved_by_value(tmp_path):
    arrays = {"t": np.arange(6.0).reshape(2, 3).T[::2], "big": np.arange(3, dtype=">f8")}
    save(tmp_path / "c.h5", arrays, {})
    got = load(tmp_path / "c.h5").arrays
    assert got["t"].tolist() == [[0.0, 3.0], [2.0, 5.0]] and got["big"].tolist() == [0.0, 1.0, 2.0]


def test_equal_contents_give_equal_bytes(saved, tmp_path):
    again = tmp_path / "again.h5"
    save(again, dict(reversed(ARRAYS.items())), dict(reversed(HEADER.items())))
    assert again.read_bytes() == saved.read_bytes()


def test_other_tools_can_open_it(saved):
    with h5py.File(saved) as file:
        assert file["arrays/weights/block/0/w"][1, 2] == 6.0


def test_a_checkpoint_replaces_the_one_before(saved):
    save(saved, {"x": np.ones(1)}, {"step": 13})
    assert load(saved).header == {"step": 13}


def test_nothing_is_left_beside_it(saved):
    assert os.listdir(saved.parent) == ["last.h5"]


# Damage.


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(saved, fraction):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(CheckpointError, match=r"last\.h5: (truncated|no odegrad checkpoint)"):
        load(saved)


def test_a_file_without_its_last_byte_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="truncated"):
        load(saved)


def test_a_flipped_bit_anywhere_is_refused(saved):
    data, rng = saved.read_bytes(), random.Random(5)
    for position in [0, len(data) - 1, *rng.sample(range(len(data)), 200)]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.randrange(8)
        saved.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="SHA-256|truncated"):
            load(saved)


def test_hdf5_sees_no_byte_of_a_damaged_file(saved, monkeypatch):
    data = bytearray(saved.read_bytes())
    data[100] ^= 1
    saved.write_bytes(data)
    monkeypatch.setattr(checkpoint, "_from_hdf5", lambda contents: pytest.fail("HDF5 opened a damaged file"))
    with pytest.raises(CheckpointError):
        load(saved)


def hdf5_bytes(fill):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def foreign(text, fill_arrays=lambda group: None):
    def fill(file):
        file["header"] = np.frombuffer(text, np.uint8)
        fill_arrays(file.create_group("arrays"))

    return hdf5_bytes(fill)


GOOD_HEADER = b'{"schema": 1, "header": {}}'
NO_CHECKPOINTS = {
    "plain text": (b"hello", "no odegrad checkpoint"),
    "hdf5 without digest": (foreign(GOOD_HEADER), "truncated or not finished"),
    "digest of no hdf5": (with_trailer(b"hello" * 100), "it is no checkpoint"),
    "empty with digest": (with_trailer(b""), "it is no checkpoint"),
    "hdf5 of something else": (with_trailer(hdf5_bytes(lambda file: None)), "it is no checkpoint"),
    "header no json": (with_trailer(foreign(b"{]")), "it is no checkpoint"),
    "header a list": (with_trailer(foreign(b"[]")), "schema None"),
    "header without contents": (with_trailer(foreign(b'{"schema": 1}')), "schema 1"),
    "newer schema": (with_trailer(foreign(b'{"schema": 2, "header": {}}')), "written in schema 2"),
    "strings": (
        with_trailer(foreign(GOOD_HEADER, lambda g: g.create_dataset("s", data="text"))),
        "not numbers",
    ),
    "other file": (
        with_trailer(
            foreign(
                GOOD_HEADER, lambda g: g.create_dataset("s", (8,), "u1", external=[("/etc/hostname", 0, 8)])
            )
        ),
        "not stored plainly",
    ),
    "more than the file holds": (
        with_trailer(foreign(GOOD_HEADER, lambda g: g.create_dataset("s", (10**12,), "f8"))),
        "not stored plainly",
    ),
    "compressed": (
        with_trailer(
            foreign(GOOD_HEADER, lambda g: g.create_dataset("s", data=np.zeros(10**6), compression=9))
        ),
        "not stored plainly",
    ),
}


@pytest.mark.parametrize(("data", "message"), NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS.keys())
def test_what_is_no_checkpoint_is_refused(tmp_path, data, message):
    path = tmp_path / "c.h5"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_external_links_are_not_followed(saved, tmp_path):
    def link(group):
        group["other"] = h5py.ExternalLink(str(saved), "/arrays/key")

    path = tmp_path / "link.h5"
    path.write_bytes(with_trailer(foreign(GOOD_HEADER, link)))
    assert load(path).arrays == {}


@pytest.mark.parametrize("name", ["none.h5", ".", "last.h5/below"])
def test_a_missing_checkpoint_is_named(saved, name):
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        load(saved.parent / name)


# What cannot be saved.


@pytest.mark.parametrize(
    ("arrays", "header", "error", "message"),
    [
        ({"x": [1.0]}, {}, ArgumentTypeError, "x must be a NumPy array of numbers; got list"),
        ({"x": np.array(["a"])}, {}, ArgumentTypeError, "x must be a NumPy array of numbers; got <U1"),
        ({"x": np.array([None])}, {}, ArgumentTypeError, "got object"),
        ({"a": np.ones(1), "a/b": np.ones(1), "a.b": np.ones(1)}, {}, ArgumentError, "'a'"),
        ({"a//b": np.ones(1)}, {}, ArgumentError, "'a//b'"),
        ({"../b": np.ones(1)}, {}, ArgumentError, "'../b'"),
        ({}, {"loss": float("nan")}, ArgumentTypeError, "what JSON can hold"),
        ({}, {"x": np.ones(1)}, ArgumentTypeError, "what JSON can hold"),
    ],
)
def test_what_the_file_cannot_hold_is_refused(saved, arrays, header, error, message):
    with pytest.raises(error, match=message):
        save(saved, arrays, header)
    assert load(saved).header == HEADER


# Another architecture.


def test_every_mismatch_is_listed():
    arrays = {"a": np.zeros(3), "b": np.zeros(2, np.float32), "d": np.zeros(1), "same": np.zeros(1)}
    expected = {"a": ((4,), "f8"), "b": ((2,), np.float64), "c": ((), "f8"), "same": ((1,), "f8")}
    with pytest.raises(CheckpointError) as caught:
        match(arrays, expected)
    assert caught.value.problems == (
        "a: expected float64 (4,), got float64 (3,)",
        "b: expected float64 (2,), got float32 (2,)",
        "c is missing",
        "d is not expected",
    )


def test_arrays_that_match_pass():
    match(ARRAYS, {name: (array.shape, array.dtype) for name, array in ARRAYS.items()})


TREE = {"block": [{"w": np.ones((2, 3), np.float32)}, None, (np.array(2.0),)], "count": np.array(3, np.int64)}


def test_a_tree_has_names():
    assert list(named_arrays(TREE, "weights")) == ["weights/block/0/w", "weights/block/2/0", "weights/count"]


def test_a_tree_comes_back_from_a_file(tmp_path):
    save(tmp_path / "c.h5", named_arrays(TREE, "w") | named_arrays({"x": np.zeros(1)}, "w2"), {})
    like = {"block": [{"w": np.zeros((2, 3), np.float32)}, None, (np.array(0.0),)], "count": np.array(0)}
    assert repr(restored_tree(like, load(tmp_path / "c.h5").arrays, "w")) == repr(TREE)


def test_a_tree_of_another_shape_is_refused():
    like = {**TREE, "more": np.zeros(1)}
    with pytest.raises(CheckpointError, match="w/more is missing"):
        restored_tree(like, named_arrays(TREE, "w"), "w")


def test_two_leaves_of_one_name_are_refused():
    with pytest.raises(ArgumentError, match="same name"):
        named_arrays({"a/b": np.ones(1), "a": {"b": np.ones(1)}}, "w")


# Interrupted writes.


class FullDisk(io.FileIO):
    """A file that has room for 1000 bytes."""

    room = 1000

    def write(self, data):
        if len(data) > self.room:
            super().write(bytes(data[: self.room]))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        return super().write(data)


FAILURES = {
    "while it writes": ("builtins.open", lambda path, mode: FullDisk(path, mode)),
    "while it forces it to the disk": (
        "os.fsync",
        lambda descriptor: (_ for _ in ()).throw(OSError(5, "I/O")),
    ),
    "while it moves it": ("os.replace", lambda old, new: (_ for _ in ()).throw(OSError(28, "full"))),
    "by Ctrl-C": ("os.replace", lambda old, new: (_ for _ in ()).throw(KeyboardInterrupt)),
}


@pytest.mark.parametrize(("name", "fails"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(saved, monkeypatch, name, fails):
    with monkeypatch.context() as patched:
        patched.setattr(name, fails)
        with pytest.raises((OSError, KeyboardInterrupt)):
            save(saved, ARRAYS, {"step": 13})
    assert load(saved).header == HEADER
    assert os.listdir(saved.parent) == ["last.h5"]


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_real_limit_on_the_file_size_leaves_the_old_checkpoint(saved):
    code = (
        "import resource, sys, numpy as np; from odegrad.train.checkpoint import save\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: save(sys.argv[1], {'x': np.zeros(10_000)}, {})\n"
        "except OSError as error: print(error.errno)"
    )
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EFBIG
    assert load(saved).header == HEADER and os.listdir(saved.parent) == ["last.h5"]


def test_a_leftover_of_a_killed_writer_is_reused(saved):
    (saved.parent / "last.h5.partial").write_bytes(b"torn" * 10_000)
    save(saved, ARRAYS, {"step": 13})
    assert load(saved).header == {"step": 13} and os.listdir(saved.parent) == ["last.h5"]


WRITER = """
import sys, numpy as np
from odegrad.train.checkpoint import save
for step in range(1, 10**6):
    save(sys.argv[1], {"x": np.full(100_000, step)}, {"step": step})
    print(step, flush=True)
"""


def test_a_writer_killed_at_any_instant_leaves_a_whole_checkpoint(tmp_path):
    path, rng = tmp_path / "last.h5", random.Random(11)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()  # at least one is complete
            time.sleep(rng.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            completed = [int(line) for line in writer.stdout.read().splitlines()] or [1]
        found = load(path)
        assert found.header["step"] >= completed[-1]  # what was reported as saved is there, or a newer one
        assert (found.arrays["x"] == found.header["step"]).all()
