"""What holds for every layer: shapes, dtypes, keys, programs, and errors that name what was got."""

import numpy as np
import pytest
from odegrad import ArgumentError
from odegrad.engine import grad, ops, random
from odegrad.engine.program import record, trace
from odegrad.engine.tree import leaves, tree_map
from odegrad.layers import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Chain,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Identity,
    Linear,
    MaxPool2d,
    ODEBlock,
    ReLU,
    Sigmoid,
    SiLU,
    Skip,
    Softplus,
    TABatchNorm,
    Tanh,
    TimeConcat,
    unet,
)
from oracles import assert_close, norm

KEY = random.key(3)
LAYERS = {
    "linear": (Linear(4, 6), (4,)),
    "linear with time": (Linear(4, 6, with_time=True), (4,)),
    "conv": (Conv2d(2, 5), (6, 7, 2)),
    "conv with stride and time": (Conv2d(2, 5, stride=2, with_time=True), (6, 7, 2)),
    "conv 5x5 without padding": (Conv2d(2, 5, kernel=5, padding=0, bias=False), (6, 7, 2)),
    "conv transpose": (ConvTranspose2d(2, 5, (11, 14)), (6, 7, 2)),
    "conv transpose with time": (ConvTranspose2d(2, 5, (12, 13), with_time=True), (6, 7, 2)),
    **{type(layer).__name__: (layer, (3,)) for layer in (Identity(), ReLU(), Tanh(), Sigmoid(), Softplus())},
    **{type(layer).__name__: (layer, (3, 3, 2)) for layer in (GELU(), SiLU(), Flatten(), GlobalAvgPool())},
    "dropout": (Dropout(0.3), (5,)),
    "max pool": (MaxPool2d(2), (6, 7, 2)),
    "max pool with padding": (MaxPool2d(2, padding=(0, 1)), (6, 7, 2)),
    "average pool": (AvgPool2d(3, 2, 1), (6, 7, 2)),
    "time": (TimeConcat(), (4,)),
    "time on images": (TimeConcat(), (4, 4, 1)),
    "group norm": (GroupNorm(6, 2), (3, 3, 6)),
    "batch norm": (BatchNorm(4), (3, 3, 4)),
    "minibatch": (BatchNorm(4, "minibatch"), (4,)),
    "TA-BN": (TABatchNorm(4), (3, 3, 4)),
    "TA-BN by population": (TABatchNorm(4, normalize="population"), (4,)),
    "chain": (
        Chain([Conv2d(1, 3, with_time=True), TABatchNorm(3), ReLU(), Dropout(0.2), Flatten()]),
        (4, 4, 1),
    ),
    "skip": (Skip(Conv2d(2, 3)), (4, 4, 2)),
    "unet": (unet((6, 6, 1), lambda n: TABatchNorm(n), widths=(2, 3)), (6, 6, 1)),
    "block": (ODEBlock(Chain([Linear(3, 3, with_time=True), TABatchNorm(3), Tanh()])), (3,)),
}
layers = pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
modes = pytest.mark.parametrize("mode", ["train", "eval"])


def applied(layer, shape, dtype, mode, *, batch=5, t=0.3):
    x = np.random.default_rng(0).standard_normal((batch, *shape)).astype(dtype)
    return layer.apply(layer.init(KEY, dtype), layer.init_stats(dtype), t, x, mode=mode, key=KEY)


@modes
@layers
def test_output_has_the_announced_shape(layer, shape, mode):
    y, _ = applied(layer, shape, np.float64, mode)
    assert y.shape == (5, *layer.output_shape(shape))


@modes
@layers
def test_float32_stays_float32(layer, shape, mode):
    y, _ = applied(layer, shape, np.float32, mode)
    assert y.dtype == np.float32


@modes
@layers
def test_float32_agrees_with_float64(layer, shape, mode):
    weights, stats = layer.init(KEY), layer.init_stats()
    x = np.random.default_rng(0).standard_normal((5, *shape)).astype(np.float32)
    wide = [tree_map(lambda a: a.astype(np.float64), tree) for tree in (weights, stats, x)]
    narrow, _ = layer.apply(weights, stats, 0.3, x, mode=mode, key=KEY)
    expected, _ = layer.apply(wide[0], wide[1], 0.3, wide[2], mode=mode, key=KEY)
    assert_close(narrow, expected.astype(np.float32), scale=norm(expected), tol=1e-6)


@modes
@layers
def test_every_array_module_gives_the_same(xp, layer, shape, mode):
    weights, stats = layer.init(KEY, np.float64), layer.init_stats(np.float64)
    x = np.random.default_rng(0).standard_normal((5, *shape))
    expected, _ = layer.apply(weights, stats, 0.3, x, mode=mode, key=KEY)
    there = layer.init(KEY, np.float64, xp), layer.init_stats(np.float64, xp)
    y, seen = layer.apply(*there, 0.3, xp.asarray(x), mode=mode, key=KEY)
    assert all(isinstance(array, xp.ndarray) for array in (y, *leaves(there)))
    assert_close(y, expected, scale=norm(expected), tol=1e-12)


@layers
def test_every_array_module_gives_the_same_gradient(xp, layer, shape):
    """Of a mean of squares in training, with respect to input and weights."""

    def pulled(xp):
        weights, stats = layer.init(KEY, np.float64, xp), layer.init_stats(np.float64, xp)
        x = xp.asarray(np.random.default_rng(0).standard_normal((5, *shape)))

        def loss(weights, x):
            y, _ = layer.apply(weights, stats, 0.3, x, mode="train", key=KEY)
            return ops.mean(ops.square(y + 0.0 * ops.sum(x)))  # reaches x whatever the layer does

        return leaves(grad(loss, argnums=(0, 1))(weights, x))

    found, expected = pulled(xp), pulled(np)
    for bar, other in zip(found, expected, strict=True):
        assert_close(bar, other, scale=norm(*expected), tol=1e-12)


@layers
def test_weights_and_stats_have_the_dtype_asked_for(layer, shape):
    found = leaves([layer.init(KEY, np.float64), layer.init_stats(np.float64)])
    assert {array.dtype for array in found} <= {np.dtype(np.float64)}


@layers
def test_the_same_key_gives_the_same_weights(layer, shape):
    first, second = leaves(layer.init(KEY)), leaves(layer.init(random.key(3)))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@layers
def test_evaluation_leaves_the_statistics_alone(layer, shape):
    _, seen = applied(layer, shape, np.float64, "eval")
    stats = layer.init_stats(np.float64)
    updated = layer.update_stats(stats, seen)
    assert all(a is b for a, b in zip(leaves(updated), leaves(stats), strict=True))


@layers
def test_training_keeps_the_structure_of_the_statistics(layer, shape):
    _, seen = applied(layer, shape, np.float64, "train")
    stats = layer.init_stats(np.float64)
    if isinstance(layer, (TABatchNorm, Chain)) and seen is not None:
        pytest.skip("TA-BN outside of a solve has no times; test_ode_block.py")
    updated = layer.update_stats(stats, seen)
    assert [a.shape for a in leaves(updated)] == [a.shape for a in leaves(stats)]


@pytest.mark.parametrize(
    ("layer", "shape"), [v for k, v in LAYERS.items() if k != "block"], ids=[*LAYERS][:-1]
)
@modes
def test_a_traced_program_gives_the_same_bits_or_nearly(layer, shape, mode):
    weights, stats = layer.init(KEY, np.float64), layer.init_stats(np.float64)
    x = np.random.default_rng(1).standard_normal((5, *shape))

    def f(t, x):
        return layer.apply(weights, stats, t, x, mode=mode, key=KEY)[0] * 1.0

    program = trace(f, 0.9, np.zeros_like(x))  # other values than those of the run
    (found,) = program.run([0.3, x], hidden_of(f, 0.9, np.zeros_like(x)))
    assert_close(found, f(0.3, x), scale=norm(found), tol=1e-14)


def hidden_of(f, *arguments):
    """What f captures, in the order of the program's hidden inputs."""
    return record(f, arguments, ["t", "x"]).hidden


WRONG = {
    "linear": (Linear(4, 6), (5,), r"Linear\(n_in=4.*takes inputs \(4,\) after the batch axis; got \(5,\)"),
    "linear on images": (Linear(4, 6), (2, 2, 4), r"takes inputs \(4,\)"),
    "conv channels": (
        Conv2d(2, 3),
        (5, 5, 3),
        r"takes inputs \(H, W, 2\) after the batch axis; got \(5, 5, 3\)",
    ),
    "conv on vectors": (Conv2d(2, 3), (2,), r"takes inputs \(H, W, 2\)"),
    "conv too small": (Conv2d(2, 3, kernel=5, padding=0), (3, 3, 2), "does not fit"),
    "conv transpose": (
        ConvTranspose2d(2, 3, (9, 8)),
        (4, 4, 2),
        r"cannot reach size \(9, 8\) from \(4, 4\): .* maps \(9, 8\) to \(5, 4\)",
    ),
    "pool on vectors": (MaxPool2d(2), (4,), r"takes images \(H, W, C\) after the batch axis; got \(4,\)"),
    "global pool on vectors": (GlobalAvgPool(), (4,), r"takes images \(H, W, C\)"),
    "group norm": (GroupNorm(4, 2), (3,), r"takes inputs \(..., 4\) after the batch axis; got \(3,\)"),
    "batch norm": (BatchNorm(4), (3, 3, 3), r"takes inputs \(..., 4\)"),
    "time of scalars": (TimeConcat(), (), "needs a channel axis"),
    "skip": (Skip(MaxPool2d(2)), (4, 4, 1), r"joins channels of equal images.*\(4, 4, 1\).*\(2, 2, 1\)"),
    "block": (ODEBlock(Linear(3, 2)), (3,), r"keep the shape of the state; got \(3,\) -> \(2,\)"),
    "chain": (Chain([Tanh(), Linear(3, 2), Linear(3, 2)]), (3,), r"layer 2 of the chain: Linear.*got \(2,\)"),
}


@pytest.mark.parametrize(("layer", "shape", "message"), WRONG.values(), ids=WRONG)
def test_an_input_that_does_not_fit_is_named(layer, shape, message):
    with pytest.raises(ArgumentError, match=message):
        layer.output_shape(shape)


@pytest.mark.parametrize("name", ["linear", "conv channels", "conv transpose", "group norm", "batch norm"])
def test_apply_refuses_what_output_shape_refuses(name):
    layer, shape, message = WRONG[name]
    with pytest.raises(ArgumentError, match=message):
        applied(layer, shape, np.float32, "train")


BAD = {
    "linear": (lambda: Linear(0, 3), "at least one input and one output; got 0 and 3"),
    "conv": (lambda: Conv2d(1, 3, stride=0), "at least 1"),
    "conv padding": (lambda: Conv2d(1, 3, padding=-1), "padding at least 0"),
    "size": (lambda: ConvTranspose2d(1, 3, (0, 4)), r"must be \(height, width\); got \(0, 4\)"),
    "dropout": (lambda: Dropout(1.0), r"`rate` of Dropout must lie in \[0, 1\); got 1.0"),
    "groups": (lambda: GroupNorm(4, 3), "`groups` must divide the 4 channels; got 3"),
    "statistics": (lambda: BatchNorm(4, "batch"), "'running', 'minibatch'; got 'batch'"),
    "chain of others": (lambda: Chain([Tanh(), np.tanh]), "made of layers; got #1: ufunc"),
    "chain at construction": (lambda: Chain([Linear(3, 2)], input_shape=(4,)), "layer 0 of the chain"),
    "pool": (lambda: MaxPool2d(0), "`size` must be at least 1; got 0"),
    "pool padding": (lambda: MaxPool2d(2, padding=2), "padding"),
    "method": (lambda: ODEBlock(Tanh(), method="dopri"), "dopri5"),
    "options": (
        lambda: ODEBlock(Tanh(), rtol=-1.0, gradient="tap"),
        "did you mean 'tape'.*`rtol` must be a positive",
    ),
    "time": (lambda: ODEBlock(Tanh(), t1=float("nan")), "finite times; got t0 = 0.0, t1 = nan"),
    "interval": (lambda: ODEBlock(Tanh(), 1.0, 1.0), "needs t0 != t1; got 1.0"),
}


@pytest.mark.parametrize(
    ("weights", "stats", "message"),
    [
        ([None], [None, None], "`weights` of a Chain of 2 layers .* got 1 of them"),
        ([None, None], None, "`stats` of a Chain of 2 layers .* got NoneType"),
    ],
)
def test_a_chain_names_the_parts_it_lacks(weights, stats, message):
    with pytest.raises(ArgumentError, match=message):
        Chain([Tanh(), Tanh()]).apply(weights, stats, None, np.ones((1, 2)), mode="eval")


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_configuration_is_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    "layer", [Chain([Tanh()]), BatchNorm(3), Dropout(0.1), ODEBlock(Tanh())], ids=lambda x: type(x).__name__
)
def test_unknown_mode_is_refused(layer):
    with pytest.raises(ArgumentError, match='"train" or "eval"; got \'test\''):
        applied(layer, (3,), np.float32, "test")


@pytest.mark.parametrize("layer", [Linear(3, 3, with_time=True), TimeConcat()], ids=["linear", "concat"])
def test_a_layer_that_depends_on_time_asks_for_one(layer):
    with pytest.raises(ArgumentError, match="needs a time; got t = None"):
        applied(layer, (3,), np.float32, "train", t=None)
