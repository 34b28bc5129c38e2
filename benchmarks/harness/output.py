"""How every command shows and keeps what it measured."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from benchmarks.harness import machine

__all__ = ["RESULTS", "Result", "bar", "console", "ms", "us"]

# A bar is drawn at most once in this many seconds.
_REDRAWN = 0.2
RESULTS = Path(__file__).parents[1] / "results"
# A pipe tells no width, and the tables cannot be read in 80 columns.
console = Console(width=None if sys.stdout.isatty() else 160)


@dataclass(slots=True)
class Result:
    """The outcome of a command: tables of plain values, and checks against targets.

    ``refuted`` counts the answers that were shown to be wrong; with any the command exits with 1.
    """

    name: str
    title: str
    settings: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=machine.describe)
    tables: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refuted: int = 0

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.tables.append(
            {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}
        )

    def check(
        self, what: str, value: float, target: float, unit: str, *, least: bool,
        best: tuple[float, str] | None = None,
    ) -> None:  # fmt: skip
        """Compare with a target: at least it, or at most.

        ``best`` is the best that can be reached as far as this run found out, and how it did. A
        target beyond it is not passed, but told apart from one that was only missed.
        """

        def holds(reached: float) -> bool:
            return bool(reached >= target if least else reached <= target)

        sign, beyond = ">=" if least else "<=", None
        if best is not None and not holds(best[0]):
            beyond = f"{_text(best[0])}: {best[1]}"
        self.checks.append({
            "what": what, "value": value, "target": f"{sign} {target:g} {unit}",
            "passed": holds(value), "out_of_reach": beyond,
        })  # fmt: skip

    @property
    def passed(self) -> bool:
        return all(check["passed"] for check in self.checks)

    def show(self) -> None:
        console.rule(self.title)
        for line in [*machine.lines(self.machine), f"Settings: {_settings(self.settings)}"]:
            console.print(line, markup=False, highlight=False)
        for table in self._all_tables():
            shown = Table(*table["columns"], title=table["title"], title_justify="left")
            for row in table["rows"]:
                shown.add_row(*(_text(cell) for cell in row))
            console.print(shown)
        for note in self.notes:
            console.print(note, markup=False, highlight=False)

    def markdown(self) -> str:
        parts = [f"# {self.title}", ""]
        parts += [f"- {line}" for line in machine.lines(self.machine)]
        parts += [f"- Settings: {_settings(self.settings)}", ""]
        for table in self._all_tables():
            parts += [f"## {table['title']}", "", *markdown_table(table["columns"], table["rows"])]
            parts += [""]
        return "\n".join([*parts, *self.notes]).rstrip() + "\n"

    def write(self, out: Path, *, save: bool) -> None:
        """Write JSON and Markdown to the output folder, and to the kept results when asked to."""
        plain = {
            "name": self.name, "title": self.title, "machine": self.machine,
            "settings": self.settings, "checks": self.checks, "tables": self.tables,
            "notes": self.notes,
        }  # fmt: skip
        for folder in (out, RESULTS) if save else (out,):
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(_finite(plain), indent=1, allow_nan=False)
            (folder / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")
            (folder / f"{self.name}.md").write_text(self.markdown(), encoding="utf-8")
        console.print(f"Written: {out / self.name}.md and .json", highlight=False)

    def finish(self, out: Path, *, save: bool) -> None:
        self.show()
        self.write(out, save=save)

    def _all_tables(self) -> list[dict[str, Any]]:
        if not self.checks:
            return self.tables
        rows = [[c["what"], c["value"], c["target"], _verdict(c)] for c in self.checks]
        columns = ["claim", "measured", "target", "verdict"]
        return [*self.tables, {"title": "Claims", "columns": columns, "rows": rows}]


def _verdict(check: dict[str, Any]) -> str:
    if check["passed"]:
        return "pass"
    beyond = check["out_of_reach"]
    return "FAIL" if beyond is None else f"out of reach ({beyond})"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a Markdown table as lines."""
    body = [
        "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns), *body]


class _Bar(Progress):
    """A bar drawn between two measurements; a thread that draws it would delay what is measured."""

    _drawn = -math.inf

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self.refresh()

    def refresh(self) -> None:
        now = time.monotonic()
        if now - self._drawn > _REDRAWN:
            self._drawn = now
            super().refresh()


def bar() -> Progress:
    """Return the progress bar of every command."""
    return _Bar(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, auto_refresh=False,
    )  # fmt: skip


def us(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e6:,.1f} us"


def ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:,.3f} ms"


def _text(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return "-" if math.isnan(cell) else f"{cell:.4g}"
    return str(cell)


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _finite(value: Any) -> Any:
    """Return a value in which JSON has words for every number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
