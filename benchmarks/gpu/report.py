"""What a run on a GPU found, as one JSON object and one page of Markdown."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .bars import BARS

Line = dict[str, Any]


@dataclass
class PartResult:
    """How a part ended: "done", "failed", "timed out" or "skipped", and the end of what it said if not done."""

    name: str
    state: str
    seconds: float = 0.0
    said: str = ""


@dataclass
class Findings:
    """Everything so far; `problem` says why there is no GPU."""

    parts: list[PartResult] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    problem: str | None = None

    def write(self, folder: Path) -> None:
        """gpu.json and gpu.md."""
        values = {line["bar"]: line["value"] for line in self.lines if "bar" in line}
        bars = [
            {
                "bar": name, "what": bar.what, "wanted": bar.wording, "value": values.get(name),
                "met": bar.is_met(values[name]) if name in values else None,
            }
            for name, bar in BARS.items()
        ]  # fmt: skip
        content = {"problem": self.problem, "card": self._card(), "bars": bars}
        content |= {"parts": [asdict(part) for part in self.parts], "lines": self.lines}
        (folder / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (folder / "gpu.md").write_text(page(content), encoding="utf-8")

    def _card(self) -> Line:
        found = (line for line in self.lines if line.get("what") == "identity")
        return next(found, {})


def page(content: Line) -> str:
    """The Markdown."""
    return "\n".join(
        [
            "# odegrad on a GPU\n",
            *([f"No GPU was found: {content['problem']}\n"] if content["problem"] else []),
            *_identity(content["card"]),
            *_bars(content["bars"]),
            *_parts(content["parts"]),
            *_measurements(content["lines"]),
        ]
    )


def _identity(card: Line) -> list[str]:
    told = [
        f"{name}: {value}" for name, value in card.items() if name not in ("benchmark", "what", "versions")
    ]
    versions = [f"{name} {version}" for name, version in card.get("versions", {}).items()]
    return [f"- {line}" for line in (*told, *versions)] + [""]


def _bars(bars: list[Line]) -> list[str]:
    words = {True: "met", False: "missed", None: "unmeasured"}
    rows = [
        f"| {bar['what']} | {bar['wanted']} | {'' if bar['value'] is None else bar['value']} | {words[bar['met']]} |"
        for bar in bars
    ]
    return ["## Bars\n", "| what | wanted | found | |", "|---|---|---|---|", *rows, ""]


def _parts(parts: list[Line]) -> list[str]:
    rows = [f"| {part['name']} | {part['state']} | {part['seconds']} |" for part in parts]
    said = [f"`{p['name']}` ({p['state']}):\n\n```\n{p['said']}\n```\n" for p in parts if p["said"]]
    return ["## Parts\n", "| part | | seconds |", "|---|---|---|", *rows, "", *said]


def _measurements(lines: list[Line]) -> list[str]:
    hidden = ("benchmark", "best_s", "n", "device", "versions")
    rows = [
        f"| {line['benchmark']} | {', '.join(f'{k} {_short(v)}' for k, v in line.items() if k not in hidden)} |"
        for line in lines
        if "bar" not in line and line.get("what") != "identity"
    ]
    return ["## Measurements\n", "| part | |", "|---|---|", *rows, ""]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
