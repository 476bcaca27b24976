"""Winograd's convolution against plain sums: where it is used, and what its round-off is, by either of its transforms."""

import numpy as np
import pytest
from machine_code import needs_numba
from odegrad.engine import compiled_winograd
from odegrad.engine.jit.choice import CHOICE
from odegrad.engine.kernels import (
    conv2d,
    conv2d_input_grad,
    conv2d_weight_grad,
    threads,
    winograd,
    winograd_numpy,
)
from odegrad.engine.kernels.precision import accepted_error, accepting
from threadpoolctl import threadpool_limits

pytestmark = pytest.mark.usefixtures("kernel_folder")
WAYS = {"numpy": winograd_numpy, "numba": compiled_winograd}
EPS64 = np.finfo(np.float64).eps
ANY = 1.0  # an error that everything is below of

# (B, H, W, Cin), Cout, padding
CASES = [
    ((8, 16, 16, 24), 25, 1),  # whole blocks
    ((9, 28, 28, 16), 17, 1),
    ((32, 7, 7, 24), 24, 1),  # blocks that stick out
    ((33, 7, 5, 25), 24, (1, 2)),  # a last tile of another size, unequal padding
    ((1, 47, 50, 24), 24, 0),  # tiles within one image
    ((2, 33, 40, 24), 24, 2),
    ((9, 16, 16, 100), 24, 1),  # tiles of fewer blocks
    ((9, 16, 15, 180), 24, 1),  # more again
    ((40, 6, 7, 24), 24, (4, 5)),  # blocks that see nothing of the image
]


@pytest.fixture(params=["numpy", pytest.param("numba", marks=needs_numba)])
def way(request, monkeypatch):
    """Whose transforms are chosen."""
    monkeypatch.setenv(CHOICE, request.param)
    return request.param


@pytest.fixture
def uses(monkeypatch):
    """(way, name) of the transforms that are called."""
    called = []

    def watch(way, name):
        plain = getattr(WAYS[way], name)

        def spy(*args):
            called.append((way, name))
            return plain(*args)

        monkeypatch.setattr(WAYS[way], name, spy)

    for way in WAYS:
        watch(way, "source_spectrum")
        watch(way, "cotangent_spectrum")
    return called


def arrays(shape, n_out, padding, dtype=np.float64):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape).astype(dtype)
    w = rng.standard_normal((3, 3, shape[3], n_out)).astype(dtype)
    ybar = rng.standard_normal(conv2d(np, x, w, padding=padding).shape).astype(dtype)
    return x, w, ybar


def three(x, w, ybar, padding):
    """Forward and both gradients."""
    y = conv2d(np, x, w, padding=padding)
    xbar = conv2d_input_grad(np, ybar, w, input_shape=x.shape[1:3], padding=padding)
    wbar = conv2d_weight_grad(np, x, ybar, kernel_shape=(3, 3), padding=padding)
    return y, xbar, wbar


def assert_within_round_off(found, exact):
    for got, expected in zip(found, exact, strict=True):
        error = np.abs(got - expected).max()
        assert error <= winograd.ROUND_OFF * np.finfo(got.dtype).eps * np.abs(expected).max()


@pytest.mark.parametrize("shape, n_out, padding", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_plain_sums(way, uses, shape, n_out, padding, dtype):
    x, w, ybar = arrays(shape, n_out, padding, dtype)
    exact = three(*(a.astype(np.float64) for a in (x, w, ybar)), padding)
    assert not uses
    with accepting(ANY):
        found = three(x, w, ybar, padding)
    assert set(uses) == {(way, "source_spectrum"), (way, "cotangent_spectrum")}
    assert all(got.dtype == dtype for got in found)
    assert_within_round_off(found, exact)


@pytest.mark.parametrize(
    "accepted, dtype, is_used",
    [
        (0.0, np.float64, False),
        (1e-5, np.float32, False),
        (4e-5, np.float32, True),
        (1e-12, np.float64, True),
    ],
)
def test_is_used_where_its_round_off_is_accepted(uses, accepted, dtype, is_used):
    x, w, _ = arrays(*CASES[0], dtype)
    with accepting(accepted):
        conv2d(np, x, w, padding=1)
    assert bool(uses) == is_used


@pytest.mark.parametrize(
    "shape, options, ways",
    [
        ((8, 16, 16, 24), {"padding": 1, "stride": 2}, []),
        ((8, 16, 16, 24), {"padding": 1}, ["numpy", "numba"]),
        ((8, 16, 16, 15), {"padding": 1}, ["numba"]),  # few channels
        ((32, 7, 7, 23), {"padding": 1}, ["numba"]),  # few channels, and blocks that stick out
        ((4, 16, 16, 24), {"padding": 1}, ["numba"]),  # few blocks
        ((2, 16, 16, 24), {"padding": 1}, []),  # fewer
        ((64, 5, 5, 40), {"padding": 1}, ["numba"]),  # blocks that are mostly outside
        ((64, 5, 5, 24), {"padding": 1}, []),
    ],
)
def test_is_used_where_it_pays(way, uses, shape, options, ways):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape), rng.standard_normal((3, 3, shape[3], shape[3]))
    with accepting(ANY):
        conv2d(np, x, w, **options)
    assert bool(uses) == (way in ways)


def test_complex_arrays_are_summed_plainly(uses):
    x, w, _ = arrays(*CASES[0])
    with accepting(ANY):
        conv2d(np, x + 0j, w + 0j, padding=1)
    assert not uses


def test_what_is_accepted_ends_with_the_block():
    with accepting(0.5):
        with accepting(0.25):
            assert accepted_error() == 0.25
        assert accepted_error() == 0.5
    assert accepted_error() == 0.0


def test_shares_accept_what_their_caller_accepts():
    seen = [0.0, 0.0]

    def work(share):
        seen[share] = accepted_error()

    with accepting(0.5):
        threads.run_shares(work, 2)
    threads.run_shares(lambda share: seen.append(accepted_error()), 2)
    assert seen == [0.5, 0.5, 0.0, 0.0]


def test_bits_do_not_depend_on_the_number_of_threads(way):
    x, w, ybar = arrays(*CASES[1])
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads, user_api="blas"), accepting(ANY):
            found.append(three(x, w, ybar, 1)[:2])
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["kernel_spectrum", "write_taps"])
def test_transforms_of_kernels_leave_the_threads_of_blas_asleep(name, monkeypatch):
    """A thread of BLAS that has helped spins on the core of a thread that works on tiles."""
    monkeypatch.setenv(CHOICE, "numpy")
    plain, held = getattr(winograd_numpy, name), set()

    def spy(*args):
        held.update(library.num_threads for library in threads._blas._libraries)
        return plain(*args)

    monkeypatch.setattr(winograd_numpy, name, spy)
    with threadpool_limits(2, user_api="blas"), accepting(ANY):
        three(*arrays(*CASES[0]), 1)
    assert held == {1}


# How images may lie in memory: a view, and whether machine code can read it.
VIEWS = {
    "every second image": (lambda a: np.repeat(a, 2, axis=0)[::2], True),
    "images backwards": (lambda a: np.ascontiguousarray(a[::-1])[::-1], True),
    "rows backwards": (lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1], True),
    "columns with gaps": (lambda a: np.repeat(a, 2, axis=2)[:, :, ::2], False),
    "channels with gaps": (lambda a: np.repeat(a, 2, axis=3)[..., ::2], False),
    "the first channels": (lambda a: np.concatenate([a, a], axis=3)[..., : a.shape[3]], False),
    "rows first": (lambda a: np.ascontiguousarray(a.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3), True),
    "other bytes": (lambda a: a.astype(">f8"), False),
    "one image often": (lambda a: np.broadcast_to(a[:1], a.shape), True),
    "unaligned": (lambda a: _unaligned(a), False),
}


def _unaligned(array):
    raw = np.empty(array.nbytes + 1, np.uint8)
    moved = raw[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


@pytest.mark.parametrize("view", VIEWS)
def test_reads_images_however_they_lie(way, uses, view):
    x, w, ybar = arrays(*CASES[0])
    seen, is_fit = VIEWS[view]
    x, ybar = seen(x), seen(ybar)
    exact = three(x, w, ybar, 1)
    with accepting(ANY):
        assert_within_round_off(three(x, w, ybar, 1), exact)
    assert {way for way, _ in uses} == {way if is_fit else "numpy"}


def test_reads_images_of_another_precision(way, uses):
    x, w, ybar = arrays(*CASES[0])
    x, ybar = x.astype(np.float32), ybar.astype(np.float32)
    exact = three(x, w, ybar, 1)[:2]
    with accepting(ANY):
        assert_within_round_off(three(x, w, ybar, 1)[:2], exact)
    assert uses


@pytest.mark.parametrize("channels", [slice(None), slice(0, 50, 2), slice(10, 35)])
def test_writes_into_any_strides(way, channels):
    x, w, ybar = arrays(*CASES[0])
    buffers = [np.zeros((*shape, 50)) for shape in ((8, 16, 16), (3, 3, 24))]
    y, wbar = (buffer[..., channels][..., :25] for buffer in buffers)
    with accepting(ANY):
        conv2d(np, x, w, padding=1, out=y)
        conv2d_weight_grad(np, x, ybar, kernel_shape=(3, 3), padding=1, out=wbar)
    plain = conv2d(np, x, w, padding=1), conv2d_weight_grad(np, x, ybar, kernel_shape=(3, 3), padding=1)
    assert_within_round_off((y, wbar), plain)
    assert sum(np.count_nonzero(b) for b in buffers) == y.size + wbar.size


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape, corner, down, across",
    [
        ((2, 8, 8, 5), (-1, -1), 2, 2),
        ((3, 7, 5, 16), (-2, -1), 2, 2),
        ((1, 9, 6, 33), (3, 1), 1, 1),
        ((1, 3, 3, 4), (-7, -9), 3, 4),
    ],
)
def test_spectra_are_those_of_numpy(shape, corner, down, across, dtype, rng):
    images = rng.standard_normal(shape).astype(dtype)
    at = (corner, down, across, images.dtype)
    found = compiled_winograd.source_spectrum(images, *at).copy()
    assert_few_eps(found, winograd_numpy.source_spectrum(images, *at), 10**2 * np.abs(images).max())
    at = (down, across, images.dtype)
    found = compiled_winograd.cotangent_spectrum(images, *at).copy()
    assert_few_eps(found, winograd_numpy.cotangent_spectrum(images, *at), np.abs(images).max())


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 8, 8, 5), (3, 7, 5, 16), (1, 1, 2, 33)])
def test_outputs_are_those_of_numpy(shape, dtype, rng):
    n, rows, columns, channels = shape
    down, across = -(-rows // 4), -(-columns // 4)
    products = compiled_winograd.product_buffer(n * down * across, channels, np.dtype(dtype))
    products[...] = rng.standard_normal(products.shape)
    found, expected = np.empty(shape, dtype), np.empty(shape, dtype)
    compiled_winograd.write_outputs(products, found, down, across)
    winograd_numpy.write_outputs(np.ascontiguousarray(products), expected, down, across)
    assert_few_eps(found, expected, 19**2 * np.abs(products).max())


@needs_numba
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [(5, 3), (32, 17)])  # within a piece of a kernel, and more than one
def test_kernels_are_transformed_as_by_numpy(channels, dtype, rng):
    kernel = rng.standard_normal((3, 3, *channels)).astype(dtype)
    found = compiled_winograd.kernel_spectrum(kernel).copy()
    assert_few_eps(found, winograd_numpy.kernel_spectrum(kernel), np.abs(kernel).max())
    total = rng.standard_normal((6, 6, *channels)).astype(dtype)
    taps, expected = np.empty_like(kernel), np.empty_like(kernel)
    compiled_winograd.write_taps(total, taps)
    winograd_numpy.write_taps(total, expected)
    assert_few_eps(taps, expected, 12**2 * np.abs(total).max())


def assert_few_eps(found, expected, scale):
    """`scale` is what the terms of a result may add up to in size."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    assert np.abs(found - expected).max() <= 4 * np.finfo(found.dtype).eps * scale
