"""Every benchmark in turn, into one file of results and one table.

    python -m benchmarks [--toy] [--threads N] [--only NAME ...] [--data-dir FOLDER] [--out FOLDER]

Runs the benchmarks each in a process of its own, keeps what they print as `<machine>-<date>.json` and writes the table
`<machine>-<date>.md` beside it: medians, spread, evaluations, memory, the ratio to each peer, and for matrix work the part
of the speed of a large matrix product, which is measured first. With the `peers` extra torchdiffeq and diffrax are
measured in the same runs, with the `jit` extra machine code; with the published files of MNIST in a folder, an epoch of it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from .measure import interleaved, processor_name

BENCHMARKS = (
    "replay",
    "iteration",
    "plain_solve",
    "conv",
    "norm_cost",
    "fusion",
    "memory",
    "independent",
    "tiled",
    "optimizers",
    "compiled",
    "epoch",
)
WITH_THREADS = ("iteration", "plain_solve", "norm_cost", "fusion", "tiled", "compiled", "epoch")
RESULTS = Path(__file__).parent / "results"
Line = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toy", action="store_true", help="each at toy size")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS and of PyTorch")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS, metavar="NAME")
    parser.add_argument("--data-dir", type=Path, help="folder with the published files of MNIST")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    given = parser.parse_args()
    peaks = {
        name: product_speed(name, given.threads, 128 if given.toy else 2048)
        for name in ("float32", "float64")
    }
    lines = []
    for name in given.only:
        reason = lacking(name, given)
        if reason:
            print(f"{name}: skipped, {reason}", flush=True)
        else:
            data = ["--data-dir", str(given.data_dir)] if name == "epoch" and given.data_dir else []
            lines += run(name, given.threads, *data, toy=given.toy)
    machine = processor_name().lower().replace(" ", "-")
    path = given.out / f"{machine}-{datetime.date.today().isoformat()}"
    given.out.mkdir(parents=True, exist_ok=True)
    content = {"gemm_gflops": peaks, "threads": given.threads, "lines": lines}
    path.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(content))
    print(path.with_suffix(".md"))


def product_speed(dtype: str, n_threads: int, size: int) -> float:
    """GFLOP/s of a product of two square matrices."""
    a = np.random.default_rng(0).standard_normal((size, size)).astype(dtype)
    out = np.empty_like(a)
    with threadpool_limits(n_threads):
        times = interleaved({"": lambda: np.matmul(a, a, out=out)}, seconds=0.5)[""]
    return round(2e-9 * size**3 / float(np.median(times)), 1)


def lacking(name: str, given: argparse.Namespace) -> str:
    """What a benchmark needs and there is not; empty if it can run."""
    if name == "compiled" and importlib.util.find_spec("numba") is None:
        return "numba is not installed"
    return "it needs --data-dir" if name == "epoch" and not (given.toy or given.data_dir) else ""


def run(name: str, n_threads: int, *words: str, toy: bool) -> list[Line]:
    """The lines of one benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *(["--toy"] if toy else []), *words]
    if name in WITH_THREADS:
        command += ["--threads", str(n_threads)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(n_threads)}
    print(name, flush=True)
    printed = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=RESULTS.parents[1]
    ).stdout
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def table(content: dict[str, Any]) -> str:
    """Markdown: a row a line, a section a benchmark."""
    peaks, lines = content["gemm_gflops"], content["lines"]
    parts = [
        f"# Benchmarks\n\n{content['threads']} threads; a large matrix product reaches {peaks['float32']} GFLOP/s in float32 "
        f"and {peaks['float64']} in float64. Ratios are medians of the same run, measured turn by turn.\n"
    ]
    for name in dict.fromkeys(line["benchmark"] for line in lines):
        parts.append(
            f"\n## {name}\n\n| what | seconds (spread) | NFE | memory | of the matrix product | time over that of |\n"
            "|---|---|---|---|---|---|\n"
        )
        parts += [_row(line, peaks) for line in lines if line["benchmark"] == name]
    return "".join(parts)


def _row(line: Line, peaks: dict[str, float]) -> str:
    told = "workload problem op method what x w stride length network sizes dtype".split()
    what = ", ".join(str(line[key]) for key in told if key in line)
    nfe = "+".join(str(line[key]) for key in ("nfe", "nfe_backward") if key in line)
    memory = f"{line['memory_mb']} MB" if "memory_mb" in line else _bytes(line.get("saved_bytes"))
    speed = f"{line['gflops'] / peaks[line['dtype']]:.0%}" if "gflops" in line else ""
    others = dict(line.get("time_over_that_of", {}))
    if "torch_median_s" in line:
        others["torch"] = round(line["median_s"] / line["torch_median_s"], 3)
    others |= {"no norm": line["over_none"]} if "over_none" in line else {}
    over = ", ".join(f"{peer} {ratio}" for peer, ratio in others.items())
    return (
        f"| {what} | {line['median_s']:.3g} ({line['spread']:.0%}) | {nfe} | {memory} | {speed} | {over} |\n"
    )


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count:,} B"


if __name__ == "__main__":
    main()
