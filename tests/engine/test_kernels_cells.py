"""The input gradient by cells of 2x2 pixels against the definition, and where it is used."""

import numpy as np
import pytest
from odegrad.engine.kernels import cells, conv2d_input_grad, conv2d_output_shape
from threadpoolctl import threadpool_limits

EPS = np.finfo(np.float64).eps


@pytest.fixture
def rng():
    return np.random.default_rng(31)


@pytest.fixture
def uses(monkeypatch):
    """The sizes of the images that cells are used for."""
    used = []
    plain = cells._windows
    monkeypatch.setattr(
        cells, "_windows", lambda source, *rest: used.append(source.shape) or plain(source, *rest)
    )
    return used


@pytest.fixture
def cells_anywhere(monkeypatch):
    """Cells also where they do not pay."""
    monkeypatch.setattr(cells, "_FEWEST", 0)
    monkeypatch.setattr(cells, "_MOST_COVERED", 9.0)


def operands(rng, size, padding, n_images=3, n_in=5, n_out=6, dtype=np.float64):
    w = rng.standard_normal((3, 3, n_in, n_out)).astype(dtype)
    y_shape = conv2d_output_shape((n_images, *size, n_in), w.shape, 2, padding)
    return rng.standard_normal(y_shape).astype(dtype), w


def definition(ybar, w, size, padding):
    """Every tap of every position of ybar, added where it came from."""
    n, rows, columns, _ = ybar.shape
    reached = (max(size[0] + 2 * padding, 2 * rows + 1), max(size[1] + 2 * padding, 2 * columns + 1))
    whole = np.zeros((n, *reached, w.shape[2]))
    for i, j, k, l in np.ndindex(rows, columns, 3, 3):
        whole[:, 2 * i + k, 2 * j + l] += ybar[:, i, j] @ w[k, l].T
    return whole[:, padding : padding + size[0], padding : padding + size[1]]


@pytest.mark.usefixtures("cells_anywhere")
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (7, 6), (6, 7), (3, 5), (2, 9), (8, 2)], ids=str)
@pytest.mark.parametrize("padding", [1, 2, 3])
def test_every_entry_agrees_with_the_definition(rng, uses, size, padding):
    ybar, w = operands(rng, size, padding)
    xbar = conv2d_input_grad(np, ybar, w, input_shape=size, stride=2, padding=padding)
    expected = definition(ybar, w, size, padding)
    assert uses
    assert np.abs(xbar - expected).max() <= 50 * EPS * np.abs(expected).max()


@pytest.mark.usefixtures("cells_anywhere")
@pytest.mark.parametrize("size", [(3, 3), (4, 9), (7, 6)], ids=str)
def test_every_entry_agrees_without_padding(rng, size):
    """The neighbour that all phases see is then the last one of the window."""
    ybar, w = operands(rng, size, 0)
    expected = definition(ybar, w, size, 0)
    xbar = conv2d_input_grad(np, ybar, w, input_shape=size, stride=2, padding=0)
    assert np.abs(xbar - expected).max() <= 50 * EPS * np.abs(expected).max()


@pytest.mark.usefixtures("cells_anywhere")
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_strides_of_the_cotangent_and_the_result_do_not_matter(rng, axis):
    ybar, w = operands(rng, (8, 6), 2)  # with this padding no border is added to the cotangent
    plain = conv2d_input_grad(np, ybar, w, input_shape=(8, 6), stride=2, padding=2)
    out = np.moveaxis(np.full(np.moveaxis(plain, axis, -1).shape, np.nan), -1, axis)
    strided = np.moveaxis(np.moveaxis(ybar, axis, -1).copy(), -1, axis)
    conv2d_input_grad(np, strided, w, input_shape=(8, 6), stride=2, padding=2, out=out)
    np.testing.assert_array_equal(out, plain)


def test_bits_do_not_depend_on_the_number_of_threads(rng, uses):
    ybar, w = operands(rng, (28, 28), 1, n_images=64, n_in=16, n_out=32, dtype=np.float32)
    results = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            results.append(conv2d_input_grad(np, ybar, w, input_shape=(28, 28), stride=2, padding=1))
    assert len(uses) > 2
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "n_images, size, pays", [(64, (14, 14), True), (2, (14, 14), False), (256, (7, 7), False)]
)
def test_few_products_and_narrow_odd_images_are_gathered_for_each_phase(rng, uses, n_images, size, pays):
    ybar, w = operands(rng, size, 1, n_images=n_images, n_in=16, n_out=16)
    conv2d_input_grad(np, ybar, w, input_shape=size, stride=2, padding=1)
    assert bool(uses) == pays
