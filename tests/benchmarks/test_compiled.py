"""The benchmark of compiled solves runs at toy size, where numba is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the jit extra is not installed")
ROOT = Path(__file__).parents[2]


def test_it_prints_one_json_line_a_method(tmp_path):
    command = [sys.executable, "-m", "benchmarks.compiled", "--toy"]
    environment = {**os.environ, "ODEGRAD_CACHE_DIR": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["problem"] for line in lines} == {"spiral", "lorenz"}
    for line in lines:
        keys = {"benchmark", "sizes", "dtype", "module", "device", "median_s", "spread", "machine"}
        assert keys <= set(line) and line["benchmark"] == "compiled" and line["median_s"] > 0
