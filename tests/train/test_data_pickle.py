"""The reader of plain pickles: reads what Python wrote, refuses everything that is more than data."""

from __future__ import annotations

import datetime
import os
import pickle
import struct

import data_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odegrad.engine.errors import DataError
from odegrad.train.data import load_dataset, plain_pickle
from odegrad.train.data.plain_pickle import PickleRefused, load_plain_dict

scalars = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
plain = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner)
)


@pytest.mark.parametrize("protocol", [3, 4])
@settings(max_examples=40, deadline=None)
@given(value=st.dictionaries(st.text(), plain))
def test_plain_data_comes_back(protocol, value):
    assert load_plain_dict(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [0, 2])
def test_text_protocol_comes_back(protocol):
    value = {"numbers": [1, -300, 10**30, True, None], "text": "naïve", "pair": (1, 2), "empty": ((), [], {})}
    assert load_plain_dict(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", ["u1", "<i4", "<i8"])
@pytest.mark.parametrize("order", "CF")
def test_array_comes_back(protocol, dtype, order):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    got = load_plain_dict(pickle.dumps({"a": array}, protocol))["a"]
    assert (got.dtype, got.tolist()) == (array.dtype, array.tolist())


def test_batch_of_python_2_is_what_pickle_makes_of_it():
    images, labels = data_files.draw_parts("cifar10")[0]
    content = data_files.cifar_python((images, labels), label_key=b"labels")
    oracle = {key.decode(): value for key, value in pickle.loads(content, encoding="bytes").items()}
    got = load_plain_dict(content)
    assert np.array_equal(got.pop("data"), oracle.pop("data"))
    assert got == oracle


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickle_runs_nothing(protocol, tmp_path):
    target = tmp_path / "made by the pickle"
    with pytest.raises(PickleRefused, match=r"asks for '(posix|nt|os)\.mkdir'"):
        load_plain_dict(pickle.dumps({"data": RunsCode(target)}, protocol))
    assert not target.exists()


def test_hostile_batch_is_a_data_error(tmp_path):
    files = data_files.cifar_files("cifar10", "python", *data_files.draw_parts("cifar10"))
    target = tmp_path / "made by the pickle"
    files["cifar-10-batches-py/data_batch_2"] = pickle.dumps({b"data": RunsCode(target)}, 2)
    data_files.write_files(tmp_path, files)
    with pytest.raises(DataError, match="data_batch_2.*plain data"):
        load_dataset("cifar10", tmp_path, download=False)
    assert not target.exists()


REFUSED = {
    "an object": pickle.dumps({"a": datetime.date(2020, 1, 1)}),
    "a set": pickle.dumps({"a": {1, 2}}, 4),
    "a float array": pickle.dumps({"a": np.zeros(3)}, 4),
    "an object array": pickle.dumps({"a": np.array([{}], dtype=object)}, 4),
    "a big-endian array": pickle.dumps({"a": np.zeros(3, ">i4")}, 4),
    "a list": pickle.dumps([1, 2]),
    "a tuple as a key": pickle.dumps({(1, 2): 3}),
    "an extension code": b"\x80\x02}\x82\x01.",
    "a persistent id": b"\x80\x02}Q.",
    "state of a dict": b"\x80\x02}}b.",
    "state of a class": b"\x80\x02cnumpy\ndtype\n}b.",
    "a call of a class": b"\x80\x02cnumpy\nndarray\nK\x01\x85R.",
    "a call of data": b"\x80\x02}K\x01\x85R.",
    "a pop from nothing": b"\x80\x02\x85.",
    "a missing mark": b"\x80\x02}u.",
    "half an item": b"\x80\x02}(U\x01au.",
    "an unwritten memo": b"\x80\x02h\x07.",
    "an array never built": b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\n"
    + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87Rs.",
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
def test_more_than_plain_data_is_refused(content):
    with pytest.raises(PickleRefused):
        load_plain_dict(content)


def test_memo_index_allocates_nothing():
    content = b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."  # a table of 64 GiB for pickle.loads
    assert load_plain_dict(content) == {}


def test_shape_that_the_bytes_do_not_fill_is_refused():
    content = pickle.dumps({"a": np.zeros((3, 5), np.uint8)}, 4)
    with pytest.raises(PickleRefused, match="values"):
        load_plain_dict(content.replace(b"K\x03K\x05\x86", b"K\x63K\x05\x86"))


def test_too_many_opcodes_are_refused(monkeypatch):
    monkeypatch.setattr(plain_pickle, "_MAX_OPCODES", 1000)
    with pytest.raises(PickleRefused, match="more than 1000 opcodes"):
        load_plain_dict(b"\x80\x02" + b"}" * 2000 + b".")


@pytest.mark.parametrize(
    ("batch", "word"),
    [
        ({"labels": [0]}, "expected an array `data`"),
        ({"data": np.zeros((2, 3072), np.int64), "labels": [0, 1]}, "got int64"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [0, 1]}, r"got uint8 \(2, 3071\)"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "expected a list `labels`"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, "1"]}, "expected a list `labels`"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1 << 70]}, "expected a list `labels`"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, -1]}, "got -1 at index 1"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "2 images and 1 labels"),
    ],
    ids=["no data", "int64", "shape", "no labels", "text", "huge", "negative", "count"],
)
def test_batch_of_other_content_is_refused(batch, word, tmp_path):
    files = data_files.cifar_files("cifar10", "python", *data_files.draw_parts("cifar10"))
    files["cifar-10-batches-py/data_batch_1"] = pickle.dumps(batch, 4)
    data_files.write_files(tmp_path, files)
    with pytest.raises(DataError, match=f"data_batch_1.*{word}"):
        load_dataset("cifar10", tmp_path, download=False)
