"""Learning rates against values computed by hand."""

import pytest
from odegrad.engine.errors import ArgumentError
from odegrad.train.config import TrainConfig
from odegrad.train.schedules import constant, cosine, learning_rate, make_schedule, step_decay


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (constant, [1.0, 1.0, 1.0, 1.0, 1.0]),
        (step_decay, [1.0, 1.0, 0.1, 0.1, 0.1]),
        (cosine, [1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0.0]),
    ],
)
def test_decay_at_quarters(decay, expected):
    assert [decay(quarter / 4) for quarter in range(5)] == pytest.approx(expected, abs=1e-15)


def test_steps_at_given_fractions_multiply():
    at = {"at": (0.3, 0.6), "factor": 0.5}
    rates = [step_decay(step / 10, **at) for step in range(10)]
    assert rates == [1.0] * 3 + [0.5] * 3 + [0.25] * 4


def test_warm_up_rises_linearly_to_the_peak():
    rates = [learning_rate(s, peak=0.4, decay=constant, total_steps=10, warmup_steps=4) for s in range(6)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rel=1e-15)


def test_decay_covers_the_steps_after_the_warm_up():
    rates = [learning_rate(s, peak=2.0, decay=cosine, total_steps=6, warmup_steps=2) for s in range(2, 7)]
    assert rates == pytest.approx([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0], abs=1e-15)


@pytest.mark.parametrize("step", [10, 11, 1000])
def test_beyond_the_end_the_last_rate_stays(step):
    assert learning_rate(step, peak=1.0, decay=step_decay, total_steps=10) == 0.1


def test_a_warm_up_longer_than_the_training_is_only_a_warm_up():
    rates = [learning_rate(s, peak=1.0, decay=cosine, total_steps=2, warmup_steps=4) for s in range(2)]
    assert rates == [0.25, 0.5]


@pytest.mark.parametrize("bad", [{"step": -1}, {"total_steps": 0}, {"warmup_steps": -1}])
def test_bad_counts_are_refused(bad):
    with pytest.raises(ArgumentError, match="must not be negative"):
        learning_rate(**({"step": 0, "peak": 1.0, "decay": constant, "total_steps": 1} | bad))


def test_the_configuration_makes_the_schedule():
    config = TrainConfig(lr=1.0, schedule="step", epochs=4, warmup_epochs=0.5)
    schedule = make_schedule(
        config, steps_per_epoch=4
    )  # 2 steps of warm-up, then 14, the drop after 7 of them
    assert [schedule(step) for step in (0, 1, 8, 9, 15)] == pytest.approx([0.5, 1.0, 1.0, 0.1, 0.1])


def test_the_paper_drops_at_half():
    schedule = make_schedule(TrainConfig(lr=1.0, schedule="step", epochs=128, warmup_epochs=0), 100)
    assert (schedule(6399), schedule(6400)) == pytest.approx((1.0, 0.1))
