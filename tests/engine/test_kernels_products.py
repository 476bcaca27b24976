"""Products in pieces against one product in higher precision, and which pieces there are."""

import numpy as np
import pytest
from odegrad.engine.kernels import products
from odegrad.engine.kernels.products import rows_times, summed_over_rows

EPS = np.finfo(np.float64).eps

# rows, depth, columns
SIZES = [
    (3, 5, 4),  # one piece
    (2000, 36, 40),  # pieces and a rest
    (1388, 36, 40),  # pieces only
    (50, 1000, 100),  # columns in blocks, the last one smaller
    (9, 1000, 100),  # fewer rows than a block of columns would take
    (20, 2000, 300),  # too deep for pieces
    (700, 1, 3),
]


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def assert_close(got, left, right):
    """Every entry of left @ right, beside the sum of the sizes of its terms."""
    exact = left.astype(np.longdouble) @ right.astype(np.longdouble)
    assert np.all(np.abs(got - exact) <= 8 * EPS * (np.abs(left) @ np.abs(right)))


@pytest.mark.parametrize("n_rows, depth, width", SIZES)
@pytest.mark.parametrize("apart", [1, 2])
def test_rows_times_is_the_product(rng, n_rows, depth, width, apart):
    """With rows that lie side by side, and with every second part of wider rows."""
    rows = rng.standard_normal((n_rows, apart * depth))[:, :depth]
    matrix = rng.standard_normal((depth, width))
    out = np.full((n_rows, apart * width), np.nan)
    rows_times(np, rows, matrix, out[:, :width])
    assert_close(out[:, :width], rows, matrix)
    assert np.isnan(out[:, width:]).all()


@pytest.mark.parametrize("n_rows, depth, width", SIZES)
def test_summed_over_rows_is_the_product_of_the_transpose(rng, n_rows, depth, width):
    left, right = rng.standard_normal((n_rows, depth)), rng.standard_normal((n_rows, width))
    out = np.full((depth, width), np.nan)
    summed_over_rows(np, left, right, out)
    assert_close(out, left.T, right)


@pytest.mark.parametrize("n_rows, depth, width", SIZES)
def test_no_piece_is_larger_than_small_products_are(rng, n_rows, depth, width, monkeypatch):
    """Where a product is cut at all, every part of it is one that BLAS need not pack."""
    sizes = []

    def watched(a, b, *, out):
        sizes.append(a.shape[-2] * a.shape[-1] * b.shape[-1])
        return np.multiply(0.0, 0.0, out=out)

    monkeypatch.setattr(products.np, "matmul", watched)
    rows, matrix = rng.standard_normal((n_rows, depth)), rng.standard_normal((depth, width))
    rows_times(np, rows, matrix, np.empty((n_rows, width)))
    assert max(sizes) <= 10**6 or sizes == [n_rows * depth * width]
