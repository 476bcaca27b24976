"""Problems with a size: their names, and the page on which it grows."""

import json

import numpy as np
import pytest
from odegrad.train.audit import growing_problems, named_problem
from training import call

FLOAT64 = np.dtype(np.float64)


def test_a_number_after_lorenz_is_its_horizon():
    assert named_problem("lorenz-7.5").build(FLOAT64).ts.tolist() == [0.0, 7.5]


def test_a_number_after_van_der_pol_is_mu():
    assert named_problem("van-der-pol-40").build(FLOAT64).params.tolist() == [40.0]


def test_a_growing_problem_has_its_sizes_and_their_meaning():
    meaning, sizes, problems = growing_problems("lorenz-1,3,10")
    assert (meaning, sizes) == ("horizon", [1.0, 3.0, 10.0])
    assert [problem.name for problem in problems] == ["lorenz-1", "lorenz-3", "lorenz-10"]


@pytest.mark.parametrize("name", ["lorenz", "lorenz-3", "tabn-train", "runs/a,b", "a-1,2.py"])
def test_other_names_do_not_grow(name):
    assert growing_problems(name) is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lorenz-x", "must be a positive number; got 'x'"),
        ("lorenz-0", "must be a positive number; got '0'"),
        ("van-der-pol-inf", "must be a positive number; got 'inf'"),
        ("spiral-3", "did you mean 'spiral'"),
        ("lorenz-1,", "must be a positive number; got ''"),
        ("lorenz-3,1", "sizes must increase"),
        ("spiral-1,2", "only lorenz and van-der-pol have sizes"),
    ],
)
def test_a_wrong_size_is_refused(capsys, target, message):
    code, _, err = call(capsys, "audit", target)
    assert code == 2 and message in err


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Back over 2 units of time the oscillator grows like exp(2 mu): mu = 30 is too much, 0.1 is not."""
    from odegrad.train.audit import audit_growth

    folder = tmp_path_factory.mktemp("growth")
    growing = growing_problems("van-der-pol-0.1,30")
    found = audit_growth(*growing, folder, ("discrete", "backsolve"), (1e-4,), ("float64",))
    return folder, found


def test_the_page_shows_where_a_method_begins_to_refuse(page):
    folder, found = page
    (line,) = [
        line for line in (folder / "audit.md").read_text().splitlines() if line.startswith("| `backsolve`")
    ]
    small, large = line.split("|")[2:4]
    assert float(small.split()[0]) < 1e-2 and large.strip().endswith("Error")
    assert found["failures"] == 1


def test_the_page_has_the_error_of_the_reference(page):
    folder, _ = page
    last = (folder / "audit.md").read_text().splitlines()[-1]
    assert last.startswith("| error of the reference |")
    assert all(0 < float(cell) < 1e-8 for cell in last.split("|")[2:4])


def test_all_measurements_are_kept(page):
    folder, _ = page
    rows = json.loads((folder / "audit.json").read_text())
    assert [(row["problem"], row["gradient"]) for row in rows] == [
        (f"van-der-pol-{mu}", gradient) for mu in ("0.1", "30") for gradient in ("discrete", "backsolve")
    ]


def test_the_picture_is_there(page):
    folder, found = page
    assert found["pictures"] == [str(folder / "growth.png"), str(folder / "growth.svg")]
    assert (folder / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_it(tmp_path, capsys):
    flags = ["--rtols", "1e-3", "--dtypes", "float64", "--gradients", "discrete", "--no-peers"]
    code, out, _ = call(capsys, "audit", "lorenz-0.1,0.2", *flags, "--out", str(tmp_path), "--json")
    assert code == 0 and json.loads(out)["page"] == str(tmp_path / "audit.md")
