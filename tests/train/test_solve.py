"""`odegrad solve`: what is solved, what is drawn, and what is said of mistakes."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from odegrad import odeint
from odegrad.engine.errors import ArgumentError
from odegrad.train.solve import PROBLEMS, named_problem
from odegrad.train.solve.pictures import draw_solution, draw_steps, draw_work_precision
from odegrad.train.solve.registry import reference
from odegrad.train.solve.report import report
from odegrad.train.solve.run import fine_times, solve
from odegrad.train.solve.work_precision import Point
from training import call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("solve")
    return folder, report(PROBLEMS["B1"], folder, rtols=(1e-3, 1e-5))


def test_a_solve_is_summed_up(folder):
    path, found = folder
    sol = odeint(PROBLEMS["B1"].f, PROBLEMS["B1"].y0, PROBLEMS["B1"].ts, rtol=1e-6, atol=1e-6)
    assert (found["nfe"], found["accepted"], found["rejected"]) == (
        sol.stats.nfe,
        sol.stats.n_accepted,
        sol.stats.n_rejected,
    )
    assert found["method"] == "dopri5" and 0 < found["error"] < 1e-4
    stored = json.loads((path / "solve.json").read_text())
    np.testing.assert_allclose(stored["y_end"], sol.ys[-1], rtol=1e-12)


@pytest.mark.parametrize("stem", ["solution", "steps", "work_precision"])
def test_pictures_are_png_and_svg(folder, stem):
    path, found = folder
    assert (path / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(path / f"{stem}.svg").getroot().tag.endswith("svg")
    assert {str(path / f"{stem}.png"), str(path / f"{stem}.svg")} <= set(found["pictures"])


def test_the_diagram_has_scipy_beside_it(folder):
    path, _ = folder
    points = json.loads((path / "solve.json").read_text())["work_precision"]
    assert [p["solver"] for p in points] == ["odegrad dopri5", "scipy RK45"] * 2


def test_the_error_is_the_distance_to_the_stored_solution():
    run = solve(PROBLEMS["A1"], "bosh3", 1e-4)
    at_outputs = np.isin(run.ts, PROBLEMS["A1"].ts)
    difference = (run.ys[at_outputs] - reference(PROBLEMS["A1"]))[1:]
    assert run.error == pytest.approx(float(np.sqrt(np.mean(difference**2))), rel=1e-12)


def test_every_attempt_is_written_down():
    run = solve(PROBLEMS["E3"], "dopri5", 1e-5)
    accepted = [step for step in run.attempts if step.is_accepted]
    assert len(accepted) == run.stats.n_accepted
    assert len(run.attempts) - len(accepted) == run.stats.n_rejected > 0
    np.testing.assert_allclose(sum(step.h for step in accepted), 20.0, rtol=1e-12)


def test_output_times_are_among_those_drawn():
    ts = PROBLEMS["robertson"].ts
    fine = fine_times(ts)
    assert np.isin(ts, fine).all() and (np.diff(fine) > 0).all()


@pytest.mark.parametrize(
    ("name", "method"),
    [("C4", "bosh3"), ("pleiades", "dop853"), ("robertson", None), ("D1-mirrored", "rk4")],
)
def test_every_kind_of_problem_can_be_drawn(tmp_path, name, method):
    found = report(named_problem(name), tmp_path, method, rtol=1e-4, rtols=())
    assert len(found["pictures"]) == 4 and found["error"] < 0.1


def test_solvers_that_failed_leave_a_diagram(tmp_path):
    failed = [Point("A1", "none", 1e-3, 0, float("nan"), "TooManySteps")]
    draw_work_precision(failed, "A1", tmp_path / "empty")
    assert "nothing measured" in (tmp_path / "empty.svg").read_text() or (tmp_path / "empty.png").exists()


def test_accepted_and_rejected_steps_are_counted_in_the_picture(tmp_path, monkeypatch):
    labels = []
    run = solve(PROBLEMS["E3"], "dopri5", 1e-5)
    import matplotlib.axes

    plot = matplotlib.axes.Axes.plot
    monkeypatch.setattr(
        matplotlib.axes.Axes,
        "plot",
        lambda self, *args, **named: labels.append(named.get("label")) or plot(self, *args, **named),
    )
    draw_steps(run, tmp_path / "steps")
    assert {f"accepted ({run.stats.n_accepted})", f"rejected ({run.stats.n_rejected})"} <= set(labels)
    assert draw_solution(run, tmp_path / "solution")


def test_the_command_prints_one_json_object(tmp_path, capsys):
    code, out, err = call(capsys, "solve", "A1", "--rtols", "1e-3", "--out", str(tmp_path / "a1"), "--json")
    assert code == 0 and json.loads(out)["problem"] == "A1"
    assert "solve of A1 in" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lorentz"], "did you mean 'lorenz'"),
        (["A1", "--method", "dopri"], "Did you mean 'dopri5'"),
        (["kepler", "--method", "leapfrog"], "systems of first order"),
        (["A1", "--rtol", "-1"], "`rtol` must be a positive number"),
        (["A1", "--rtols", "2"], "`rtols` must be tolerances in (0, 1); got 2.0"),
        (["A1", "--step-size", "0.1"], "`step_size` is for methods with fixed steps"),
        (["A1", "--rtoll", "1e-3"], "did you mean --rtol"),
        (["A1", "B1"], "got more than it takes"),
    ],
)
def test_wrong_questions_are_refused(tmp_path, capsys, words, message):
    code, out, err = call(capsys, "solve", *words, "--out", str(tmp_path / "out"))
    assert code == 2 and message in err and not out
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="is a file"):
        report(PROBLEMS["A1"], tmp_path / "file", rtols=())


def test_a_solve_that_fails_is_an_error_of_its_own(tmp_path, capsys):
    """Euler steps of half a unit leave Lorenz's attractor for infinity."""
    words = ["lorenz", "--method", "euler", "--step-size", "0.5", "--out", str(tmp_path / "out")]
    code, _, err = call(capsys, "solve", *words)
    assert code == 1 and "non-finite" in err


def test_a_method_of_fixed_steps_makes_the_steps_it_was_given():
    run = solve(PROBLEMS["A1"], "rk4", 1e-6, step_size=0.25)
    assert [step.h for step in run.attempts] == [0.25] * 80
    np.testing.assert_allclose(run.ys[:, 0], np.exp(-run.ts), rtol=0, atol=1e-4)
