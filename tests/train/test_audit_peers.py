"""Other libraries beside ours: one problem is compared, refusals are rows, missing packages are said."""

import functools
import importlib
import importlib.util
import sys
import time

import numpy as np
import pytest
from odegrad.engine.errors import NeuralODEError
from odegrad.train.audit import PROBLEMS, measure, named_problem, reference
from odegrad.train.audit.peers import Peer, PeerFailure, installed, missing_packages, peers_of
from odegrad.train.audit.peers.peer import checked
from odegrad.train.audit.report import audit
from odegrad.train.audit.sources import file_problem

measuring = sys.modules["odegrad.train.audit.measure"]  # the package has a function of this name
FLOAT64 = np.dtype(np.float64)


class Exact(Peer):
    """A library that knows the gradient of the linear problem; it can be made to fail, wait or be wrong."""

    name = "exact"

    def __init__(self, *, fails=False, adds=0.0, waits=0.0, slope=1.0, loss=1.0):
        self.fails, self.adds, self.waits, self.of_slope, self.of_loss = fails, adds, waits, slope, loss

    def compile(self):
        pass

    def gradient(self, rtol, atol):
        time.sleep(self.waits)
        if self.fails:
            raise PeerFailure("no step is small enough")
        found = named_problem("linear").closed_form()
        return {part: np.ravel(found[part]) + self.adds for part in ("y0", "params")}

    def counts(self, rtol, atol):
        return {"nfe_forward": 1, "nfe_backward": 2, "n_vjp_state": 3, "n_vjp_params": 4}

    def slope(self, t, y):
        return self.of_slope * (named_problem("linear").build(FLOAT64).params @ y)

    def loss(self, ys):
        return self.of_loss * 0.5 * float((ys**2).sum())


def rows_of(monkeypatch, peer, rtols=(1e-3,)):
    monkeypatch.setattr(measuring, "peers_of", lambda problem, case, most_steps: [peer])
    problem = named_problem("linear")
    rows = measure(problem, reference(problem), ["discrete"], rtols, ["float64"], peers=True)
    return [row for row in rows if row.gradient == peer.name]


def test_a_peer_is_measured_as_we_are(monkeypatch):
    (row,) = rows_of(monkeypatch, Exact())
    assert row.error == 0.0 and np.isnan(row.error_ts)
    assert (row.evaluations, row.evaluations_backward) == (10, 9)


@pytest.mark.parametrize(("flaw", "said"), [({"fails": True}, "gave up: no step"), ({"adds": np.nan}, "NaN")])
def test_a_peer_that_fails_is_a_row(monkeypatch, flaw, said):
    (row,) = rows_of(monkeypatch, Exact(**flaw))
    assert said in row.failure and np.isnan(row.error)


def test_a_peer_that_was_slow_is_not_asked_for_more(monkeypatch):
    monkeypatch.setattr(measuring, "_PATIENCE", 0.01)
    monkeypatch.setattr(measuring, "_SLOW", 0.01)
    first, second = rows_of(monkeypatch, Exact(waits=0.02), rtols=(1e-3, 1e-4))
    assert not first.failure and second.failure.startswith("left out")


@pytest.mark.parametrize(
    ("flaw", "said"), [({"slope": 1 + 1e-9}, "another slope"), ({"loss": 1 + 1e-9}, "another loss")]
)
def test_a_peer_of_another_problem_is_refused(flaw, said):
    with pytest.raises(NeuralODEError, match=f"exact computes {said} than we do"):
        checked(Exact(**flaw), named_problem("linear").build(FLOAT64))


def test_a_peer_of_the_same_problem_is_not():
    peer = Exact()
    assert checked(peer, named_problem("linear").build(FLOAT64)) is peer


def page_of(tmp_path, problem, **options):
    audit(problem, tmp_path, ("discrete",), (1e-3,), ("float64",), **options)
    return (tmp_path / "audit.md").read_text()


def test_without_the_packages_the_page_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    page = page_of(tmp_path, named_problem("linear"), peers=True)
    assert "gradients of torchdiffeq and diffrax beside these: `pip install 'odegrad[peers]'`" in page


def test_nothing_is_said_of_peers_that_nobody_asked_for(tmp_path):
    assert "torchdiffeq" not in page_of(tmp_path, named_problem("linear"))


def test_a_file_has_no_peers(tmp_path):
    (tmp_path / "a.py").write_text(
        "import numpy as np\nf = lambda t, y, p: p * y\ny0 = p = params = np.ones(2)\nts = [0, 1]\n"
    )
    problem = file_problem(str(tmp_path / "a.py"))
    assert list(peers_of(problem, problem.build(FLOAT64), 10)) == []
    assert "on the named problems only" in page_of(tmp_path, problem, peers=True)


# What follows needs the packages themselves.


def needs(library):
    missing = library in missing_packages()
    return pytest.mark.skipif(missing, reason=f"needs {library} (pip install 'odegrad[peers]')")


LIBRARIES = [pytest.param(library, marks=needs(library)) for library in installed.PACKAGES]


@functools.cache
def all_peers(library, name, dtype):
    problem = named_problem(name)
    makers = importlib.import_module(f"odegrad.train.audit.peers.{library}_peer")
    case = problem.build(np.dtype(dtype))
    return case, list(getattr(makers, f"{library}_peers")(problem.portable, case, 20_000))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_named_problem_is_the_same_in_each_library(library, name, dtype):
    case, peers = all_peers(library, name, dtype)
    assert checked(peers[0], case) is peers[0]


@pytest.mark.parametrize("library", LIBRARIES)
def test_all_their_gradients_approach_the_closed_form(library):
    problem = named_problem("linear")
    truth = problem.closed_form()
    _, peers = all_peers(library, "linear", "float64")
    for peer in peers:
        found = peer.gradient(1e-9, 1e-9)
        for part, value in found.items():
            assert np.linalg.norm(value - np.ravel(truth[part])) < 1e-6 * np.linalg.norm(truth[part]), (
                peer.name,
                part,
            )


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_way_back_of_a_continuous_adjoint_pulls_back_at_each_evaluation(library):
    """torchdiffeq evaluates f once more at each output time but the first, for its cotangent."""
    case, peers = all_peers(library, "linear", "float64")
    peer = peers[0]
    peer.gradient(1e-4, 1e-4)
    counts = peer.counts(1e-4, 1e-4)
    extra = len(case.ts) - 1 if library == "torchdiffeq" else 0
    assert counts["nfe_backward"] == counts["n_vjp_state"] + extra > 0
    assert counts["n_vjp_state"] == counts["n_vjp_params"]


@needs("diffrax")
def test_diffrax_spends_six_evaluations_a_step_and_one_at_the_start():
    """The number of steps times that is what callbacks count in a solve without the way back."""
    import jax
    from odegrad.train.audit.peers import diffrax_solve
    from odegrad.train.audit.peers.diffrax_peer import JAX

    _, (peer, *_) = all_peers("diffrax", "linear", "float64")
    loss = diffrax_solve.loss_by(diffrax_solve.counted, peer.portable, JAX, "backsolve", 1000)
    diffrax_solve.COUNTS.clear()
    _, n_steps = jax.block_until_ready(jax.jit(loss)(*peer.given, 1e-5, 1e-5))
    jax.effects_barrier()
    assert diffrax_solve.COUNTS["f"] == 6 * int(n_steps) + 1
