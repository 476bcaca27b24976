"""Solutions in files: what is written is what is read, and anything else is refused with one error."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from odegrad import grad, odeint
from odegrad.engine.errors import ArgumentTypeError, SolutionFileError, StepSizeUnderflow
from odegrad.solvers import Solution
from solving import same_bits

TS = np.array([0.0, 0.4, 1.0])
STATES = {
    "array": np.ones((2, 3)),
    "0-d": np.array(1.0),
    "float32": np.ones(2, np.float32),
    "complex": np.ones(2, complex),
    "empty": np.ones((0, 2)),
    "tree": {"b": [np.ones(2), (np.ones(1), None)], "a": np.ones((1, 2))},
}


def decay(t, y):
    """A tree of -y."""
    if isinstance(y, dict):
        return {key: decay(t, value) for key, value in y.items()}
    if isinstance(y, (list, tuple)):
        return type(y)(decay(t, value) for value in y)
    return None if y is None else -y


def saved(tmp_path, solution):
    solution.save(tmp_path / "solution.h5")
    return Solution.load(tmp_path / "solution.h5")


@pytest.mark.parametrize("state", STATES)
def test_times_and_states_come_back_to_the_bit(tmp_path, state):
    sol = odeint(decay, STATES[state], TS)
    read = saved(tmp_path, sol)
    assert same_bits([read.ts, read.grid, read.ys], [sol.ts, sol.grid, sol.ys])


def test_the_structure_and_dtype_of_the_state_come_back(tmp_path):
    read = saved(tmp_path, odeint(decay, STATES["tree"], TS)).ys
    assert list(read) == ["b", "a"] and read["b"][1][1] is None and isinstance(read["b"][1], tuple)


def test_counts_and_status_come_back(tmp_path):
    sol = odeint(decay, np.ones(2), TS)
    read = saved(tmp_path, sol)
    assert read.stats == sol.stats and read.status == "finished"


def test_the_counts_of_each_row_come_back(tmp_path):
    sol = odeint(lambda t, y: -y * y, np.array([[1.0], [30.0]]), TS, independent=True)
    read = saved(tmp_path, sol).stats
    assert same_bits([read.nfe_of_rows, read.n_accepted_of_rows, read.n_rejected_of_rows],
                     [sol.stats.nfe_of_rows, sol.stats.n_accepted_of_rows, sol.stats.n_rejected_of_rows])  # fmt: skip
    assert read.nfe_of_rows[1] > read.nfe_of_rows[0] and str(read) == str(sol.stats)


def test_aux_comes_back(tmp_path):
    sol = odeint(lambda t, y: (-y, {"mean": np.mean(y)}), np.ones(2), TS, has_aux=True)
    read = saved(tmp_path, sol).aux
    assert same_bits([read.ts, read.values], [sol.aux.ts, sol.aux.values])


@pytest.mark.parametrize("options", [{}, {"jump_ts": [0.3]}, {"method": "rk4", "step_size": 0.1}], ids=str)
@pytest.mark.parametrize("ts", [TS, TS[::-1]], ids=["forward", "backward"])
def test_dense_output_comes_back_to_the_bit(tmp_path, ts, options):
    sol = odeint(decay, {"a": np.ones((2, 3))}, ts, dense=True, **options)
    read, t = saved(tmp_path, sol).dense, np.linspace(0.0, 1.0, 17)
    assert same_bits([read(t), read.derivative(t)], [sol.dense(t), sol.dense.derivative(t)])


def test_a_partial_solution_can_be_saved(tmp_path):
    with pytest.raises(StepSizeUnderflow) as caught:
        odeint(lambda t, y: y * y, 2.0 * np.ones(1), TS)
    read = saved(tmp_path, caught.value.solution)
    assert read.status == "StepSizeUnderflow" and np.array_equal(read.ts, TS[:2])


def test_saving_replaces_a_file_at_once(tmp_path):
    first, second = odeint(decay, np.ones(2), TS), odeint(decay, 2.0 * np.ones(3), TS)
    saved(tmp_path, first)
    assert same_bits(saved(tmp_path, second).ys, second.ys)
    assert [path.name for path in tmp_path.iterdir()] == ["solution.h5"]


def test_a_file_that_cannot_be_written_is_left_as_it_is(tmp_path):
    sol = odeint(decay, np.ones(2), TS)
    with pytest.raises(OSError):
        sol.save(tmp_path / "no such folder" / "solution.h5")


def test_a_traced_solution_is_not_saved(tmp_path):
    def loss(y):
        sol = odeint(decay, y, TS)
        sol.save(tmp_path / "solution.h5")
        return np.sum(sol.ys)

    with pytest.raises(ArgumentTypeError, match="save it outside of the transform"):
        grad(loss)(np.ones(2))


def test_keys_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(ArgumentTypeError, match=r"text as keys of its dicts; got \[1\]"):
        odeint(decay, {1: np.ones(2)}, TS).save(tmp_path / "solution.h5")


# --- files of another kind --------------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(SolutionFileError, match="no solution there"):
        Solution.load(tmp_path / "solution.h5")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file(tmp_path, share):
    path = tmp_path / "solution.h5"
    odeint(decay, np.ones(200), TS, dense=True).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SolutionFileError, match="truncated, damaged, or no solution"):
        Solution.load(path)


@pytest.mark.parametrize("data", [b"", b"text", b"\x89HDF\r\n\x1a\n" + bytes(500), bytes(range(256)) * 9])
def test_a_foreign_file(tmp_path, data):
    path = tmp_path / "solution.h5"
    path.write_bytes(data)
    with pytest.raises(SolutionFileError, match=f"no solution written by `sol.save` .{len(data)} bytes"):
        Solution.load(path)


def test_a_foreign_hdf5_file(tmp_path):
    path = tmp_path / "solution.h5"
    with h5py.File(path, "w") as file:
        file["ts"] = np.arange(3.0)
    with pytest.raises(SolutionFileError, match="no solution written by"):
        Solution.load(path)


def test_a_changed_number(tmp_path):
    path = tmp_path / "solution.h5"
    odeint(decay, np.ones(2), TS).save(path)
    with h5py.File(path, "r+") as file:
        file["ys/0"][0, 0] = 2.0
    with pytest.raises(SolutionFileError, match="its numbers are not those that were written"):
        Solution.load(path)


def test_a_file_of_a_later_version(tmp_path):
    path = tmp_path / "solution.h5"
    odeint(decay, np.ones(2), TS).save(path)
    with h5py.File(path, "r+") as file:
        text = file["header"][()].tobytes().replace(b'"schema": 1', b'"schema": 9')
        del file["header"]
        file["header"] = np.frombuffer(text, np.uint8)
    with pytest.raises(SolutionFileError, match="schema 9; this version reads 1"):
        Solution.load(path)
