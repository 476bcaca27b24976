"""A run's folder: resolved configuration, versions, metrics, checkpoints and pictures,
each under a fixed name.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.atomic import replace_file
from ..engine.backend import device_versions
from ..engine.errors import CheckpointError, ConfigError
from .config import TrainConfig, load_toml, to_toml


@dataclass(frozen=True)
class RunFolder:
    """Where the files of one run are."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration: with it, `odegrad train --config` repeats the run."""
        return self.path / "config.toml"

    @property
    def versions_file(self) -> Path:
        """What the run was made with, beyond its configuration."""
        return self.path / "versions.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """The newest checkpoint, from which the run is resumed."""
        return self.path / "last.h5"

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest validation loss."""
        return self.path / "best.h5"

    @property
    def pictures(self) -> Path:
        """The folder of PNG files."""
        return self.path / "pictures"

    def config(self) -> TrainConfig:
        """The configuration of the run; ConfigError if the file was damaged or written by another version."""
        return load_toml(self.config_file)

    def version_changes(self) -> list[str]:
        """What differs now from what the run was started with;
        a resumed run is then not the same bit for bit.

        Raises: CheckpointError if the file was damaged.
        """
        try:
            then = json.loads(self.versions_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{self.versions_file}: not JSON: {error}", path=self.path) from error
        if not isinstance(then, dict):
            raise CheckpointError(f"{self.versions_file}: not a JSON object: {then!r}", path=self.path)
        now = versions(self.config().device)
        return [
            f"{name}: {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]
        ]


def create(config: TrainConfig, root: str | os.PathLike[str] = "runs") -> RunFolder:
    """Make the folder of a new run, with its configuration and versions in it.

    The folder is `config.out`, or the first free number of root/<dataset>-<network>-<norm>-001, -002, ...
    Raises: ConfigError if `config.out` is there and not an empty folder; ArgumentError, before anything is
        made, where there is no such device; OSError.
    """
    found = json.dumps(versions(config.device), indent=2)
    path = _claim(Path(config.out)) if config.out is not None else _claim_number(config, Path(root))
    run = RunFolder(path)
    run.pictures.mkdir()
    replace_file(run.versions_file, [(found + "\n").encode()])
    replace_file(run.config_file, [to_toml(config).encode()])
    return run


def find(path: str | os.PathLike[str]) -> RunFolder:
    """The run in the folder `path`; CheckpointError says what is missing there."""
    run = RunFolder(Path(path))
    if not run.path.is_dir():
        raise CheckpointError(f"no run folder {str(path)!r}.{_hint(run.path)}", path=run.path)
    needed = (run.config_file, run.versions_file, run.last)
    missing = [file.name for file in needed if not file.is_file()]
    if missing:
        raise CheckpointError(
            f"{path} is no run that can be used: {', '.join(missing)} missing. Give a folder that "
            "`odegrad train` made and that has got as far as its first checkpoint.",
            path=run.path,
        )
    return run


def discard_unused(run: RunFolder) -> None:
    """Remove the folder of a run that failed before it wrote a checkpoint or metrics,
    so that its name is free again.

    Only what `create` made is removed; with anything else in it the folder stays.
    """
    made = {run.config_file, run.versions_file, run.pictures}
    if set(run.path.iterdir()) <= made and not any(run.pictures.iterdir()):
        run.pictures.rmdir()
        run.config_file.unlink()
        run.versions_file.unlink()
        run.path.rmdir()


def versions(device: str = "cpu") -> dict[str, Any]:
    """Everything but the configuration that may change a result in its last bits;
    `device` is where a run computes.
    """
    from threadpoolctl import threadpool_info  # takes 0.02 s and looks at every loaded library, so only here

    libraries = {(pool["internal_api"], pool["version"], pool["num_threads"]) for pool in threadpool_info()}
    return {
        "odegrad": odegrad_version(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": sorted(f"{name} {version}: {threads} threads" for name, version, threads in libraries),
        **device_versions(device),
    }


def odegrad_version() -> str:
    """The version of the installed package."""
    try:
        return metadata.version("odegrad")
    except metadata.PackageNotFoundError:  # used from a source tree that is not installed
        return "not installed"


def _claim(path: Path) -> Path:
    """`path` as an empty folder of ours."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(
            f"`out` must be a new or empty folder; {str(path)!r} is a file", path=path
        ) from None
    if any(path.iterdir()):
        raise ConfigError(
            f"`out` must be a new or empty folder; {str(path)!r} holds files. Choose another, or continue that run "
            f"with `odegrad resume {path}`.",
            path=path,
        )
    return path


def _claim_number(config: TrainConfig, root: Path) -> Path:
    """A new numbered folder; `mkdir` fails for a taken name, so that two runs started at once differ."""
    root.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = root / f"{config.dataset}-{config.network}-{config.norm}-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("count() has no end")


def _hint(path: Path) -> str:
    """The nearest names in the folder that should hold `path`."""
    if not path.parent.is_dir():
        return f" Neither is there a folder {str(path.parent)!r}."
    runs = sorted(file.parent.name for file in path.parent.glob("*/config.toml"))
    close = difflib.get_close_matches(path.name, runs, n=1)
    if close:
        return f" Did you mean {str(path.parent / close[0])!r}?"
    return f" Runs in {str(path.parent)!r}: {', '.join(runs) or 'none'}."
