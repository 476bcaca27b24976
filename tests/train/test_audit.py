"""`odegrad audit`: the references are right, the table says what was measured, wrong things are named."""

import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError, ArgumentTypeError
from odegrad.train import audit as audits
from odegrad.train.audit import Reference, measure, named_problem, reference
from odegrad.train.audit.report import audit, cheapest
from odegrad.train.audit.sources import problem_of
from oracles import central_difference
from scipy.linalg import expm
from training import call, tiny, train

measuring = sys.modules["odegrad.train.audit.measure"]  # the package has a function of this name
GRADIENTS = ("discrete", "tape", "backsolve", "interpolated", "reversible")
FLOAT64 = np.dtype(np.float64)


def linear_loss(part, entry, value):
    """Half the sum of squares of exp(A (t - ts[0])) y0 at all output times, an entry of them changed."""
    case = named_problem("linear").build(FLOAT64)
    given = {"y0": case.y0.copy(), "params": case.params.copy(), "ts": case.ts.copy()}
    given[part].flat[entry] = value
    y0, matrix, ts = given.values()
    return 0.5 * sum(((expm(matrix * (t - ts[0])) @ y0) ** 2).sum() for t in ts)


@pytest.mark.parametrize(("part", "size"), [("y0", 3), ("params", 9), ("ts", 3)])
def test_the_closed_form_is_the_derivative_of_the_exact_solution(part, size):
    problem = named_problem("linear")
    case = problem.build(FLOAT64)
    at = {"y0": case.y0, "params": case.params, "ts": case.ts}[part]
    expected = [
        float(central_difference(lambda x, k=k: np.float64(linear_loss(part, k, x)), [at.flat[k]], [1.0]))
        for k in range(size)
    ]
    np.testing.assert_allclose(np.ravel(problem.closed_form()[part]), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["spiral", "tabn-train"])
def test_a_reference_is_sure_of_itself(name):
    assert reference(named_problem(name)).uncertainty < 1e-10


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_errors_of_the_linear_problem_follow_the_tolerance(gradient, rtol):
    problem = named_problem("linear")
    (row,) = measure(problem, reference(problem), [gradient], [rtol], ["float64"])
    assert row.error < 100 * rtol
    assert row.evaluations >= row.nfe_forward + row.nfe_backward > 0


def test_a_wrong_gradient_has_its_error():
    """Against a reference that is twice the gradient, half of it is missing."""
    problem = named_problem("linear")
    truth = reference(problem)
    doubled = Reference(truth.loss, {name: 2 * part for name, part in truth.gradient.items()}, 0.0, "doubled")
    (row,) = measure(problem, doubled, ["discrete"], [1e-9], ["float64"])
    assert row.error == pytest.approx(0.5, rel=1e-6)
    assert (row.error_y0, row.error_params, row.error_ts) == pytest.approx((0.5, 0.5, 0.5), rel=1e-6)


def test_tolerances_below_the_precision_are_left_out():
    problem = named_problem("linear")
    rows = measure(problem, reference(problem), ["discrete"], [1e-3, 1e-9], ["float32"])
    assert [row.rtol for row in rows] == [1e-3]


@pytest.fixture(scope="module")
def lorenz(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lorenz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "MOST_STEPS", 4_000)  # the way back fails sooner
        found = audit(named_problem("lorenz"), folder, ("discrete", "backsolve"), (1e-3, 1e-5), ("float64",))
    return folder, found


def test_a_method_that_fails_is_a_row_and_said(lorenz):
    folder, found = lorenz
    rows = json.loads((folder / "audit.json").read_text())
    failed = [row for row in rows if row["failure"]]
    assert found["failures"] == len(failed) > 0
    assert {row["gradient"] for row in failed} == {"backsolve"}
    assert "* `backsolve` refused at rtol 0.001" in (folder / "audit.md").read_text()


def test_the_page_has_a_row_for_each_measurement(lorenz):
    folder, _ = lorenz
    page = (folder / "audit.md").read_text()
    assert page.count("\n| `discrete` |") == 2
    assert page.count("\n| `backsolve` |") == 2


@pytest.mark.parametrize("stem", ["errors", "costs"])
def test_pictures_are_png_and_svg(lorenz, stem):
    folder, _ = lorenz
    assert (folder / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(folder / f"{stem}.svg").getroot().tag.endswith("svg")


def test_the_cheapest_method_is_that_of_the_fewest_evaluations():
    problem = named_problem("linear")
    rows = measure(problem, reference(problem), ["discrete", "backsolve"], [1e-3, 1e-6], ["float64"])
    reached = [row for row in rows if row.error <= 1e-4]
    best = min(reached, key=lambda row: row.evaluations)
    assert cheapest(rows, 1e-4) == f"{best.gradient} at rtol 1e-06 ({best.evaluations} evaluations)"
    assert cheapest(rows, 1e-14) is None


FILE = """
import numpy as np
def f(t, y, params):
    return {"x": y["v"], "v": -params["k"] * y["x"]}
y0 = {"x": np.ones(2), "v": np.zeros(2)}
ts = [0.0, 1.0]
params = {"k": np.array([1.0, 4.0])}
"""


def test_a_python_file_is_audited(tmp_path, capsys):
    """x = cos(sqrt(k) t): the gradient of half the squares of x and v at t = 0 and 1."""
    (tmp_path / "pendulum.py").write_text(FILE)
    flags = [
        "--rtols",
        "1e-8",
        "--dtypes",
        "float64",
        "--gradients",
        "discrete",
        "--out",
        str(tmp_path / "out"),
    ]
    code, out, _ = call(capsys, "audit", str(tmp_path / "pendulum.py"), *flags, "--json")
    assert code == 0 and json.loads(out)["failures"] == 0
    truth = reference(problem_of(str(tmp_path / "pendulum.py"), "train", 1))
    w = np.array([1.0, 2.0])
    by_w = -np.cos(w) * np.sin(w) + w * np.sin(w) ** 2 + w**2 * np.sin(w) * np.cos(w)
    np.testing.assert_allclose(truth.gradient["params"], by_w / (2 * w), rtol=1e-9)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("spirals", "did you mean 'spiral'"),
        ("nothing.py", "no file 'nothing.py'"),
    ],
)
def test_an_unknown_target_is_named(capsys, target, message):
    code, _, err = call(capsys, "audit", target)
    assert code == 2 and message in err


def test_a_file_without_its_parts_is_named(tmp_path):
    (tmp_path / "a.py").write_text("y0 = 1.0\n")
    with pytest.raises(ArgumentError, match=r"defines no f, ts, params"):
        problem_of(str(tmp_path / "a.py"), "train", 1)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_ode_of_a_run_is_audited(tmp_path, mode):
    run, _ = train(tiny(tmp_path, epochs=1))
    problem = problem_of(str(run.path), mode, 4)
    assert "that the run was trained with play no part" in problem.about
    truth = reference(problem)
    assert 0 < truth.uncertainty < 0.05  # ReLU has kinks wherever the state takes it
    (row,) = measure(problem, truth, ["discrete"], [1e-6], ["float64"])
    assert row.error_params < 0.05 and row.error_y0 < 0.05


def test_what_the_package_offers_is_there():
    assert all(hasattr(audits, name) for name in audits.__all__)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gradients", "discret"], "did you mean 'discrete'"),
        (["--rtols", "2.0"], r"`rtols` must be tolerances in (0, 1); got 2.0"),
        (["--rtols", "1e-3", "abc"], "`--rtols` takes numbers such as 1e-3 1e-6; got 1e-3, abc"),
        (["--rtols", "1e-20"], "all `rtols` lie below 10 times the precision"),
    ],
)
def test_wrong_questions_are_refused(tmp_path, capsys, flags, message):
    code, _, err = call(capsys, "audit", "linear", "--out", str(tmp_path / "out"), *flags)
    assert code == 2 and message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f = 1 / 0\n", "line 1: ZeroDivisionError"),
        ("x = (\n", "line 1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
        (FILE + "loss = 3.0\n", "`loss` must be a function; got 3.0"),
        (FILE + "ts = ['a', 'b']\n", "`ts` must be an array of real times"),
        (
            FILE + "y0 = {'x': np.ones(2, int), 'v': np.zeros(2)}\n",
            "`y0` of real floating-point arrays; got int64",
        ),
        (FILE + "loss = lambda ys: 0.0 * ys['x'].sum()\n", "the gradient is zero"),
        (FILE + "f = lambda t, y, p: {'x': y['x'] ** 2, 'v': y['v']}\n", "the reference solve .* failed"),
        (FILE + "f = lambda t, y, p: p['mass'] * y['x']\n", r"a\.py, line 8: KeyError: 'mass'"),
        (FILE + "f = lambda t, y, p: y if y['x'][0] > 0 else y\n", r"a\.py, line 8: "),
        (FILE + "def loss(ys):\n    return ys['z'].sum()\n", r"a\.py, line 9: KeyError: 'z'"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        reference(problem_of(str(tmp_path / "a.py"), "train", 1))


def test_a_mistake_inside_f_is_the_user_s(tmp_path, capsys):
    (tmp_path / "a.py").write_text(FILE + "f = lambda t, y, p: p['mass'] * y['x']\n")
    code, _, err = call(capsys, "audit", str(tmp_path / "a.py"), "--out", str(tmp_path / "out"))
    assert code == 2 and "a.py, line 8: KeyError: 'mass'" in err


def test_a_file_imports_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_a.py").write_text("number = 2.0\n")
    (tmp_path / "a.py").write_text("import neighbour_of_a\n" + FILE + "ts = [0.0, neighbour_of_a.number]\n")
    assert problem_of(str(tmp_path / "a.py"), "train", 1).build(FLOAT64).ts[-1] == 2.0


def test_a_page_is_written_though_every_method_failed(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "MOST_STEPS", 4_000)
        audit(named_problem("lorenz"), tmp_path, ("backsolve",), (1e-3,), ("float64",))
    assert "| `backsolve` | 1e-03 |" in (tmp_path / "audit.md").read_text()
