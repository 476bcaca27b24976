"""Training: it learns, every option of the configuration trains, and gradient methods agree on what they train."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from odegrad.engine.tree import leaves, leaves_with_paths
from odegrad.train import cli, loop, metrics
from odegrad.train.predictor import load
from odegrad.train.run_folder import RunFolder
from training import Silent, call, flags, tiny, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the data is."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def short(folder, tmp_path):
    """A configuration of one epoch: five steps."""
    return tiny(folder, out=str(tmp_path / "run"), epochs=1, dropout=0.0, augment=False)


def trainer_of(config):
    """A trainer that writes nothing."""
    return loop.Trainer(config, RunFolder(Path("unused")), Silent())


def stepped(trainer, state, step):
    """The state one step later, on a batch of its own."""
    n = len(trainer.training.labels)
    rows = np.arange(step * 8, step * 8 + min(trainer.config.batch_size, n)) % n
    return trainer._step(state, trainer.batch(rows), 0.0)


def after(config, n_steps):
    """The state after so many steps."""
    trainer = trainer_of(config)
    state = trainer.fresh_state()
    for step in range(n_steps):
        state = stepped(trainer, state, step)
    return state


# It learns.


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """The epochs of a run long enough for four quadrants, and its result."""
    config = tiny(tmp_path_factory.mktemp("learnt"), epochs=8, augment=False, weight_decay=0.0)
    run, result = train(config)
    return metrics.read(run.metrics), result


def test_the_training_loss_falls(learnt):
    epochs, _ = learnt
    assert epochs[-1]["train_loss"] < 0.5 * epochs[0]["train_loss"]


def test_unseen_images_are_classified(learnt):
    assert learnt[1].test_accuracy >= 0.9


def test_the_result_has_as_many_steps_as_epochs_have(learnt):
    assert learnt[1].steps == 8 * 5


def test_each_epoch_leaves_a_record(learnt):
    assert [record["epoch"] for record in learnt[0]] == list(range(1, 9))


def test_the_best_epoch_is_the_one_of_the_lowest_validation_loss(learnt):
    epochs, result = learnt
    losses = [record["validation_loss"] for record in epochs]
    assert result.best_epoch == 1 + int(np.argmin(losses))


def test_the_best_test_accuracy_is_that_of_the_best_epoch(learnt):
    epochs, result = learnt
    assert result.best_test_accuracy == epochs[result.best_epoch - 1]["test_accuracy"]


def test_without_validation_images_the_last_epoch_is_the_best(folder, tmp_path):
    _, result = train(tiny(folder, out=str(tmp_path / "run"), validation_fraction=0.0, epochs=3))
    assert result.best_epoch == 3


# Every option trains.

OPTIONS = [
    *({"norm": norm} for norm in ("none", "minibatch", "pop-ti", "tabn")),
    *({"normalize": normalize, "gradient": gradient}
      for normalize in ("batch", "population")
      for gradient in ("discrete", "tape", "backsolve", "interpolated", "reversible")),
    *({"optimizer": optimizer} for optimizer in ("adamw", "adam", "sgd")),
    *({"method": method} for method in ("rk4", "midpoint", "euler")),
    *({"keep": keep} for keep in ("all", "none")),
    {"execution": "eager"},
    {"unvisited": "initial"},
    {"dtype": "float64"},
    {"schedule": "step"},
    {"schedule": "constant", "warmup_epochs": 0.0},
    {"penalty": 0.0},
    {"clip_weights": 0.0, "clip_gamma": 0.0, "clip_alpha": 0.0},
    {"augment": True, "dropout": 0.5},
    {"batch_size": 1000},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(map(str, options.values())))
def test_every_option_trains(short, options):
    config = replace(short, **options)
    state = after(config, 2)
    start = after(config, 0)
    change = [
        abs(new - old).max() for new, old in zip(leaves(state.weights), leaves(start.weights), strict=True)
    ]
    assert np.isfinite(change).all() and max(change) > 0


@pytest.mark.parametrize("norm", ["none", "minibatch", "pop-ti", "tabn"])
def test_a_run_of_every_norm_is_evaluated_from_its_folder(short, norm):
    run, result = train(replace(short, norm=norm, method="midpoint", step_size=0.5))
    assert np.isfinite(result.loss) and 0 <= result.test_accuracy <= 1


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-10)])
@pytest.mark.parametrize("normalize", ["batch", "population"])
def test_tape_and_discrete_make_the_same_steps(short, dtype, tolerance, normalize):
    """From the same state each time: round-off of one step may put a unit on the other side of ReLU's kink in the next."""
    # SGD: Adam divides by the gradient's own size, which magnifies round-off where a gradient is nearly zero.
    config = replace(short, dtype=dtype, normalize=normalize, optimizer="sgd")
    tape, discrete = (trainer_of(replace(config, gradient=gradient)) for gradient in ("tape", "discrete"))
    state = tape.fresh_state()
    for step in range(2):
        start, state = state, stepped(tape, state, step)
        assert distance(state.weights, stepped(discrete, start, step).weights) <= tolerance


def test_backsolve_takes_nearly_the_same_step(short):
    """The continuous adjoint: as near as rtol and the kinks of ReLU allow, and never called exact."""
    config = replace(short, dtype="float64", optimizer="sgd", norm="minibatch", rtol=1e-4, atol=1e-4)
    start, discrete, backsolve = (
        np.concatenate(
            [leaf.ravel() for leaf in leaves(after(replace(config, gradient=gradient), n).weights)]
        )
        for gradient, n in (("discrete", 0), ("discrete", 1), ("backsolve", 1))
    )
    assert np.linalg.norm(backsolve - discrete) <= 0.1 * np.linalg.norm(discrete - start)


def distance(first, second):
    """The largest difference of two trees, relative to the largest number of the first."""
    scale = max(abs(leaf).max() for leaf in leaves(first))
    return max(abs(a - b).max() for a, b in zip(leaves(first), leaves(second), strict=True)) / scale


# What a run is made of.


def test_the_same_seed_gives_the_same_weights(short):
    first, second = (after(short, 2).weights for _ in range(2))
    assert distance(first, second) == 0.0


@pytest.mark.parametrize("name", ["clip_weights", "clip_gamma"])
def test_a_step_along_a_clipped_gradient_is_no_longer_than_the_bound(short, name):
    config = replace(
        short, optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="constant", lr=1.0, dtype="float64",
        **{name: 1e-3},
    )  # fmt: skip
    before, moved = (dict(leaves_with_paths(after(config, n).weights)) for n in (0, 1))
    chosen = [path for path in before if name == "clip_weights" or path[-1] == "gamma"]
    length = np.sqrt(sum(((moved[path] - before[path]) ** 2).sum() for path in chosen))
    assert length == pytest.approx(1e-3, rel=1e-9)


def test_another_seed_gives_other_weights(short):
    first, second = (after(replace(short, seed=seed), 0).weights for seed in (0, 1))
    assert distance(first, second) > 0.1


def test_statistics_are_updated_once_a_step(short):
    """One step visits the first node once, with the first stage of its first step."""
    state = after(short, 3)
    visits = next(leaf for path, leaf in leaves_with_paths(state.stats) if path[-1] == "visits")
    assert np.isfinite(visits).all() and visits[0] > 0


def test_pixel_statistics_are_those_of_the_images_trained_on(short):
    trainer = loop.Trainer(short, RunFolder(Path("unused")), Silent())
    pixels = trainer.training.images.astype(np.float64) / 255
    np.testing.assert_allclose(trainer.model.preprocessing.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)


def test_a_step_leaves_the_state_before_it_whole(short):
    trainer = loop.Trainer(short, RunFolder(Path("unused")), Silent())
    state = trainer.fresh_state()
    before = {name: array.tobytes() for name, array in state.arrays().items()}
    trainer._step(state, trainer.batch(np.arange(8)), 0.0)
    assert {name: array.tobytes() for name, array in state.arrays().items()} == before


def test_a_run_of_float64_is_loaded_as_float64(short):
    run, _ = train(replace(short, dtype="float64", method="midpoint", step_size=0.5))
    assert {leaf.dtype for leaf in leaves(load(run.path).weights)} == {np.dtype(np.float64)}


def test_rejected_steps_and_evaluations_are_counted_per_solve(short):
    run, _ = train(replace(short, method="rk4", step_size=0.25))
    [record] = metrics.read(run.metrics)
    assert (record["nfe_forward"], record["n_rejected"]) == (4 * 4, 0.0)


def test_a_fixed_step_is_a_flag(folder, tmp_path, capsys, monkeypatch):
    config = tiny(folder, out=str(tmp_path / "run"), method="euler", step_size=0.5, epochs=1, norm="none")
    monkeypatch.setattr(cli, "_draw", lambda run, reporter: [])
    assert call(capsys, "train", *flags(config), "--json")[0] == 0
