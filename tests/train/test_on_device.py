"""Training on a device, on the stand-in for CuPy: what the host would compute, and runs that move between the two."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from odegrad import ArgumentError, load
from odegrad.engine import backend
from odegrad.engine.tree import leaves
from odegrad.train import loop, metrics, run_folder
from odegrad.train.checkpoint import load as load_checkpoint
from odegrad.train.config import to_toml
from odegrad.train.predictor import restored
from training import Silent, quadrants, tiny, train

FAST = {"dtype": "float64", "epochs": 1, "method": "midpoint", "step_size": 0.5, "tabn_nodes": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the data is."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def configured(folder, tmp_path):
    """A short run on a device, with the changes asked for."""
    return lambda name, **changes: tiny(
        folder, **{"out": str(tmp_path / name), "device": "cuda", **FAST, **changes}
    )


def arrays_of(run):
    return load_checkpoint(run.last).arrays


def assert_same_arrays(found, expected):
    """To 1e-8 of the largest entry among the weights, the first moments, ...

    The gradient of a bias before a norm is zero, and of its round-off Adam makes steps by dividing by eps = 1e-8.
    """
    assert found.keys() == expected.keys()
    largest: dict[str, float] = {}
    for name, array in expected.items():
        largest[group_of(name)] = max(
            largest.get(group_of(name), 0.0), float(np.max(np.abs(array), initial=0.0))
        )
    for name, array in expected.items():
        atol = 1e-8 * largest[group_of(name)]
        np.testing.assert_allclose(found[name], array, rtol=0, atol=atol, err_msg=name)


def group_of(name):
    """ "optimizer/m", "weights", "stats/var", ..."""
    first, *parts = name.split("/")
    return f"{first}/{parts[0] if first == 'optimizer' else parts[-1] if first == 'stats' else ''}"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_on_the_device_is_that_on_the_host(fake_cupy, configured, optimizer):
    """With augmentation and dropout: the random numbers are the same."""
    on_device, _ = train(configured("device", optimizer=optimizer, clip_weights=0.1))
    on_host, _ = train(configured("host", optimizer=optimizer, clip_weights=0.1, device="cpu"))
    assert_same_arrays(arrays_of(on_device), arrays_of(on_host))


@pytest.mark.parametrize("gradient", ["backsolve", "interpolated"])
def test_an_adaptive_run_on_the_device_is_that_on_the_host(fake_cupy, configured, gradient):
    changes = {"gradient": gradient, "method": "dopri5", "step_size": 0.1, "rtol": 0.1, "atol": 0.1}
    runs = [train(configured(device, device=device, **changes))[0] for device in ("cuda", "cpu")]
    assert_same_arrays(*map(arrays_of, runs))


def test_the_weights_stay_on_the_device(fake_cupy, configured):
    run, _ = train(configured("run"))
    model, state = restored(run, "last")
    assert all(backend.is_device_array(x) for x in leaves((model.weights, model.stats, state.optimizer["m"])))


class StoppedAfterAnEpoch(Silent):
    def end_epoch(self, record):
        raise KeyboardInterrupt


@pytest.mark.parametrize("first, then", [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_begun_on_one_device_ends_on_the_other(fake_cupy, configured, first, then):
    """The first of two epochs here, the second one there."""
    whole, _ = train(configured("whole", epochs=2, device="cpu"))
    run, reporter = run_folder.create(configured("moved", epochs=2, device=first)), Silent()
    with pytest.raises(KeyboardInterrupt):
        loop.train(run.config(), run, StoppedAfterAnEpoch())
    run.config_file.write_text(to_toml(replace(run.config(), device=then)))
    loop.resume(run, reporter)
    assert f"config.toml was edited: device = {then!r}, was {first!r}" in reporter.messages
    assert_same_arrays(arrays_of(run), arrays_of(whole))


def test_nothing_is_made_where_there_is_no_device(fake_cupy, configured, monkeypatch):
    monkeypatch.setattr(fake_cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    config = configured("run")
    with pytest.raises(ArgumentError, match="finds no GPU"):
        run_folder.create(config)
    assert not Path(config.out).exists()


def test_another_card_is_said_when_a_run_is_resumed(fake_cupy, configured, monkeypatch):
    run = run_folder.create(configured("run"))
    assert run.version_changes() == []
    runtime = fake_cupy.cuda.runtime
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda device: {"name": b"another"})
    assert run.version_changes() == ["gpu: stand-in then, another now"]


def test_predictions_are_those_of_the_host(fake_cupy, configured):
    run, _ = train(configured("run"))
    images = quadrants(5, 3)[0]
    on_device = load(run.path).predict_proba(images)
    on_host = load(run.path, device="cpu").predict_proba(images)
    assert isinstance(on_device, np.ndarray)
    np.testing.assert_allclose(on_device, on_host, rtol=1e-10)


def test_a_run_of_rounded_products_can_be_loaded_on_the_host(fake_cupy, configured):
    config = configured("run", dtype="float32")
    run, _ = train(config)
    run.config_file.write_text(to_toml(replace(config, precision="tf32")))
    assert load(run.path, device="cpu").config.precision == "fp32"


def test_the_log_has_the_memory_of_each_phase(fake_cupy, configured):
    run, _ = train(configured("run"))
    (epoch,) = metrics.read(run.metrics)
    assert (epoch["train_memory_mb"], epoch["evaluation_memory_mb"]) == (3.0, 3.0)


def test_memory_is_counted_anew_in_each_phase(fake_cupy, configured, monkeypatch):
    """The pool's total falls when it gives back what training used."""
    held = [8 << 20, 2 << 20]
    phases = iter(held)
    pool = fake_cupy.get_default_memory_pool()
    pool.free_all_blocks = lambda: setattr(pool, "total", next(phases))
    pool.total_bytes = lambda: pool.total
    monkeypatch.setattr(fake_cupy, "get_default_memory_pool", lambda: pool)
    run, result = train(configured("run"))
    (epoch,) = metrics.read(run.metrics)
    assert (epoch["train_memory_mb"], epoch["evaluation_memory_mb"]) == (8.0, 2.0)
    assert result.peak_gpu_memory_mb == 8.0


def test_a_step_reads_a_handful_of_numbers(fake_cupy, configured):
    """y0 and the first slope, each step of the solve, loss, all norms, hits, and one for each of the five norms' moments."""
    config = configured("run", tabn_nodes=3)
    trainer = loop.Trainer(config, run_folder.RunFolder(config.out), Silent())
    state = trainer.fresh_state()
    batch = [backend.to_xp(fake_cupy, array) for array in trainer.batch(np.arange(8))]
    state = trainer._step(state, batch, 0.0)
    before = backend.transfers().reads
    trainer._step(state, batch, 0.0)
    assert backend.transfers().reads - before == 2 + 2 + 1 + 1 + 1 + 5


def test_batches_go_to_the_device_beside_the_computation(fake_cupy, configured):
    train(configured("run"))
    streams = {call[1] for call in fake_cupy.calls if call[0] == "upload"} - {None}
    assert streams and all(stream.is_non_blocking for stream in streams)
