"""The work-precision study and the script behind the stored solutions run, and say what they should."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from odegrad.train.solve import PROBLEMS
from odegrad.train.solve.registry import reference

ROOT = Path(__file__).parents[2]


def lines_of(*words: str) -> list[dict]:
    result = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("study")
    words = (
        "--toy",
        "--groups",
        "order-5",
        "stiff",
        "--curves",
        str(folder / "curves.jsonl"),
        "--page",
        str(folder),
    )
    return folder, lines_of("benchmarks.work_precision", *words)


def test_there_is_a_line_for_each_problem_and_solver(study):
    _, lines = study
    found = {(line["problem"], line["method"]) for line in lines}
    assert {("A3", "odegrad dopri5"), ("A3", "scipy RK45")} <= found
    assert {("robertson", "odegrad kvaerno5"), ("robertson", "scipy Radau")} <= found


def test_every_curve_has_evaluations_and_errors(study):
    for line in study[1]:
        assert len(line["nfe"]) == len(line["error"]) == len(line["rtol"]) == 2
        assert not line["failures"] and all(0 < error < 1 for error in line["error"])


def test_the_page_has_tables_and_pictures(study):
    folder, _ = study
    page = (folder / "work_precision.md").read_text()
    assert "## Evaluations for equal errors, order-5" in page and "\n| A3 |" in page
    assert "## Evaluations for equal errors, stiff" in page and "\n| robertson |" in page


def test_a_run_is_continued(study):
    """Nothing is measured twice, so that no line is printed."""
    folder, _ = study
    words = ("--toy", "--groups", "order-5", "stiff", "--curves", str(folder / "curves.jsonl"))
    assert lines_of("benchmarks.work_precision", *words) == []


def test_the_page_is_made_again_from_what_is_stored(tmp_path):
    """Whatever peers are installed, and without measuring anything."""
    curves = shutil.copy(ROOT / "benchmarks" / "results" / "work_precision-cpu.jsonl", tmp_path)
    assert lines_of("benchmarks.work_precision", "--curves", str(curves), "--page", str(tmp_path)) == []
    made, stored = tmp_path / "work_precision.md", ROOT / "docs" / "solvers" / "work_precision.md"
    assert made.read_text() == stored.read_text()


@pytest.mark.skipif(
    np.finfo(np.longdouble).eps > 0.1 * np.finfo(float).eps, reason="no extended precision on this machine"
)
def test_stored_solutions_can_be_made_again(tmp_path):
    file = tmp_path / "references.npz"
    lines = lines_of("benchmarks.detest_references", "--only", "A3", "B5", "--out", str(file))
    assert all(line["uncertainty"] < 1e-15 for line in lines)
    with np.load(file) as stored:
        for name in ("A3", "B5"):
            np.testing.assert_allclose(stored[name], reference(PROBLEMS[name]), rtol=0, atol=1e-15)


def test_errors_at_the_same_tolerance_are_printed(tmp_path):
    words = ("--toy", "--pairs", "dopri5", "--page", str(tmp_path / "page.md"))
    lines = lines_of("benchmarks.same_tolerance", *words)
    assert [line["problem"] for line in lines] == ["A1", "A2"]
    assert all(len(line[kind]) == 2 for line in lines for kind in ("ratio", "mirrored", "pi"))
    assert "## dopri5 over SciPy's RK45" in (tmp_path / "page.md").read_text()


def test_seconds_an_evaluation_are_printed():
    lines = lines_of("benchmarks.small_systems", "--toy")
    assert [line["method"] for line in lines] == ["odegrad dopri5", "scipy RK45"] * 2
    assert all(line["us_per_nfe"] > 0 and line["nfe"] > 100 for line in lines)
