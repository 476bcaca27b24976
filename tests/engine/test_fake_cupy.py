"""The stand-in for CuPy refuses what CuPy refuses, counts what crosses, and offers nothing that CuPy has not."""

import inspect
import re

import fake_cupy as fake
import numpy as np
import pytest
from odegrad.engine import backend


@pytest.fixture
def x(fake_cupy):
    return fake_cupy.asarray(np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "use",
    [
        lambda x: np.asarray(x),
        lambda x: x + np.ones(3),
        lambda x: np.ones(3) + x,
        lambda x: np.add.reduce(x),
        lambda x: np.nanmax(x),
        lambda x: x.__setitem__(0, np.ones(3)),
        lambda x: x[np.array([0, 1])],
        lambda x: np.concatenate([x, np.ones((1, 3))]),
    ],
)
def test_host_and_device_do_not_mix(x, use):
    with pytest.raises(TypeError):
        use(x)


@pytest.mark.parametrize(
    "use",
    [lambda x: np.tanh(x), lambda x: np.concatenate([x, x]), lambda x: 2.0 * x, lambda x: np.float64(2) * x],
)
def test_functions_of_numpy_stay_on_the_device(x, use):
    assert isinstance(use(x), fake.ndarray)


@pytest.mark.parametrize(
    "read",
    [
        float,
        int,
        bool,
        complex,
        lambda x: x.item(),
        lambda x: x.tolist(),
        lambda x: x.get(),
        repr,
        "{}".format,
    ],
)
def test_every_way_to_look_at_a_value_is_a_read(fake_cupy, x, read):
    read(x.sum())
    assert fake_cupy.reads == 1


def test_a_reduction_is_an_array_and_no_read(fake_cupy, x):
    assert x.sum().shape == () and isinstance(x[0, 0], fake.ndarray) and fake_cupy.reads == 0


def test_the_backend_counts_the_same_crossings(fake_cupy, x):
    before, writes = backend.transfers(), fake_cupy.writes
    backend.to_host(x), backend.to_number(x.sum()), backend.to_xp(fake_cupy, np.ones(3))
    after = backend.transfers()
    assert (after.reads - before.reads, after.writes - before.writes) == (2, 1)
    assert (fake_cupy.reads, fake_cupy.writes - writes) == (2, 1)


def test_reads_of_the_package_beside_the_backend_are_listed(fake_cupy, x):
    exec(compile("float(x)", "x", "exec"), {"x": x.sum(), "__name__": "odegrad.somewhere"})
    assert fake_cupy.silent_reads.pop().startswith("odegrad.somewhere:")


def test_a_view_is_known_as_one(x):
    assert not x.T.flags.owndata and x[0].base is x and x.copy().flags.owndata


@pytest.mark.parametrize("name", fake.FUNCTIONS)
def test_functions_have_the_parameters_of_cupy(name):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    parameters = [word for word in fake.FUNCTIONS[name].split() if word != "*"]
    try:
        known = inspect.signature(getattr(cupy, name)).parameters
    except ValueError:  # a function in C without a signature
        return
    is_open = any(p.kind is p.VAR_KEYWORD for p in known.values())
    assert is_open or set(parameters) <= set(known)


@pytest.mark.parametrize("name", fake.UFUNCS)
def test_ufuncs_are_ufuncs_of_cupy(name):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    assert isinstance(getattr(cupy, name), cupy.ufunc)


@pytest.mark.parametrize("name", fake.METHODS)
def test_methods_have_the_parameters_of_cupy(name):
    """Which CuPy writes in the first line of their texts."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    text = getattr(cupy.ndarray, name).__doc__.partition("\n")[0]
    known = set(re.findall(r"(\w+)[,=)]", text[text.index("(") :]))
    assert {word for word in fake.METHODS[name].split() if word != "*"} <= known


def test_a_mask_as_an_index_is_a_read(fake_cupy, x):
    assert x[x > 2.0].shape == (3,) and fake_cupy.reads == 1


def test_parameters_of_numpy_alone_are_refused(fake_cupy, x):
    for use in (
        lambda: x.max(initial=0.0),
        lambda: fake_cupy.sum(x, where=x > 0),
        lambda: np.exp(x, where=x > 0),
    ):
        with pytest.raises(TypeError):
            use()


def test_arrays_have_no_method_that_cupys_have_not():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    public = {name for name in dir(fake.ndarray) if not name.startswith("_")}
    assert public <= set(dir(cupy.ndarray))
