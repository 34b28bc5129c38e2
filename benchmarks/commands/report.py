"""The report of ``solvers``: tables and plots, rendered from the stored rows alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import machine, plots, tables
from benchmarks.harness.memory import MemoryStore
from benchmarks.harness.options import RUNS, Out, Save
from benchmarks.harness.output import RESULTS, console, markdown_table
from benchmarks.harness.specs import SPECS
from benchmarks.harness.stats import SHIFT
from benchmarks.harness.store import Row, read_rows
from subsetopt import OptionError

__all__ = ["machine_of", "report", "write"]

_LIMITATIONS = (
    "Two runs on one machine differ by a few percent, calls of tens of microseconds by more; the "
    "ratios within one run are what can be compared.",
    "Times are medians of up to five calls when a call takes less than 5 ms, single calls "
    "otherwise. The number of seeds is small: this table shows breadth, `proof`, `latency` and "
    "`fuzz` show depth.",
    "A claim is refuted by a better subset of any solver on the same instance, or by exhaustive "
    "search where it is feasible. A false claim that nobody refutes counts as correct.",
    "Times to the first feasible subset and to the tolerance come from repeated solves under "
    "growing limits, so they are upper estimates with the limits' resolution (1, 2, 5 per decade); "
    "backends are sampled from 20 ms on. Without samples they are the time of the whole solve.",
    "Rates and means are over the instances that a solver can take, which differ by solver; the "
    "tables by family and by size tell more than the totals.",
    "Backends run with the library's own formulations and settings; other settings may suit them "
    "better. `highs` runs through OR-Tools. `auto` includes a backend under limits above 0.25 s.",
    "Memory is measured once per solver, size and constraints (exponential losses, rate 0.1, "
    "limit of at most 1 s), in a process of its own: the growth of resident memory at its peak.",
    "The seed of an instance is also that of its solves; recorded losses come from one training "
    "run of one network.",
)


def report(out: Out = RUNS, save: Save = False) -> None:
    """Render the report of the solver benchmark again from its stored rows."""
    write(out, save=save)


def write(out: Path, *, save: bool) -> None:
    """Write report.md, its plots and what the machine was; kept results go to the checkout."""
    path = out / "solvers.csv"
    if not path.is_file():
        raise OptionError(f"{path} does not exist; run 'python -m benchmarks solvers' first.")
    rows = read_rows(path)
    if not rows:
        raise OptionError(f"{path} has no rows; run 'python -m benchmarks solvers' first.")
    # Solvers are listed in the order of the registry, whichever ran first.
    places = {name: place for place, name in enumerate(SPECS)}
    rows.sort(key=lambda row: places.get(row.solver, len(places)))
    stored = MemoryStore(out / "memory.csv").peaks
    memory = dict(sorted(stored.items(), key=lambda item: places.get(item[0][0], len(places))))
    described = machine_of(out)
    for folder in (out, RESULTS) if save else (out,):
        folder.mkdir(parents=True, exist_ok=True)
        drawn = plots.draw(rows, folder)
        (folder / "report.md").write_text(render(rows, memory, described, drawn), "utf-8")
    columns, body = tables.results(rows)
    with (out / "results.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *body])
    console.print(f"Written: {out / 'report.md'}, results.csv and its plots", highlight=False)


def render(
    rows: Sequence[Row],
    memory: dict[tuple[str, int, bool], float],
    described: dict[str, Any],
    drawn: Iterable[tuple[str, str]],
) -> str:
    """Return the whole report as Markdown."""
    parts = ["# Solvers: speed against quality", ""]
    parts += [f"- {line}" for line in machine.lines(described)]
    parts += [f"- {line}" for line in _settings(rows)]
    parts += [""]
    for title, make in _SECTIONS:
        columns, body = make(rows)
        if body:
            parts += [f"## {title}", "", *markdown_table(columns, body), ""]
    if memory:
        columns, body = tables.peaks(memory)
        parts += ["## Peak memory (MiB)", "", *markdown_table(columns, body), ""]
    for title, name in drawn:
        parts += [f"## {title}", "", f"![{title}]({name})", ""]
    parts += ["## Known limitations", "", *(f"- {line}" for line in _LIMITATIONS)]
    return "\n".join(parts) + "\n"


Maker = Callable[[Sequence[Row]], tuple[list[str], list[list[Any]]]]
_SECTIONS: tuple[tuple[str, Maker], ...] = (
    ("Summary", tables.summary),
    ("Time to the first feasible subset, to the tolerance, in all", tables.milestones),
    ("Success rate by family (%)", tables.success_by_family),
    ("Time by size, no constraints (shifted geometric mean, ms)", tables.time_by_size),
    ("Time by size, quotas and capacity (shifted geometric mean, ms)", tables.time_constrained),
    ("Success rate by rate and constraints (%)", tables.success_by_rate),
    ("Actual time minus limit, of solves that ended at the limit", tables.overruns),
    ("Claims that are not so", tables.wrong_claims),
    ("Crashes", tables.crashes),
    ("Not run", tables.skips),
)


def _settings(rows: Sequence[Row]) -> list[str]:
    limits = sorted({row.limit for row in tables.whole(rows)})
    sizes = sorted({row.n for row in rows})
    rates = sorted({row.rate for row in rows})
    return [
        f"Limit: {', '.join(f'{limit:g} s' for limit in limits)}; "
        f"sizes {sizes}; rates {rates}; seeds {len({row.seed for row in rows})}",
        f"Shifted geometric means, shift {SHIFT * 1e6:g} us; a failure counts as the limit",
        "Tolerance: eps(float32) of mean|l|, the same for every solver; all start cold",
        "Success: within tolerance of the target, or proved optimal; "
        "correct: what is claimed agrees with the independent check",
    ]


def machine_of(out: Path) -> dict[str, Any]:
    """Return the machine that the rows were measured on: written down when they first were."""
    path = out / "machine.json"
    out.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found
    described = machine.describe()
    path.write_text(json.dumps(described, indent=1) + "\n", "utf-8")
    return described
