"""From source text to machine code, which is kept on disk: another process does not compile the same text again."""

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
    """The compiled function `kernel` of a text; its `address` stays valid while the result lives.

    Cost: a few tenths of a second, or milliseconds where the machine code is on disk.
    """
    texts = (source, str(dtype), *texts_in(Path(__file__).parent))
    name = f"odegrad_kernel_{digest(texts)}"
    file = file_with(source, name)
    module = ModuleType(name)
    module.__dict__.update(_names(dtype))
    sys.modules[name] = module  # where numba looks for the module of a function that it reads from disk
    code = compile(source, "<odegrad kernel>" if file is None else str(file), "exec")
    exec(code, module.__dict__)  # noqa: S102 - the text is made of a program's names and numbers only
    signature, settings = kernel_signature(dtype), {"error_model": "numpy", "fastmath": {"contract"}}
    if file is not None:
        try:
            return cfunc(signature, cache=True, **settings)(module.kernel)
        except Exception as error:  # noqa: BLE001 - whatever reading a damaged file of numba's cache raises
            logger.warning("odegrad: compiled code in %s cannot be used: %r", file.parent, error)
    return cfunc(signature, **settings)(module.kernel)


def _names(dtype: Any) -> dict[str, Any]:
    """What the text may name."""
    real = np.dtype(dtype).type
    names: dict[str, Any] = {
        "load": load,
        "store": store,
        "plus": plus,
        "inf": np.inf,
        "nan": np.nan,
    }
    for kind, number in (("d", real), ("n", np.float64)):
        names[kind] = number
        names.update({f"{kind}_{name}": function for name, function in functions_of(number).items()})
    return names
