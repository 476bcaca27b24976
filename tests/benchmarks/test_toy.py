"""Every benchmark runs at toy size and prints results that can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = {
    "epoch": 1,
    "fusion": 6 if find_spec("numba") else 3,
    "independent": 2,
    "iteration": 6,
    "memory": 10,
    "norm_cost": 4,
    "optimizers": 7 if find_spec("numba") else 5,
    "plain_solve": 2,
    "replay": 2,
    "tiled": 4,
}


@pytest.mark.parametrize("name", LINES)
def test_a_benchmark_prints_one_json_line_a_result(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--toy"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(lines) == LINES[name]
    for line in lines:
        assert {"benchmark", "sizes", "dtype", "module", "device", "median_s", "spread", "machine"} <= set(
            line
        )
        assert line["benchmark"] == name and line["median_s"] > 0


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl"))
        if path.stem != "work_precision-cpu"
    ],
    ids=lambda p: p.name,
)
def test_stored_results_can_be_read(path):
    for line in path.read_text().splitlines():
        record = json.loads(line)
        seconds = "seconds_per_epoch" if record["benchmark"] == "training" else "median_s"
        assert record[seconds] > 0 and record["machine"]


def test_all_of_them_write_results_and_a_table(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--toy", "--only", "replay", "--out", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    (found,) = tmp_path.glob("*.json")
    content = json.loads(found.read_text())
    assert len(content["lines"]) == LINES["replay"] and content["gemm_gflops"]["float32"] > 0
    assert found.with_suffix(".md").read_text().count("\n| f") == 2
