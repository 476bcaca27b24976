"""Numeric arrays from MATLAB 5 files.

Written here because `scipy.io.loadmat` reads such files in C and crashes the process on some damaged ones
(seen with SciPy 1.17 and flipped bits in a file that is not packed), which no `except` can turn into a
message.

A file is a header of 128 bytes and then elements: a tag (type, size) and data, padded to 8 bytes. A variable
is an element of type MATRIX, made of elements for flags, dimensions, name and values in column-major order;
it may be packed with zlib as an element of type COMPRESSED.
Source: MathWorks, MAT-File Format, chapter "Level 5 MAT-file format".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator

import numpy as np

_HEADER = 128
_LITTLE_ENDIAN = b"\x00\x01IM"  # version 1.0, and "MI" as a little-endian machine writes it
_MATRIX, _COMPRESSED = 14, 15
_VALUE_TYPES = {
    1: "i1",
    2: "u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}
_NUMERIC_CLASSES = range(6, 16)  # double, single, int8 to uint64
_IS_COMPLEX = 0x0800


def read_mat5(content: bytes, names: Collection[str], limit: int) -> dict[str, np.ndarray]:
    """The arrays called `names` in a MATLAB 5 file, as far as they are there and hold real numbers.

    An array is in column-major order and has the type its values are stored with, which for a double array
    of small integers may be uint8.

    Args:
        content: the whole file, little-endian as all current machines write it.
        names: of the variables to keep.
        limit: the most bytes that one packed variable may unpack to.
    Raises: ValueError, struct.error or zlib.error for damaged bytes and for a name that is there twice.
    """
    if len(content) < _HEADER or content[_HEADER - 4 : _HEADER] != _LITTLE_ENDIAN:
        raise ValueError("no header of a little-endian MATLAB 5 file")
    arrays: dict[str, np.ndarray] = {}
    for kind, data in _elements(memoryview(content)[_HEADER:]):
        if kind == _COMPRESSED:
            kind, data = next(_elements(memoryview(_inflate(data, limit))), (0, data))
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where a variable was expected")
        name, array = _matrix(data)
        if name in arrays:
            raise ValueError(f"the variable {name!r} is there twice")
        if array is not None and name in names:
            arrays[name] = array
    return arrays


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, data) of each element; at most 4 bytes of data may stand in the tag itself."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from("<II", data, position)
        start = position + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
        if size > len(data) - start:
            raise ValueError(f"an element of {size} bytes of which {len(data) - start} are there")
        yield kind, data[start : start + size]
        position = start + size
        if kind != _COMPRESSED:
            position += -position % 8


def _inflate(data: memoryview, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    unpacked = unpacker.decompress(data, limit + 1)
    if len(unpacked) > limit:
        raise ValueError(f"a variable unpacks to more than the {limit} bytes allowed")
    if not unpacker.eof:
        raise ValueError("a packed variable is cut short")
    return unpacked


def _matrix(data: memoryview) -> tuple[str, np.ndarray | None]:
    """The name and the values of one variable; None for text, structures and all that is not real numbers."""
    (_, flags), (_, dimensions), (_, name), *values = _elements(data)
    (word,) = struct.unpack_from("<I", flags)
    shape = tuple(int(n) for n in np.frombuffer(dimensions, "<i4"))
    text = bytes(name).decode("ascii")
    if word & 0xFF not in _NUMERIC_CLASSES or word & _IS_COMPLEX:
        return text, None
    ((kind, content),) = values
    if kind not in _VALUE_TYPES:
        raise ValueError(f"{text!r} has values of the unknown type {kind}")
    flat = np.frombuffer(content, _VALUE_TYPES[kind])
    if min(shape, default=-1) < 0 or flat.size != math.prod(shape):
        raise ValueError(f"{text!r} has the shape {shape} and {flat.size} values")
    return text, flat.reshape(shape, order="F")
