"""Layers inside of a solve on a device: the numbers of NumPy, and nothing read that the host does not need."""

import numpy as np
import pytest
from odegrad import grad, ops
from odegrad.engine import backend, random
from odegrad.engine.tree import leaves
from odegrad.layers import Chain, Dropout, Linear, ODEBlock, TABatchNorm, Tanh, solves
from oracles import assert_close, norm

KEY = random.key(5)
NODES = (0.0, 0.5, 1.0)


def block(normalize="batch", **options):
    """Dynamics with everything that a solve hands on: time, a key, statistics and moments."""
    norm = TABatchNorm(4, NODES, normalize=normalize)
    return ODEBlock(
        Chain([Linear(4, 4, with_time=True), norm, Dropout(0.4), Tanh(), Dropout(0.2)]), **options
    )


def applied(layer, xp, mode="train", stats=None):
    x = xp.asarray(np.random.default_rng(1).standard_normal((6, 4)))
    weights = layer.init(KEY, np.float64, xp)
    stats = layer.init_stats(np.float64, xp) if stats is None else stats
    return layer.apply(weights, stats, None, x, mode=mode, key=KEY)


@pytest.mark.parametrize("normalize", ["batch", "population"])
def test_masks_and_moments_are_those_of_the_host(device_xp, normalize):
    layer = block(normalize)
    found, expected = (applied(layer, xp) for xp in (device_xp, np))
    pairs = zip([found[0], *found[1].aux.values[1]], [expected[0], *expected[1].aux.values[1]], strict=True)
    for x, y in pairs:
        assert_close(backend.to_host(x), y, scale=norm(y), tol=1e-12)


def test_statistics_after_a_solve_are_those_of_the_host(device_xp):
    """And so is what evaluation makes of them, with one node visited, or none."""
    layer = block()
    updated = {}
    for xp in (device_xp, np):
        _, seen = applied(layer, xp)
        updated[xp] = layer.update_stats(layer.init_stats(np.float64, xp), seen)
    for x, y in zip(*map(leaves, updated.values()), strict=True):
        assert_close(backend.to_host(x), y, scale=norm(y), tol=1e-12)
    for stats in (updated, dict.fromkeys(updated)):
        y, expected = (applied(layer, xp, "eval", stats[xp])[0] for xp in (device_xp, np))
        assert_close(backend.to_host(y), expected, scale=norm(expected), tol=1e-12)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_keys_and_grids_are_not_read(device_xp, mode):
    """A state, a slope, three norms for the first step, and one for each step tried."""
    layer = block()
    applied(layer, device_xp, mode)
    before = backend.transfers().reads
    _, seen = applied(layer, device_xp, mode)
    (solved,) = solves(seen)
    assert backend.transfers().reads - before == 5 + solved.stats.n_accepted + solved.stats.n_rejected


@pytest.mark.parametrize("gradient", ["discrete", "backsolve"])
def test_gradients_of_the_weights_are_those_of_the_host(device_xp, gradient):
    layer = block("population", gradient=gradient)

    def pulled(xp):
        stats, x = layer.init_stats(np.float64, xp), xp.asarray(np.linspace(-1.0, 1.0, 24).reshape(6, 4))

        def loss(weights):
            return ops.sum(ops.square(layer.apply(weights, stats, None, x, mode="train", key=KEY)[0]))

        return leaves(grad(loss)(layer.init(KEY, np.float64, xp)))

    found, expected = pulled(device_xp), pulled(np)
    for x, y in zip(found, expected, strict=True):
        assert_close(backend.to_host(x), y, scale=norm(*expected), tol=1e-12)
