"""`replace_file`: a file has its old contents or its new ones, at whatever instant the writer dies."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

PARTIAL = ".partial"  # suffix of a file being written; a killed writer leaves one, the next write reuses it


def replace_file(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` beside `path`, force them to the disk, then move them into place.

    The folder must exist; one writer a path at a time. If anything fails (a full disk, Ctrl-C), the old file
    is as it was and nothing is left beside it.
    Raises: OSError as the operating system gives it, with the name of the file.
    """
    target = Path(path)
    partial = target.with_name(target.name + PARTIAL)
    try:
        with open(partial, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(path)  # writing, unlike opening, fails without a name
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk; only POSIX systems can open a folder for that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
