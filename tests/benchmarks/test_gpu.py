"""`benchmarks/gpu.sh` and its parts, as far as a machine without a GPU goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from odegrad.engine import backend
from odegrad.engine.backend import to_host
from odegrad.engine.errors import CheckpointError
from odegrad.train.checkpoint import load, save
from odegrad.train.config import make_config
from odegrad.train.run_folder import create

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import __main__ as gpu  # noqa: E402
from benchmarks.gpu import checkpoint_parts, lorenz, products, solves, unet  # noqa: E402
from benchmarks.gpu.__main__ import Part, json_lines, run  # noqa: E402
from benchmarks.gpu.bars import BARS  # noqa: E402
from benchmarks.gpu.device import Device  # noqa: E402
from benchmarks.gpu.report import Findings, PartResult  # noqa: E402
from benchmarks.workloads import conv_net, toy  # noqa: E402

PARTS = ["card", "kernels", "solves", "lorenz", "unet"]


def call(*words, python=sys.executable):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": python}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_runs_at_toy_size(name):
    done = call(sys.executable, "-m", f"benchmarks.gpu.{name}", "--toy")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines and {line["benchmark"] for line in lines} == {name}
    assert all(line["median_s"] > 0 for line in lines if "method" in line)


def small(name):
    return conv_net(name, (2, 4, 4, 32), 2, 1e-2, "float32") if name == "conv-w5" else toy()["mlp-4"]()


@pytest.mark.parametrize("gradient", ["discrete", "backsolve"])
@pytest.mark.parametrize("name", ["conv-w5", "mlp-4"])
def test_workloads_on_a_device_are_those_of_the_host(fake_cupy, name, gradient):
    losses = [
        solves.ours(small(name), Device(xp, device), gradient)()[0]
        for xp, device in ((np, "cpu"), (fake_cupy, "cuda"))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_network_on_a_device_is_that_of_the_host(fake_cupy):
    problems = [unet.Problem(Device(*place), toy=True) for place in ((np, "cpu"), (fake_cupy, "cuda"))]
    losses = [unet.ours(problem, problem.block)() for problem in problems]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("has_package", [True, False])
def test_products_on_a_device_are_compared_and_what_is_missing_is_said(
    fake_cupy, monkeypatch, capsys, has_package
):
    multiplied = []
    monkeypatch.setattr(backend, "cublaslt_module", lambda: object() if has_package else None)
    monkeypatch.setattr(products, "product_calls", lambda out, a, b: None)
    monkeypatch.setattr(
        products, "matmul_cublaslt", lambda a, b, out: multiplied.append(fake_cupy.matmul(a, b, out=out))
    )
    monkeypatch.setattr(Device, "synchronise", lambda device: None)
    products.measure_products(Device(fake_cupy, "cuda"), products.TOY, "fp32", 0.01)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {line["method"] for line in lines if "method" in line}
    assert found == ({"cupy", "cublasLt"} if has_package else {"cupy"})
    assert [line["note"] for line in lines if "note" in line] == ([] if has_package else [products.WITHOUT])
    assert bool(multiplied) == has_package


@pytest.mark.parametrize("independent", [False, True])
def test_lorenz_systems_on_a_device_are_those_of_the_host(fake_cupy, independent):
    y0 = lorenz.starts(8, "float64")
    ends = [
        to_host(lorenz.ours(y0, Device(*place), independent=independent)())
        for place in ((np, "cpu"), (fake_cupy, "cuda"))
    ]
    np.testing.assert_allclose(*ends, rtol=1e-4)


@pytest.fixture(scope="module")
def without_gpu(tmp_path_factory):
    """What the script did on this machine with all GPUs hidden, and its folder."""
    out = tmp_path_factory.mktemp("gpu") / "results"
    return call("bash", "benchmarks/gpu.sh", str(out)), out


def test_the_script_says_that_there_is_no_gpu(without_gpu):
    done, _ = without_gpu
    assert done.returncode == 2 and "no GPU was found: " in done.stderr
    assert "pip could not install" not in done.stderr


def test_every_bar_is_listed_as_unmeasured(without_gpu):
    content = json.loads((without_gpu[1] / "gpu.json").read_text())
    assert {bar["bar"]: bar["met"] for bar in content["bars"]} == dict.fromkeys(BARS)
    assert (without_gpu[1] / "gpu.md").read_text().count("| unmeasured |") == len(BARS)


@pytest.mark.parametrize("words", [[], ["out", "data"], ["out", "data", "1", "parts", "more"]])
def test_wrong_arguments_are_answered_with_the_usage(words, tmp_path):
    done = call("bash", "benchmarks/gpu.sh", *words)
    assert (
        done.returncode == 64 and "benchmarks/gpu.sh OUT [DATA_FOLDER MINUTES [PARTS_FOLDER]]" in done.stderr
    )


def test_a_python_without_the_packages_is_told_which(tmp_path):
    """`-S` leaves out what is installed."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    python.chmod(0o755)
    done = call("bash", "benchmarks/gpu.sh", str(tmp_path / "out"), python=str(python))
    assert done.returncode == 3 and "lacks: numpy scipy h5py" in done.stderr
    assert "lacks: numpy" in (tmp_path / "out" / "gpu.md").read_text()


def wheel(folder, name, file, text):
    """A wheel of one file."""
    about = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(file, text)
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


def test_wheels_that_are_given_are_used_and_a_broken_one_is_named(tmp_path):
    """In the place of what Python has: this CuPy counts no devices, and it needs two wheels that share a folder."""
    counting = "class cuda:\n    class runtime:\n        getDeviceCount = staticmethod(lambda: 0)\n"
    wheel(tmp_path, "cupy", "cupy.py", "from shared import one, two\n\n" + counting)
    for name in ("one", "two"):
        wheel(tmp_path, f"shared_{name}", f"shared/{name}.py", "")
    (tmp_path / "other-1.0-py3-none-any.whl").write_bytes(b"not an archive")
    environment = {**os.environ, "PYTHON": sys.executable, "WHEELS": str(tmp_path)}
    words = ["bash", "benchmarks/gpu.sh", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "no GPU was found: CuPy sees no CUDA device" in done.stderr
    assert (
        f"pip could not install {tmp_path}/other-1.0-py3-none-any.whl, so this run does without"
        in done.stderr
    )
    assert done.stderr.count("pip could not install") == 1


def of_python(text, limit=60.0):
    return Part("some", (sys.executable, "-c", text), limit)


def test_a_part_that_fails_is_reported_with_its_last_words():
    findings = Findings()
    result = run(of_python("print('{\"a\": 1}'); raise SystemExit('no such card')"), 60.0, findings)
    assert (result.state, result.said) == ("failed", "no such card")
    assert findings.lines == [{"a": 1}]


def test_a_part_that_takes_too_long_keeps_what_it_found():
    findings = Findings()
    text = "import time; print('{\"a\": 1}', flush=True); time.sleep(60)"
    result = run(of_python(text), 2.0, findings)
    assert result.state == "timed out" and findings.lines == [{"a": 1}]
    assert "KeyboardInterrupt" in result.said  # and where it was


def test_a_part_that_ignores_ctrl_c_is_ended(monkeypatch):
    monkeypatch.setattr(gpu, "TO_SAY", 0.5)
    text = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    assert run(of_python(text), 2.0, Findings()).state == "timed out"


def test_a_line_that_was_cut_off_is_left_out():
    assert json_lines('{"a": 1}\nwords\n{"b": ') == [{"a": 1}]


@pytest.mark.parametrize("value, met", [(0.96, True), (0.94, False)])
def test_a_bar_is_judged(tmp_path, value, met):
    bar = "conv fprop tf32"
    Findings(lines=[{"benchmark": "kernels", "bar": bar, "value": value}]).write(tmp_path)
    bars = json.loads((tmp_path / "gpu.json").read_text())["bars"]
    assert [found["met"] for found in bars if found["bar"] == bar] == [met]


def test_what_failed_is_on_the_page(tmp_path):
    Findings(parts=[PartResult("unet", "failed", 3.0, "out of memory")]).write(tmp_path)
    assert "`unet` (failed):\n\n```\nout of memory\n```" in (tmp_path / "gpu.md").read_text()


def test_one_part_after_another_writes_one_page(tmp_path):
    done = call(sys.executable, "-m", "benchmarks.gpu", str(tmp_path), "--toy", "--only", "card", "lorenz")
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert done.returncode == 0 and [part["state"] for part in content["parts"]] == ["done", "done"]
    assert content["card"]["processor"] and {line["benchmark"] for line in content["lines"]} == {
        "card",
        "lorenz",
    }


def test_an_unknown_part_is_named(tmp_path):
    done = call(sys.executable, "-m", "benchmarks.gpu", str(tmp_path), "--toy", "--only", "cards")
    assert done.returncode == 1 and "no part named cards; there are card, kernels, " in done.stderr


def test_the_parts_fit_into_nine_minutes(tmp_path):
    given = Namespace(toy=False, data=None, only=None, out=tmp_path, minutes=0.0, earlier=None)
    assert sum(part.seconds for part in gpu.parts_of(given)) <= gpu.LIMIT <= 540 - gpu.TO_SAY - 20


def test_without_time_a_part_is_skipped(tmp_path):
    words = ["--toy", "--only", "card", "--limit", "1"]
    assert call(sys.executable, "-m", "benchmarks.gpu", str(tmp_path), *words).returncode == 0
    [part] = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert (part["state"], part["said"]) == ("skipped", "no time was left")


@pytest.fixture
def saved(tmp_path):
    """A run with a checkpoint of some 80 kB."""
    made = create(make_config({"out": str(tmp_path / "run")}))
    save(made.last, {"weights/w": np.random.default_rng(0).standard_normal(10_000)}, {"step": 3})
    made.metrics.write_text('{"kind": "epoch"}\n')
    return made


def test_parts_are_few_and_small(saved, tmp_path):
    parts = checkpoint_parts.split(saved, tmp_path / "parts", part_bytes=20_000)
    assert len(parts) == len(list((tmp_path / "parts").iterdir())) == 6
    assert max(part.stat().st_size for part in parts[:-1]) <= 20_000


def test_hdf5_reads_the_parts_as_one_file(saved, tmp_path):
    checkpoint_parts.split(saved, tmp_path / "parts", part_bytes=20_000)
    with h5py.File(tmp_path / "parts" / "checkpoint-%d.h5", "r", driver="family", memb_size=20_000) as file:
        assert file["checkpoint"][()].tobytes() == saved.last.read_bytes()


def test_joined_parts_are_the_run(saved, tmp_path):
    checkpoint_parts.split(saved, tmp_path / "parts", part_bytes=20_000)
    joined = checkpoint_parts.join(tmp_path / "parts", tmp_path / "again", "some/data")
    for name in ("last", "metrics", "versions_file"):
        assert getattr(joined, name).read_bytes() == getattr(saved, name).read_bytes()
    assert joined.config() == replace(saved.config(), data_dir="some/data")


def test_parts_of_an_older_slice_are_replaced(saved, tmp_path):
    checkpoint_parts.split(saved, tmp_path / "parts", part_bytes=20_000)
    parts = checkpoint_parts.split(saved, tmp_path / "parts", part_bytes=90_000)
    assert set((tmp_path / "parts").iterdir()) == set(parts) and len(parts) == 2


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_part_that_is_not_whole_is_named(saved, tmp_path, harm):
    part = checkpoint_parts.split(saved, tmp_path / "parts", part_bytes=20_000)[1]
    part.unlink() if harm == "missing" else part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=f"{part.name}: {harm}"):
        checkpoint_parts.join(tmp_path / "parts", tmp_path / "again")


def test_a_checkpoint_that_is_too_large_is_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match="do not fit into 5 parts of 10000"):
        checkpoint_parts.split(saved, tmp_path / "parts", part_bytes=10_000)


def sliced(out, *words):
    """The last line of a slice of training on the digits."""
    done = call(sys.executable, "-m", "benchmarks.gpu.training", "--toy", "--out", str(out), *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_slices_make_the_run_that_one_slice_makes(tmp_path):
    whole = sliced(tmp_path / "whole")
    first = sliced(tmp_path / "first", "--minutes", "0")
    second = sliced(tmp_path / "second", "--from", str(tmp_path / "first" / "checkpoint"))
    assert (first["steps_now"], first["is_finished"], second["is_finished"]) == (1, False, True)
    assert second["step"] == whole["step"] == first["steps_now"] + second["steps_now"]
    states = [
        load(checkpoint_parts.join(tmp_path / name / "checkpoint", tmp_path / f"{name} again").last).arrays
        for name in ("whole", "second")
    ]
    assert states[0].keys() == states[1].keys()
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
