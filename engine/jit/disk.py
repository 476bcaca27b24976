"""Where compiled code is kept between processes: a folder of this user's, with numba's files in it."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import cfunc

from ..forking import free_in_child

_lock = free_in_child(threading.Lock())  # numba's setting is one for the whole process
logger = logging.getLogger("odegrad")
FOLDER = "ODEGRAD_CACHE_DIR"  # the environment variable that moves the files


@cache
def cache_folder() -> Path | None:
    """The folder of this user's compiled code: $ODEGRAD_CACHE_DIR, or odegrad in the user's cache folder.

    None where it cannot be made, or where others may write to it: numba reads its files without suspicion.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    try:
        folder = Path(os.environ.get(FOLDER) or Path(base) / "odegrad").expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:
        logger.info("odegrad: compiled code is not kept: %s", error)
        return None
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        logger.info("odegrad: compiled code is not kept: others may write to %s", folder)
        return None
    return folder


def digest(texts: Iterable[str]) -> str:
    """A name for what machine code is made of: the texts, the compiler and the processor's kind."""
    parts = (*texts, numba.__version__, np.__version__, platform.machine())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@cache
def texts_in(folder: Path) -> tuple[str, ...]:
    """The text of every file of a folder's modules."""
    return tuple(file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py")))


def file_with(text: str, name: str) -> Path | None:
    """A file in the cache folder that holds this text; None where nothing can be kept."""
    folder = cache_folder()
    if folder is None:
        return None
    file = folder / f"{name}.py"
    try:
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as new:
                new.write(text)
            os.replace(new.name, file)  # another process sees all of it or nothing
    except (OSError, UnicodeDecodeError) as error:
        logger.info("odegrad: compiled code is not kept: %s", error)
        return None
    return file


def compiled_loop(function: Callable[..., Any], signature: Any, also: Iterable[Path] = ()) -> Any:
    """The function compiled by numba as a C function, and kept on disk.

    numba notices a change of the function's own file only. So there is a folder for each version of what it
    may call: the modules of this folder, those of its own, and the files `also`.
    """
    folder, here = cache_folder(), Path(function.__code__.co_filename).parent
    if folder is None:
        return cfunc(signature, error_model="numpy")(function)
    texts = [
        *texts_in(Path(__file__).parent),
        *texts_in(here),
        *(f.read_text(encoding="utf-8") for f in also),
    ]
    with _lock:
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder / f"loops_{digest(texts)}")
        try:
            return cfunc(signature, error_model="numpy", cache=True)(function)
        finally:
            numba.config.CACHE_DIR = before
