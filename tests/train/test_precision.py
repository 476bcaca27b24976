"""Products in TF32 and bfloat16: what a configuration may ask, where it holds, and what it changes in gradients and training.

The operands are rounded as a GPU rounds them, on NumPy (`rounded_products`).
"""

import dataclasses
from functools import cache
from types import SimpleNamespace

import numpy as np
import odegrad
import pytest
from odegrad import ops, random
from odegrad.engine import backend
from odegrad.engine.errors import ArgumentError, ConfigError
from odegrad.engine.primitive import PRIMITIVES
from odegrad.engine.product_precision import OPERAND_ERRORS, Products, current_products, product_precision
from odegrad.engine.tree import leaves
from odegrad.solvers import compiled
from odegrad.train.config import TrainConfig, defaults_for, make_config
from odegrad.train.data import load_dataset
from odegrad.train.experiments import classifier
from odegrad.train.metrics import epochs_of, read
from rounded_products import rounded_products
from training import tiny, train

ROUNDED = ["tf32", "bf16"]


@pytest.mark.parametrize("precision", ROUNDED)
def test_a_cpu_rounds_nothing(precision):
    with pytest.raises(ConfigError, match=f"`precision` = '{precision}' .* use 'fp32', or device 'cuda'"):
        TrainConfig(precision=precision)


def test_float64_is_not_rounded():
    with pytest.raises(ConfigError, match="`dtype` is 'float64', which is never rounded"):
        TrainConfig(precision="tf32", device="cuda", dtype="float64")


@pytest.mark.parametrize("precision", ROUNDED)
def test_a_gpu_may_be_asked(precision):
    assert TrainConfig(precision=precision, device="cuda").precision == precision


def test_an_unknown_precision_is_named():
    with (
        pytest.raises(ArgumentError, match="must be one of fp32, tf32, bf16; got 'fp16'"),
        product_precision("fp16"),
    ):
        pass


@pytest.fixture
def cublas(monkeypatch):
    """What CuPy was told, in order."""
    told = []

    class Matrices:
        def __init__(self, precision):
            self.precision = precision

        def __enter__(self):
            told.append(self.precision)

        def __exit__(self, *raised):
            told.append(f"not {self.precision}")

    monkeypatch.setattr(backend, "matrix_products_in", Matrices)
    return told


def test_the_innermost_precision_holds(cublas):
    with product_precision("tf32"):
        with product_precision("bf16", deterministic=True):
            inner = current_products()
        outer = current_products()
    assert (inner, outer) == (Products("bf16", True), Products("tf32"))
    assert cublas == ["tf32", "bf16", "not bf16", "not tf32"]


def test_cupy_is_not_needed_for_float32(cublas):
    with product_precision("fp32"):
        assert current_products() == Products()
    assert not cublas


def test_an_error_ends_it(cublas):
    with pytest.raises(KeyError), product_precision("tf32"):
        raise KeyError
    assert current_products() == Products()


@pytest.mark.parametrize("precision, expected", [("tf32", 7), ("bf16", 7)])
def test_cublas_is_told_and_told_back(monkeypatch, precision, expected):
    """CuPy's names and numbers (cupy/_core/_routines_linalg); with 6 it would compute in float32."""
    setting = {np.float32: 1}
    numbers = {"COMPUTE_TYPE_DEFAULT": 1, "COMPUTE_TYPE_BF16": 6, "COMPUTE_TYPE_TF32": 7}
    core = SimpleNamespace(
        _routines_linalg=SimpleNamespace(**numbers),
        get_compute_type=setting.get,
        set_compute_type=setting.__setitem__,
    )
    monkeypatch.setattr(backend, "cupy_module", lambda: SimpleNamespace(_core=core))
    with product_precision(precision):
        inside = dict(setting)
        with product_precision("fp32"):
            innermost = dict(setting)
    assert (inside, innermost, setting) == ({np.float32: expected}, {np.float32: 1}, {np.float32: 1})


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """How products were computed in a run that was to be deterministic: in every convolution, forward and backward."""
    found = set()
    convolution = PRIMITIVES["conv2d_weight_grad"]
    into, convolution.into = convolution.into, None
    forward = convolution.forward

    def watched(*args, **static):
        found.add(current_products())
        return forward(*args, **static)

    convolution.forward = watched
    compiled._known.clear()  # programs that an earlier test compiled call the kernel that is left out here
    try:
        run, _ = train(tiny(tmp_path_factory.mktemp("run"), epochs=1, deterministic=True))
    finally:
        convolution.forward, convolution.into = forward, into
    return run, found


def test_training_computes_as_configured(seen):
    assert seen[1] == {Products("fp32", deterministic=True)}


def test_a_loaded_model_computes_as_configured(seen, monkeypatch):
    model, found = odegrad.load(seen[0].path), []
    apply = type(model.network).apply

    def watched(*args, **options):
        found.append(current_products())
        return apply(*args, **options)

    monkeypatch.setattr(type(model.network), "apply", watched)
    model.predict(np.zeros((1, *model.preprocessing.shape), np.uint8))
    assert set(found) == {Products("fp32", deterministic=True)}


def smooth_gradient(precision, dtype=np.float32):
    """The gradient of a loss behind a solve whose dynamics, two convolutions and a matrix product, have no kinks."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (3, 3, 4, 8), "w2": (3, 3, 8, 4), "v": (4, 3)}
    weights = {
        name: (rng.standard_normal(s) / np.prod(s[:-1]) ** 0.5).astype(dtype) for name, s in shapes.items()
    }
    x = rng.standard_normal((4, 6, 6, 4)).astype(dtype)

    def slope(t, y, p):
        return ops.conv2d(np.tanh(ops.conv2d(y, p["w1"], padding=1)), p["w2"], padding=1)

    def loss(p):
        sol = odegrad.odeint(slope, x, (0.0, 1.0), p, method="rk4", step_size=0.25, execution="eager")
        return ((np.mean(sol.ys[-1], axis=(1, 2)) @ p["v"] - 1.0) ** 2).mean()

    with rounded_products(precision):
        return flat(odegrad.grad(loss)(weights))


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves(tree)])


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("precision", ROUNDED)
def test_a_smooth_gradient_is_off_by_about_the_error_of_an_operand(precision):
    exact = smooth_gradient("fp32", np.float64)
    assert distance(smooth_gradient(precision), exact) <= 4 * OPERAND_ERRORS[precision]


@cache
def digits():
    """The network of the digits, its weights at the start, and images."""
    config = dataclasses.replace(
        defaults_for("digits"), dropout=0.0, method="rk4", step_size=0.25, execution="eager"
    )
    data = load_dataset("digits")
    x = data.train_images[:32].astype(np.float32) / 128 - 1
    network = classifier(config, x.shape[1:], 10)
    return network, network.init(random.key(0), np.float32, np), x, data.train_labels[:32]


def digits_gradient(precision, change=0.0):
    """The gradient of its loss, for images changed by a relative `change`."""
    network, weights, x, labels = digits()
    x = x + np.float32(change) * x * np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    stats = network.init_stats(np.float32, np)

    def loss(w):
        return ops.softmax_cross_entropy(
            network.apply(w, stats, None, x, mode="train", key=random.key(1))[0], labels
        )

    with rounded_products(precision):
        return flat(odegrad.grad(loss)(weights))


@pytest.mark.parametrize("precision", ROUNDED)
def test_the_gradient_of_the_digits_moves_as_by_a_change_of_the_images(precision):
    """Kinks of ReLU, not sums, decide how far: images changed by the error of an operand move it as much."""
    plain = digits_gradient("fp32")
    moved = distance(digits_gradient(precision), plain)
    assert moved <= 2 * distance(digits_gradient("fp32", OPERAND_ERRORS[precision]), plain)


@cache
def learnt(precision, folder):
    """(training loss of each epoch, accuracy on the test images) of a short training on the digits."""
    settings = {
        "network": "4-layer",
        "batch_size": 64,
        "augment": False,
        "dropout": 0.0,
        "epochs": 2,
        "execution": "eager",
        "method": "midpoint",
        "step_size": 0.5,
    }
    with rounded_products(precision):
        run, result = train(make_config({"dataset": "digits", "out": str(folder / precision), **settings}))
    return [record["train_loss"] for record in epochs_of(read(run.metrics))], result.test_accuracy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("precision")


@pytest.mark.parametrize("precision", ROUNDED)
def test_the_digits_are_learnt_alike(precision, folder):
    """Losses within 1% of those in float32, accuracy within 2 points."""
    (plain, plain_accuracy), (rounded, accuracy) = learnt("fp32", folder), learnt(precision, folder)
    assert plain[1] < 0.6 * plain[0] and len(rounded) == 2
    np.testing.assert_allclose(rounded, plain, rtol=0.01)
    assert abs(accuracy - plain_accuracy) <= 0.02
