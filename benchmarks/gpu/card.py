"""Which card is this, and what can it do at most: bytes copied and products computed a second?

    python -m benchmarks.gpu.card [--toy] [--seconds S]

The other parts are judged by these numbers, measured in the same run.
"""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from odegrad import product_precision
from odegrad.engine import backend

from ..measure import processor_name, summary
from .device import Device, parsed, tell

PACKAGES = (
    "odegrad", "numpy", "scipy", "cupy-cuda12x", "cupy-cuda13x", "nvidia-cudnn-frontend", "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13", "nvmath-python", "nvidia-cublas-cu12", "nvidia-cublas", "torch", "torchdiffeq", "jax", "diffrax", "numba",
)  # fmt: skip


def identity(device: Device) -> dict[str, Any]:
    """Card, driver, CUDA, cuDNN, cublasLt and the versions of what is installed."""
    found: dict[str, Any] = {"processor": processor_name(), "python": platform.python_version()}
    found["versions"] = {name: version for name in PACKAGES if (version := _version(name))}
    if device.name == "cuda":
        runtime = device.xp.cuda.runtime
        properties = runtime.getDeviceProperties(backend.device_number())
        found |= {
            "card": properties["name"].decode(),
            "compute_capability": f"{properties['major']}.{properties['minor']}",
            "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
            "driver": runtime.driverGetVersion(),
            "cuda_runtime": runtime.runtimeGetVersion(),
            "cudnn": cudnn.backend_version() if (cudnn := backend.cudnn_module()) else None,
            "cublaslt": lt.get_version() if (lt := backend.cublaslt_module()) else None,
        }
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def copy_speed(device: Device, n_bytes: int, seconds: float) -> dict[str, Any]:
    """Bytes read and written a second by a copy."""
    xp = device.xp
    source, target = xp.zeros(n_bytes // 4, "float32"), xp.empty(n_bytes // 4, "float32")
    found = summary(device.timed({"": lambda: xp.copyto(target, source)}, seconds=seconds)[""])
    return {"bytes_per_s": 2 * n_bytes / found["median_s"], **found}


def product_speed(device: Device, precision: str, size: int, seconds: float) -> dict[str, Any]:
    """Operations a second of a product of square float32 matrices."""
    a, out = device.xp.ones((size, size), "float32"), device.xp.empty((size, size), "float32")
    with product_precision(precision):
        times = device.timed({"": lambda: device.xp.matmul(a, a, out=out)}, seconds=seconds)
    found = summary(times[""])
    return {"flops": 2 * size**3 / found["median_s"], **found}


def main() -> None:
    given = parsed(__doc__)
    device: Device = given.device
    tell(benchmark="card", what="identity", **identity(device))
    tell(benchmark="card", what="copy", **copy_speed(device, 1 << (20 if given.toy else 30), given.seconds))
    for precision in ("fp32",) if given.toy else ("fp32", "tf32"):
        speed = product_speed(device, precision, 64 if given.toy else 8192, given.seconds)
        tell(benchmark="card", what=f"matrix product {precision}", **speed)


if __name__ == "__main__":
    main()
