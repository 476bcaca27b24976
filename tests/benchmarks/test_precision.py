"""The benchmark of rounded products at toy size."""

import json
import subprocess
import sys
from pathlib import Path


def test_it_prints_a_solve_and_a_gradient():
    command = [sys.executable, "-m", "benchmarks.precision", "--toy"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    solve, gradient = (json.loads(line) for line in done.stdout.splitlines())
    assert solve["fp32"]["off"] == 0.0 < solve["tf32"]["off"] < solve["bf16"]["off"]
    assert 0.0 < gradient["tf32"]["off"] < gradient["bf16"]["off"]
