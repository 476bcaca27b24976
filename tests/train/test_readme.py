"""What the README says works: its scripts run, its commands are commands, what it links to is there."""

import ast
import contextlib
import re
from pathlib import Path

import pytest
from odegrad.solvers import METHODS
from odegrad.train.arguments import HelpShown, parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING, SOLVER, RECORDED, BALL, FROM_SCIPY = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_training_script_has_at_most_25_lines():
    assert len(TRAINING.splitlines()) <= 25


def test_the_training_script_imports_numpy_and_odegrad_alone():
    imports = [
        node for node in ast.walk(ast.parse(TRAINING)) if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in imports if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in names} == {"numpy", "odegrad"}


def test_the_training_script_runs_and_learns(capsys):
    assert TRAINING.count("200") == 2
    names: dict[str, object] = {}
    exec(compile(TRAINING.replace("200", "15"), "README.md", "exec"), names)  # the whole takes ten seconds
    printed = capsys.readouterr().out
    loss, accuracy = re.fullmatch(r"loss (\S+), test accuracy (\S+)%\n", printed).groups()
    assert float(loss) < 2.0 and float(accuracy) > 30.0  # at random: 2.3 and 10%


def test_the_script_of_the_solver_differentiates():
    names: dict[str, object] = {}
    exec(compile(SOLVER, "README.md", "exec"), names)
    w, h = names["np"].eye(2), 1e-5
    bent = names["np"].array([[h, 0.0], [0.0, 0.0]])
    slope = (names["last_norm"](w + bent) - names["last_norm"](w - bent)) / (2 * h)
    assert names["gradient"][0, 0] == pytest.approx(slope, rel=1e-6)


def test_the_script_of_a_recorded_step_gives_what_a_plain_one_gives():
    names: dict[str, object] = {}
    exec(compile(SOLVER + RECORDED, "README.md", "exec"), names)
    value, gradient = names["odegrad"].value_and_grad(names["last_norm"])(0.5 * names["np"].eye(2))
    assert names["value"] == pytest.approx(value, rel=1e-12)
    assert names["gradient"] == pytest.approx(gradient, rel=1e-12)


def test_the_script_of_the_bouncing_ball_differentiates():
    names: dict[str, object] = {}
    exec(compile(SOLVER + BALL, "README.md", "exec"), names)
    slope = (
        names["height"](names["np"].array(0.9 + 1e-5)) - names["height"](names["np"].array(0.9 - 1e-5))
    ) / 2e-5
    assert names["slope"] == pytest.approx(slope, rel=1e-6)


def test_the_table_of_solvers_has_every_method_once():
    table = README.split("\n## Solvers\n")[1].split("\n\n")[1]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(METHODS)


def test_the_script_from_scipy_solves(capsys):
    names: dict[str, object] = {}
    exec(compile(SOLVER + FROM_SCIPY, "README.md", "exec"), names)
    assert names["decay"].y[:, -1] == pytest.approx([2 * 0.0067379, 4 * 0.0067379, 8 * 0.0067379], rel=1e-2)


COMMANDS = sorted(set(re.findall(r"odegrad (train|evaluate|resume|predict|plot)((?: [^\s`]+)*)", README)))


STAND_INS = {"DATASET": "digits", "NORM": "none", "METHOD": "tape", "RUN": "run", "FILES...": "image.png"}


@pytest.mark.parametrize(("command", "words"), COMMANDS, ids=lambda words: words.strip())
def test_every_command_is_one(command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    Path("run/config.toml").write_text('dataset = "digits"\n')
    for name, value in STAND_INS.items():
        words = words.replace(name, value)
    with contextlib.suppress(HelpShown):
        parse(command, words.split())


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(target):
    assert target.startswith("https://") or (ROOT / target).is_file()


@pytest.mark.parametrize("folder", re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE))
def test_every_folder_is_there(folder):
    assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("target", ["train", "test"])
def test_both_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
