"""`pytest --seconds S`: a run that begins no test after S seconds, and tells as one line of JSON how far it came."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest


class TimedRun:
    """The plugin: of each worker, which stops, and of the run as a whole, which counts."""

    def __init__(self, seconds: float, name: str) -> None:
        self.name, self.end = name, time.monotonic() + seconds
        self.n_collected = 0
        self.counts = dict.fromkeys(("passed", "failed", "skipped"), 0)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.n_collected = max(self.n_collected, len(session.items))

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self.n_collected = len(ids)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        found = yield
        if time.monotonic() > self.end:
            item.session.shouldstop = "no time was left"
        return found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """That time was over is no failure."""
        if time.monotonic() > self.end and session.exitstatus == pytest.ExitCode.INTERRUPTED:
            session.exitstatus = pytest.ExitCode(bool(self.counts["failed"]))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        n_run = sum(self.counts.values())
        found = {"benchmark": "tests", "what": self.name, "run": n_run, **self.counts}
        found["not_reached"] = max(0, self.n_collected - n_run)
        terminalreporter.write_line("\n" + json.dumps(found))
