"""The reader of MATLAB 5 files against SciPy's writer."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odegrad.train.data.mat5 import read_mat5
from scipy.io import savemat

LIMIT = 1 << 16
DTYPES = ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8")


def mat_bytes(packed=False, **variables):
    file = io.BytesIO()
    savemat(file, variables, do_compression=packed)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=5))
    )
)
def test_array_of_scipy_reads_back(packed, array):
    got = read_mat5(mat_bytes(packed, a=array, label="text"), ("a", "label"), LIMIT)
    assert list(got) == ["a"]
    assert got["a"].dtype == array.dtype
    np.testing.assert_array_equal(got["a"], array)


@pytest.mark.parametrize(
    "other",
    ["text", {"a": 1}, np.array([[1j]]), np.array([{}, 1], dtype=object)],
    ids=["str", "struct", "complex", "cell"],
)
def test_what_is_not_real_numbers_is_left_out(other):
    assert list(read_mat5(mat_bytes(a=other, b=np.ones((2, 2))), ("a", "b"), LIMIT)) == ["b"]


def test_variable_not_asked_for_is_left_out():
    assert read_mat5(mat_bytes(a=1, b=2), ("b",), LIMIT)["b"].tolist() == [[2]]


VALID = mat_bytes(a=np.arange(12, dtype=np.uint8).reshape(3, 4))
DOUBLED = VALID + VALID[128:]
PACKED = mat_bytes(packed=True, a=np.zeros((300, 300), np.uint8))
CUT_STREAM = zlib.compress(VALID[128:])[:-8]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "no header"),
        (VALID[:126] + b"MI" + VALID[128:], "little-endian"),
        (VALID[:-8], "of which"),
        (DOUBLED, "there twice"),
        (PACKED, "more than the 65536 bytes"),
        (VALID[:128] + struct.pack("<II", 15, len(CUT_STREAM)) + CUT_STREAM, "cut short"),
        (VALID[:128] + struct.pack("<II", 6, 8) + bytes(8), "type 6"),
        (VALID[:128] + struct.pack("<HHI", 1, 5, 0), "small element of 5 bytes"),
        (VALID.replace(struct.pack("<ii", 3, 4), struct.pack("<ii", 3, 5)), "12 values"),
        (VALID.replace(struct.pack("<ii", 3, 4), struct.pack("<ii", -3, -4)), "12 values"),
        (VALID.replace(struct.pack("<II", 2, 12), struct.pack("<II", 8, 12)), "unknown type 8"),
    ],
    ids="empty big-endian cut twice bomb stream no-variable small shape negative type".split(),
)
def test_damaged_file_is_refused(content, word):
    with pytest.raises(ValueError, match=word):
        read_mat5(content, ("a",), LIMIT)
