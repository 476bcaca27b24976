"""Pictures: each is drawn from what a run knows, as a whole PNG file, or refused by name.

What a picture shows is read back from its pixels: the fixed colours of the style stand for what was drawn.
"""

import numpy as np
import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.train.plots import (
    TemporalNorm,
    draw_learning_curves,
    draw_nfe,
    draw_temporal_norms,
    draw_worst,
)
from PIL import Image

BLUE, ORANGE, GREEN, GREY = (0, 114, 178), (213, 94, 0), (0, 158, 115), (102, 102, 102)


def n_pixels(path, colour):
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("RGB")) == colour).all(axis=2).sum())


def epoch(number, **changes):
    record = {"kind": "epoch", "epoch": number, "train_loss": 1 / number, "train_accuracy": 1 - 0.5 / number}
    record |= {"nfe_forward": 20.0, "nfe_backward": 30.0, "n_rejected": 1.0}
    return record | changes


@pytest.mark.parametrize("n_epochs", [1, 200])
@pytest.mark.parametrize("draw", [draw_learning_curves, draw_nfe])
def test_curves_of_any_length_are_drawn(draw, n_epochs, tmp_path):
    draw([epoch(i + 1) for i in range(n_epochs)], tmp_path / "p.png")
    assert n_pixels(tmp_path / "p.png", BLUE) > 50


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_part_that_was_evaluated_has_a_curve(part, tmp_path):
    colour = {"validation": ORANGE, "test": GREEN}[part]
    draw_learning_curves([epoch(1), epoch(2)], tmp_path / "without.png")
    draw_learning_curves(
        [epoch(i, **{f"{part}_loss": 0.5, f"{part}_accuracy": 0.5}) for i in (1, 2)], tmp_path / "with.png"
    )
    assert n_pixels(tmp_path / "without.png", colour) == 0 < n_pixels(tmp_path / "with.png", colour)


@pytest.mark.parametrize("changes", [{"train_accuracy": 1.0}, {"train_loss": 0.0}, {"train_loss": None}])
def test_values_that_no_logarithm_shows_are_drawn(changes, tmp_path):
    draw_learning_curves([epoch(1), epoch(2, **changes)], tmp_path / "p.png")
    assert n_pixels(tmp_path / "p.png", BLUE) > 50


@pytest.mark.parametrize("draw", [draw_learning_curves, draw_nfe])
def test_no_epochs_are_refused(draw, tmp_path):
    with pytest.raises(ArgumentError, match="`epochs` is empty"):
        draw([], tmp_path / "p.png")


GRID = np.linspace(0.0, 1.0, 11)


def norm(channels, visits=None, dtype=np.float32):
    values = np.outer(GRID, np.linspace(-1.0, 1.0, channels)).astype(dtype)
    visits = np.full(11, 5.0) if visits is None else visits
    return TemporalNorm(mean=values, var=1.0 + values**2, gamma=1.0 + values, alpha=values, visits=visits)


@pytest.mark.parametrize("channels", [1, 4, 5, 300])
def test_any_number_of_channels_is_drawn(channels, tmp_path):
    draw_temporal_norms({"conv": norm(channels)}, GRID, tmp_path / "p.png")
    assert n_pixels(tmp_path / "p.png", ORANGE) > 50


def test_each_layer_has_a_row(tmp_path):
    draw_temporal_norms({"a": norm(5)}, GRID, tmp_path / "one.png")
    draw_temporal_norms({"a": norm(5), "b": norm(3), "c": norm(1)}, GRID, tmp_path / "three.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "three.png") as three:
        assert three.height > 2 * one.height


def test_nodes_that_were_not_visited_are_marked(tmp_path):
    one, many = np.full(11, 5.0), np.full(11, 5.0)
    one[3], many[2:10] = 0.9, 0.9
    draw_temporal_norms({"conv": norm(5, one)}, GRID, tmp_path / "one.png")
    draw_temporal_norms({"conv": norm(5, many)}, GRID, tmp_path / "many.png")
    marks = [n_pixels(tmp_path / name, GREY) for name in ("one.png", "many.png")]
    assert marks[1] > marks[0] + 500  # the legend is grey in both


def test_norms_of_another_shape_are_listed(tmp_path):
    with pytest.raises(ArgumentError, match=r"a: expected .*\(11, 2\).*visits \(3,\).*b: expected"):
        draw_temporal_norms({"a": norm(2, np.ones(3)), "b": norm(2, np.ones(4))}, GRID, tmp_path / "p.png")


def test_no_norms_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="no TA-BN layer"):
        draw_temporal_norms({}, GRID, tmp_path / "p.png")


def classified(n, channels=1, n_wrong=0):
    """n black images of class 0, of which the first ones are taken for class 1."""
    probabilities = np.tile([0.9, 0.1], (n, 1))
    probabilities[:n_wrong] = [0.2, 0.8]
    return np.zeros((n, 8, 8, channels), np.uint8), np.zeros(n, np.int64), probabilities, ("yes", "no" * 20)


@pytest.mark.parametrize(("n", "channels"), [(1, 1), (11, 3), (60, 1)])
def test_any_number_of_images_is_drawn(n, channels, tmp_path):
    images, *rest = classified(n, channels)
    draw_worst(images, *rest, tmp_path / "p.png")
    shown = n_pixels(tmp_path / "p.png", (0, 0, 0))
    assert min(n, 40) * 5000 < shown < min(n, 40) * 25000


def test_wrong_images_have_a_frame(tmp_path):
    draw_worst(*classified(12), tmp_path / "right.png")
    draw_worst(*classified(12, n_wrong=2), tmp_path / "wrong.png")
    assert n_pixels(tmp_path / "right.png", ORANGE) == 0 < n_pixels(tmp_path / "wrong.png", ORANGE)


def test_the_worst_come_first(tmp_path):
    images, labels, probabilities, classes = classified(30)
    images[17], probabilities[17] = 255, [0.4, 0.6]  # the only white image is the only wrong one
    draw_worst(images, labels, probabilities, classes, tmp_path / "p.png", count=1)
    with Image.open(tmp_path / "p.png") as picture:
        left = np.asarray(picture.convert("L"))[90:180, 20:130]
    assert (left == 255).mean() > 0.9


@pytest.mark.parametrize(
    "change",
    [
        {0: np.zeros((3, 8, 8, 1), np.uint8)},
        {0: np.zeros((4, 8, 8, 1))},
        {0: np.zeros((4, 8, 8), np.uint8)},
        {2: np.zeros((4, 3))},
    ],
)
def test_images_that_do_not_belong_together_are_refused(change, tmp_path):
    arguments = list(classified(4))
    for position, value in change.items():
        arguments[position] = value
    with pytest.raises(ArgumentError, match=r"expected images uint8 \(4, H, W"):
        draw_worst(*arguments, tmp_path / "p.png")


def test_no_images_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="`labels` is empty"):
        draw_worst(*classified(0), tmp_path / "p.png")


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    draw_nfe([epoch(1)], tmp_path / "p.png")
    before = (tmp_path / "p.png").read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        draw_nfe([epoch(1), epoch(2)], tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
