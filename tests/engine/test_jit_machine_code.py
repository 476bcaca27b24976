"""Kernels compiled by numba: the functions they call, whole programs, and what is kept on disk."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest
from kernel_texts import KernelTexts
from oracles import assert_close, norm

numba = pytest.importorskip("numba", reason="the jit extra is not installed")
from odegrad.engine import ops  # noqa: E402 - after the skip
from odegrad.engine.jit import disk, functions, machine_code  # noqa: E402

CALL = ctypes.CFUNCTYPE(None, ctypes.c_double, *[ctypes.c_void_p] * 7)
TYPES = [np.float32, np.float64]
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache folder of the test's own, and no kernels in memory."""
    monkeypatch.setenv(disk.FOLDER, str(tmp_path / "cache"))
    disk.cache_folder.cache_clear()
    machine_code.kernel.cache_clear()
    yield tmp_path / "cache"
    disk.cache_folder.cache_clear()
    machine_code.kernel.cache_clear()


def compiled(text, dtype):
    """The kernel as a function of a time and arrays."""
    kernel = machine_code.kernel(text, dtype)
    return lambda t, *arrays: CALL(kernel.address)(t, *(array.ctypes.data for array in arrays))


def of_array(name, dtype):
    """A function of kernels over a whole array, as the loop of a kernel calls it."""
    function = functions.functions_of(dtype)[name]

    @numba.njit
    def loop(x):
        return np.array([function(v) for v in x])

    return loop


@pytest.mark.parametrize("dtype", TYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize(("name", "units"), [("exp", 2), ("tanh", 4), ("sigmoid", 4), ("softplus", 4)])
def test_own_functions_are_accurate_everywhere(name, units, dtype):
    """Against NumPy in extended precision; sigmoid and softplus relative to what they are made of."""
    x = np.concatenate([s * np.geomspace(1e-30, 80.0, 4000) for s in (1, -1)]).astype(dtype)
    wide = x.astype(np.longdouble)
    exact = {
        "exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "softplus": lambda x: np.logaddexp(np.longdouble(0), x),
    }[name](wide)  # fmt: skip
    unit = np.finfo(dtype).eps * (np.maximum(exact, 0.5) if name == "sigmoid" else np.abs(exact))
    error = np.abs(of_array(name, dtype)(x).astype(np.longdouble) - exact)
    assert np.max(error / unit) <= units


@pytest.mark.parametrize("dtype", TYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ["exp", "tanh", "relu", "sign"])
def test_zeros_infinities_and_nan_are_numpys(name, dtype):
    x = np.array(SPECIAL, dtype)
    expected = {"exp": np.exp, "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "sign": np.sign}[name](x)
    assert np.array_equal(of_array(name, dtype)(x), expected, equal_nan=True)


@pytest.mark.parametrize("first", SPECIAL)
@pytest.mark.parametrize(("name", "ours"), [("maximum", np.maximum), ("minimum", np.minimum)])
def test_choices_pass_nan_on(name, ours, first):
    function = functions.functions_of(np.float64)[name]
    found = [function(first, second) for second in (1.0, math.nan, -math.inf)]
    assert np.array_equal(found, ours(first, [1.0, math.nan, -math.inf]), equal_nan=True)


def everything(t, y, w, b):
    """Each kind of loop that kernels consist of, with as few operations as possible."""
    x = np.tanh(y @ w + b) * np.exp(-t)
    rows = np.concatenate([x[:, ::2], np.where(x > y, x, -y)[:, :1]], axis=1)
    shares = ops.softmax(np.einsum("bi,ij,cj->bc", y, w, rows))
    return shares @ rows - x.mean(axis=0) + ops.relu(y) * np.max(y)


@pytest.mark.parametrize("dtype", TYPES, ids=lambda d: d.__name__)
def test_compiled_kernels_compute_what_their_program_does(dtype):
    rng = np.random.default_rng(3)
    y, ybar, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((4, 3), (4, 3), (3, 3), (3,)))
    texts = KernelTexts(everything, y, [w, b])
    expected = texts.joint.run([0.4, y, w, b, ybar], texts.hidden)
    found = texts.run(lambda text: compiled(text, dtype), 0.4, y, ybar)
    scale = norm(*expected)
    for result, wanted in zip(found, expected, strict=True):
        assert_close(result, wanted, scale=scale, tol=64 * float(np.finfo(dtype).eps))


TEXT = "def kernel(t, const, numbers, stage, work, given, result, params):\n    store(result, 0, d(t))\n    return"


def ran(text=TEXT):
    result = np.zeros(1)
    compiled(text, np.float64)(0.5, *[result] * 7)
    return result.item()


def test_machine_code_is_kept_in_the_folder(folder):
    assert ran() == 0.5 and len(list(folder.rglob("*.nbc"))) == 1


def test_kept_machine_code_is_not_compiled_again(folder, monkeypatch):
    ran()
    machine_code.kernel.cache_clear()

    def refuse(*args, **kwargs):
        raise AssertionError("compiled again")

    monkeypatch.setattr(numba.core.compiler, "compile_extra", refuse)
    assert ran() == 0.5


@pytest.mark.parametrize("damage", [b"", b"no pickle", None], ids=["empty", "text", "cut"])
def test_damaged_files_are_passed_over(folder, damage, caplog):
    ran()
    machine_code.kernel.cache_clear()
    for file in [*folder.rglob("*.nbi"), *folder.rglob("*.nbc")]:
        file.write_bytes(file.read_bytes()[:40] if damage is None else damage)
    assert ran() == 0.5


def test_a_changed_text_file_is_written_again(folder):
    ran()
    machine_code.kernel.cache_clear()
    (file,) = folder.glob("*.py")
    file.write_text("raise SystemExit")
    assert ran() == 0.5 and file.read_text() == TEXT


def test_a_folder_that_others_may_write_to_is_not_used(folder):
    folder.mkdir()
    folder.chmod(0o777)
    assert ran() == 0.5 and not list(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_done_without(folder):
    folder.parent.joinpath("cache").write_text("a file")
    assert ran() == 0.5 and folder.is_file()
