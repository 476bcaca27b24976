"""Bytes from files of unknown origin, bounded in size; each failure is one DataError that names the file.

Nothing is ever written to a path that an archive names: members are read in memory.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ...engine.errors import DataError

MIB = 1 << 20


@contextmanager
def parsing(where: Path | str, expected: str) -> Iterator[None]:
    """Turn whatever a parser raises inside the block into one DataError: `where` is not `expected`.

    Parsers of damaged bytes raise nearly any exception (zlib.error, EOFError, KeyError, MemoryError, ...);
    keep the block to calls of such parsers, so that it hides no mistake of ours.
    """
    try:
        yield
    except DataError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise DataError(f"{where}: {error.strerror}; expected {expected}", path=where) from error
    except Exception as error:
        why = str(error).rstrip(".") or "no details"
        raise DataError(
            f"{where}: expected {expected}; got {type(error).__name__}: {why}. "
            "The file is damaged or of another kind; get it anew.",
            path=where,
        ) from error


def read_bytes(path: Path, expected: str, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes."""
    with parsing(path, expected), path.open("rb") as stream:
        return _all_of(stream, limit)


def gunzip(path: Path, expected: str, limit: int) -> bytes:
    """The unpacked bytes, at most `limit`, of a .gz file; its checksum is verified."""
    with parsing(path, expected), gzip.open(path, "rb") as stream:
        return _all_of(stream, limit)


def tar_members(path: Path, names: Collection[str], expected: str, limit: int) -> dict[str, bytes]:
    """The regular members `names` of a .tar.gz that unpacks to at most `limit` bytes, read in memory.

    Members that are not asked for are passed over; the archive's checksum is verified. DataError lists the
    members that are missing.
    """
    found: dict[str, bytes] = {}
    with parsing(path, expected), gzip.open(path, "rb") as unpacked:
        stream = _Bounded(unpacked, limit)
        with tarfile.open(fileobj=stream, mode="r|", bufsize=MIB) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name not in names or not member.isreg() or member.issparse():
                    continue
                content = archive.extractfile(member)
                assert content is not None, "a regular member has content"
                found[name] = content.read()
        while stream.read(MIB):  # to the end, where gzip keeps its checksum
            pass
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{path}: expected {expected}; it lacks {', '.join(missing)}", path=path)
    return found


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than `limit` bytes in all: a packed bomb stays small."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, limit: int) -> None:
        super().__init__()
        self._stream = stream
        self._limit = limit
        self._left = limit

    def read(self, size: int = -1) -> bytes:
        most = self._left + 1
        block = self._stream.read(most if size < 0 else min(size, most))
        self._left -= len(block)
        if self._left < 0:
            raise ValueError(f"more than the {self._limit} bytes allowed")
        return block


def _all_of(stream: IO[bytes] | gzip.GzipFile, limit: int) -> bytes:
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than the {limit} bytes allowed")
    return content
