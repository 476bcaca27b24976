"""Progress: what is written, to a pipe and to a terminal."""

import io

import pytest
from odegrad.train.metrics import EpochRecord
from odegrad.train.progress import (
    BarReporter,
    PlainReporter,
    StepNumbers,
    duration,
    epoch_text,
    make_reporter,
    step_text,
)

STEP = StepNumbers(loss=0.51234, accuracy=0.8765, nfe_forward=20.4, nfe_backward=30.6, n_rejected=1)
EPOCH = EpochRecord(
    step=40,
    epoch=2,
    lr=1e-3,
    seconds=12.34,
    train_loss=0.5,
    train_accuracy=0.9,
    validation_loss=0.4,
    validation_accuracy=0.95,
    nfe_forward=20.25,
    nfe_backward=31.0,
    n_rejected=0.5,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def plain(interval=30.0):
    stream, clock = io.StringIO(), Clock()
    return PlainReporter(stream, interval, clock), stream, clock


def test_a_terminal_gets_a_bar():
    assert isinstance(make_reporter(Terminal()), BarReporter)


def test_a_pipe_gets_lines():
    assert isinstance(make_reporter(io.StringIO()), PlainReporter)


def test_the_numbers_of_a_step():
    assert step_text(STEP) == "loss 0.5123  acc 87.65%  nfe 20+31  rejected 1"


@pytest.mark.parametrize(
    "part",
    [
        "loss 0.5000",
        "acc 90.00%",
        "validation 95.00%",
        "nfe 20.2+31.0",
        "rejected 0.50",
        "lr 1.00e-03",
        "12.3s",
    ],
)
def test_the_numbers_of_an_epoch(part):
    assert part in epoch_text(EPOCH)


def test_what_was_not_evaluated_is_left_out():
    assert "test" not in epoch_text(EPOCH)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (59.9, "59.9s"),
        (59.96, "1m00s"),
        (185, "3m05s"),
        (3599.6, "1h00m"),
        (7620, "2h07m"),
        (273600, "3d04h"),
        (float("nan"), "?"),
    ],
)
def test_durations_are_readable(seconds, text):
    assert duration(seconds) == text


def test_an_epoch_is_one_plain_line():
    reporter, stream, clock = plain()
    reporter.start_epoch(2, 5, 20)
    for _ in range(20):
        clock.now += 0.5
        reporter.update(STEP)
    reporter.end_epoch(EPOCH)
    assert stream.getvalue() == f"epoch 2/5  {epoch_text(EPOCH)}  ETA 30.0s\n"


def test_a_long_epoch_has_a_line_now_and_then():
    reporter, stream, clock = plain(interval=10.0)
    reporter.start_epoch(1, 1, 100)
    for _ in range(35):
        clock.now += 1.0
        reporter.update(STEP)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["step 10/100", "step 20/100", "step 30/100"]


def test_a_resumed_run_does_not_count_steps_of_its_past_as_speed():
    reporter, stream, clock = plain(interval=10.0)
    reporter.start_epoch(3, 4, 100, done=50)  # 150 steps remain
    for _ in range(10):
        clock.now += 1.0
        reporter.update(STEP)
    assert stream.getvalue().rstrip().endswith("ETA 2m20s")


def test_messages_are_lines():
    reporter, stream, _ = plain()
    reporter.message("saved [bold]here[/bold]")
    assert stream.getvalue() == "saved [bold]here[/bold]\n"


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    reporter = BarReporter(stream)
    reporter.start_epoch(2, 5, 20, done=3)
    reporter.update(STEP)
    reporter.message("saved [bold]here[/bold]")
    reporter.end_epoch(EPOCH)
    reporter.close()
    return stream.getvalue()


@pytest.mark.parametrize(
    "part", ["epoch 2/5", step_text(STEP), "ETA", "saved [bold]here[/bold]", epoch_text(EPOCH), "━"]
)
def test_the_bar_shows(terminal, part):
    assert part in terminal


def test_closing_shows_the_cursor_again(terminal):
    assert terminal.rindex("\x1b[?25h") > terminal.rindex("\x1b[?25l")


@pytest.mark.parametrize("make", [BarReporter, PlainReporter])
def test_closing_twice_or_unused_is_fine(make):
    reporter = make(io.StringIO())
    reporter.close()
    reporter.close()
