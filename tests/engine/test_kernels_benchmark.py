"""The benchmark of the convolution kernels runs at toy size."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_prints_a_json_line_for_each_derivative():
    command = [sys.executable, "-m", "benchmarks.conv", "--toy"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["op"] for line in lines] == ["forward", "input_grad", "weight_grad"]
    assert all(line["gflops"] > 0 and line["median_s"] > 0 for line in lines)
