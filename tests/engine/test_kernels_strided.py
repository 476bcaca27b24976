"""Winograd's convolution at stride 2 against plain sums: where it is used, and what its round-off is."""

import numpy as np
import pytest
from machine_code import needs_numba
from odegrad.engine import compiled_strided
from odegrad.engine.jit.choice import CHOICE
from odegrad.engine.kernels import conv2d, conv2d_input_grad, conv2d_weight_grad, winograd_strided
from odegrad.engine.kernels.precision import accepting
from threadpoolctl import threadpool_limits

pytestmark = pytest.mark.usefixtures("kernel_folder")
ANY = 1.0  # an error that everything is below of
LARGE = ((8, 16, 16, 64), 48, 1)
USED = ["kernel_spectrum", "write_sums", "write_interleaved", "write_taps"]

# (B, H, W, Cin), Cout, padding
CASES = [
    LARGE,
    ((6, 7, 7, 5), 6, 1),  # blocks that stick out
    ((3, 9, 14, 8), 7, 1),
    ((3, 13, 16, 6), 5, 0),  # of values of xbar a paired one comes first
    ((3, 8, 11, 6), 5, 2),
    ((2, 6, 5, 7), 6, 3),
    ((2, 5, 6, 5), 5, 9),  # blocks that see nothing of the image
    ((1, 67, 50, 16), 24, 1),  # tiles within one image
    ((9, 1, 1, 5), 5, 1),
]


@pytest.fixture
def uses(monkeypatch):
    """The names of the transforms that are called."""
    called = []

    def watch(name):
        plain = getattr(compiled_strided, name)

        def spy(*args):
            called.append(name)
            return plain(*args)

        monkeypatch.setattr(compiled_strided, name, spy)

    for name in USED:
        watch(name)
    return called


@pytest.fixture
def always(monkeypatch):
    """However small the images are."""
    monkeypatch.setattr(winograd_strided, "_pays", lambda *args: True)


def arrays(shape, n_out, padding, dtype=np.float64):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((3, 3, shape[3], n_out)).astype(dtype)
    ybar = rng.standard_normal(conv2d(np, x, w, stride=2, padding=padding).shape).astype(dtype)
    return x, w, ybar


def three(x, w, ybar, padding):
    """Forward and both gradients."""
    options = {"stride": 2, "padding": padding}
    y = conv2d(np, x, w, **options)
    xbar = conv2d_input_grad(np, ybar, w, input_shape=x.shape[1:3], **options)
    wbar = conv2d_weight_grad(np, x, ybar, kernel_shape=(3, 3), **options)
    return y, xbar, wbar


def assert_within_round_off(found, exact):
    for got, expected in zip(found, exact, strict=True):
        error = np.abs(got - expected).max()
        assert error <= winograd_strided.ROUND_OFF * np.finfo(got.dtype).eps * np.abs(expected).max()


@needs_numba
@pytest.mark.parametrize("shape, n_out, padding", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_plain_sums(always, uses, shape, n_out, padding, dtype):
    x, w, ybar = arrays(shape, n_out, padding, dtype)
    exact = three(*(a.astype(np.float64) for a in (x, w, ybar)), padding)
    assert not uses
    with accepting(ANY):
        found = three(x, w, ybar, padding)
    assert sorted(set(uses)) == sorted(USED)
    assert all(got.dtype == dtype for got in found)
    assert_within_round_off(found, exact)


@needs_numba
@pytest.mark.parametrize(
    "accepted, dtype, is_used",
    [
        (0.0, np.float64, False),
        (1e-5, np.float32, False),
        (2e-5, np.float32, True),
        (1e-13, np.float64, True),
    ],
)
def test_is_used_where_its_round_off_is_accepted(uses, accepted, dtype, is_used):
    x, w, _ = arrays(*LARGE, dtype)
    with accepting(accepted):
        conv2d(np, x, w, stride=2, padding=1)
    assert bool(uses) == is_used


@needs_numba
@pytest.mark.parametrize(
    "shape, n_out, options, used",
    [
        ((8, 16, 16, 64), 48, {"stride": 2, "padding": 1}, USED),
        ((8, 16, 16, 64), 48, {"stride": 1, "padding": 1}, []),
        ((8, 16, 16, 64), 48, {"stride": (2, 1), "padding": 1}, []),
        ((8, 16, 16, 64), 48, {"stride": 2, "padding": (1, 2)}, []),
        ((5, 16, 16, 64), 48, {"stride": 2, "padding": 1}, []),  # few blocks
        ((8, 16, 16, 24), 24, {"stride": 2, "padding": 1}, []),  # few channels
        ((8, 10, 10, 64), 48, {"stride": 2, "padding": 1}, []),  # blocks that are mostly outside
        ((32, 7, 7, 64), 48, {"stride": 2, "padding": 1}, ["kernel_spectrum", "write_sums", "write_taps"]),
        ((8, 16, 16, 256), 256, {"stride": 2, "padding": 1}, []),  # large kernels
    ],
)
def test_is_used_where_it_pays(uses, shape, n_out, options, used):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.standard_normal((3, 3, shape[3], n_out))
    with accepting(ANY):
        ybar = conv2d(np, x, w, **options)
        conv2d_input_grad(np, ybar, w, input_shape=shape[1:3], **options)
        conv2d_weight_grad(np, x, ybar, kernel_shape=(3, 3), **options)
    assert sorted(set(uses)) == sorted(used)


def test_there_is_no_way_without_machine_code(uses, monkeypatch):
    monkeypatch.setenv(CHOICE, "numpy")
    x, w, _ = arrays(*LARGE)
    with accepting(ANY):
        conv2d(np, x, w, stride=2, padding=1)
    assert not uses


@needs_numba
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a + 0j,
        lambda a: a.astype(np.float16),
        lambda a: a.astype(np.float32)[..., ::-1],
        lambda a: np.asfortranarray(a),
    ],
    ids=["complex", "half", "channels backwards", "images innermost"],
)
def test_other_images_are_summed_plainly(uses, change):
    x, w, _ = arrays(*LARGE)
    with accepting(ANY):
        conv2d(np, change(x), w.astype(change(x).dtype), stride=2, padding=1)
    assert not uses


@needs_numba
def test_bits_do_not_depend_on_the_number_of_threads(uses):
    x, w, ybar = arrays((32, 16, 16, 64), 48, 1)
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"), accepting(ANY):
            found.append(three(x, w, ybar, 1)[:2])
    assert uses
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@needs_numba
def test_reads_and_writes_every_second_image_and_row(uses):
    (x, w, ybar), padding = arrays(*LARGE), 1
    exact = three(x, w, ybar, padding)
    x, ybar = (np.repeat(np.repeat(a, 2, axis=0), 2, axis=1)[::2, ::2] for a in (x, ybar))
    buffers = [np.zeros((2 * a.shape[0], 2 * a.shape[1], *a.shape[2:])) for a in exact]
    y, xbar, wbar = (buffer[::2, ::2] for buffer in buffers)
    at = {"stride": 2, "padding": padding}
    with accepting(ANY):
        conv2d(np, x, w, out=y, **at)
        conv2d_input_grad(np, ybar, w, input_shape=x.shape[1:3], out=xbar, **at)
        conv2d_weight_grad(np, x, ybar, kernel_shape=(3, 3), out=wbar, **at)
    assert sorted(set(uses)) == sorted(USED)
    assert_within_round_off((y, xbar, wbar), exact)
    assert all(np.count_nonzero(b) == e.size for b, e in zip(buffers, exact, strict=True))


@needs_numba
def test_what_was_in_its_memory_does_not_matter(always):
    """Entries have a block behind them that is multiplied as well."""
    x, w, ybar = arrays((9, 16, 16, 8), 8, 1)
    with accepting(ANY), np.errstate(all="ignore"):
        before = three(x, w, ybar, 1)
        three(np.full_like(x, np.inf), np.full_like(w, 1.0), np.full_like(ybar, np.inf), 1)
        after = three(x[:3], w, ybar[:3], 1)
    np.testing.assert_array_equal(after[0], before[0][:3])
