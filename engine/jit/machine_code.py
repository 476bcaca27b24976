"""From source text to machine code, which is kept on disk:
another process does not compile the same text again.
"""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numba import cfunc

from .disk import digest, file_with, texts_in
from .functions import functions_of, plus
from .memory import kernel_signature, load, store

logger = logging.getLogger("odegrad")


@lru_cache(maxsize=256)
def kernel(source: str, dtype: Any) -> Any:
    """The compiled function `kernel` of a text of `source`; its `address` stays valid while the result lives.

    Cost: a few tenths of a second, or milliseconds where the machine code is on disk.
    """
    names = {"load": load, "store": store, "plus": plus} | names_of(dtype)
    settings = {"error_model": "numpy", "fastmath": {"contract"}}
    return compiled_text(source, str(dtype), kernel_signature(dtype), names, settings)


def compiled_text(
    source: str, kind: str, signature: Any, names: dict[str, Any], settings: dict[str, Any]
) -> Any:
    """The function `kernel` of a text as a C function, read from disk or compiled and kept there.

    Args:
        kind: tells texts apart that mean different things with other names, signatures or settings.
        names: what the text may name.
    """
    name = f"odegrad_kernel_{digest((source, kind, *texts_in(Path(__file__).parent)))}"
    file = file_with(source, name)
    module = ModuleType(name)
    module.__dict__.update(names)
    sys.modules[name] = module  # where numba looks for the module of a function that it reads from disk
    code = compile(source, "<odegrad kernel>" if file is None else str(file), "exec")
    exec(code, module.__dict__)  # noqa: S102 - the text is made of a program's names and numbers only
    if file is not None:
        try:
            return cfunc(signature, cache=True, **settings)(module.kernel)
        except Exception as error:  # noqa: BLE001 - whatever reading a damaged file of numba's cache raises
            logger.warning("odegrad: compiled code in %s cannot be used: %r", file.parent, error)
    return cfunc(signature, **settings)(module.kernel)


def names_of(dtype: Any) -> dict[str, Any]:
    """The constants and functions that a text may name: `d` and d_... of the dtype,
    `n` and n_... of numbers.
    """
    real = np.dtype(dtype).type
    names: dict[str, Any] = {"inf": np.inf, "nan": np.nan}
    for kind, number in (("d", real), ("n", np.float64)):
        names[kind] = number
        names.update({f"{kind}_{name}": function for name, function in functions_of(number).items()})
    return names
