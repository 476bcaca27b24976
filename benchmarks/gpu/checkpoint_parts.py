"""A run folder in few, small files, for where only such may leave a machine; joined again, it resumes exactly.

`PARTS` members of at most `PART_BYTES` each hold the run's last checkpoint, byte for byte, as one data set of an HDF5 file
that HDF5's family driver divides. `run.json` beside them has the configuration, the versions, the metrics, and the SHA-256
of every part, which is verified before HDF5 reads a byte; the checkpoint has its own digest besides.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from odegrad.engine.errors import CheckpointError
from odegrad.train.config import to_toml
from odegrad.train.run_folder import RunFolder

PART_BYTES = 15_000_000
PARTS = 5  # and run.json
MEMBER = "checkpoint-%d.h5"  # as the driver numbers them
INDEX = "run.json"


def split(run: RunFolder, folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write what `join` needs of a run into `folder`, in place of what is there of an older one.

    Raises: CheckpointError if the checkpoint does not fit into so many parts.
    """
    contents = np.frombuffer(run.last.read_bytes(), np.uint8)
    if contents.size > (PARTS - 0.1) * part_bytes:  # HDF5 adds a few kB
        raise CheckpointError(
            f"{run.last}: {contents.size} bytes do not fit into {PARTS} parts of {part_bytes}; use larger parts",
            path=run.last,
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(MEMBER.replace("%d", "*")):
        old.unlink()
    with h5py.File(folder / MEMBER, "w", driver="family", memb_size=part_bytes) as file:
        file.create_dataset("checkpoint", data=contents)
    parts = [folder / (MEMBER % k) for k in range(PARTS) if (folder / (MEMBER % k)).exists()]
    index = {
        "part_bytes": part_bytes,
        "parts": {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts},
        "config": run.config_file.read_text(encoding="utf-8"),
        "versions": run.versions_file.read_text(encoding="utf-8"),
        "metrics": run.metrics.read_text(encoding="utf-8") if run.metrics.exists() else "",
    }
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return [*parts, folder / INDEX]


def join(folder: Path, path: Path, data_dir: str | None = None) -> RunFolder:
    """Make the run folder `path` from the parts in `folder`; its data are in `data_dir` now.

    Raises: CheckpointError for a part that is missing or damaged.
    """
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    for name, digest in index["parts"].items():
        part = folder / name
        if not part.exists() or hashlib.sha256(part.read_bytes()).hexdigest() != digest:
            state = "damaged" if part.exists() else "missing"
            raise CheckpointError(
                f"{part}: {state}; all of {', '.join(index['parts'])} are needed", path=part
            )
    with h5py.File(folder / MEMBER, "r", driver="family", memb_size=index["part_bytes"]) as file:
        contents = file["checkpoint"][()].tobytes()
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.last.write_bytes(contents)
    run.config_file.write_text(index["config"], encoding="utf-8")
    run.config_file.write_text(to_toml(replace(run.config(), data_dir=data_dir)), encoding="utf-8")
    run.versions_file.write_text(index["versions"], encoding="utf-8")
    if index["metrics"]:
        run.metrics.write_text(index["metrics"], encoding="utf-8")
    return run
