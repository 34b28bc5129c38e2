"""Every available solver over every family: the table behind the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands import report
from benchmarks.harness.families import SOURCE, Case, cases, family_names
from benchmarks.harness.memory import MemoryStore, measure
from benchmarks.harness.options import RUNS, Data, DataDir, Families, Out, Save, integers, numbers
from benchmarks.harness.output import bar, console
from benchmarks.harness.runner import ladder, run
from benchmarks.harness.specs import SPECS, spec_names
from benchmarks.harness.store import Store

_SIZES = "16,64,128,1024,8192,65536,1000000"
_RATES = "0.01,0.1,0.25,0.5"
# Anytime solvers are sampled over limits at this rate and size, which every solver can take.
_LADDER_RATE = 0.1
_LADDER_SIZE = 128
_MEMORY_LIMIT = 1.0


def solvers(
    quick: Annotated[bool, typer.Option(help="A few minutes: fewer sizes, short limit.")] = False,
    families: Families = None,
    sizes: Annotated[str | None, typer.Option(help=f"Default: {_SIZES}.")] = None,
    rates: Annotated[str | None, typer.Option(help=f"Default: {_RATES}.")] = None,
    constraints: Annotated[str, typer.Option(help="on, off or both.")] = "both",
    solvers_: Annotated[str | None, typer.Option("--solvers", help="Default: all.")] = None,
    seeds: Annotated[int, typer.Option(help="Instances of each kind.")] = 1,
    time_limit: Annotated[float | None, typer.Option(help="Seconds per solve; default 10.")] = None,
    ladder_size: Annotated[
        int, typer.Option(help="Size at which anytime solvers are sampled over limits; 0: none.")
    ] = _LADDER_SIZE,
    ladder_limit: Annotated[
        float | None, typer.Option(help="Longest of these limits; default: that of the solves.")
    ] = None,
    memory: Annotated[bool, typer.Option(help="Measure peak memory afterwards.")] = True,
    fresh: Annotated[bool, typer.Option(help="Forget what was measured before.")] = False,
    data: Data = None,
    data_dir: DataDir = None,
    out: Out = RUNS,
    save: Save = False,
) -> None:
    """Measure every available solver; a run that was cut short goes on where it was."""
    SOURCE.configure(data, data_dir, out / "cache")
    if fresh:
        for name in ("solvers.csv", "memory.csv", "machine.json"):
            (out / name).unlink(missing_ok=True)
    names = spec_names(solvers_)
    limit = time_limit or (1.0 if quick else 10.0)
    every = list(
        cases(
            family_names(families),
            integers(sizes or ("16,128,1024" if quick else _SIZES)),
            numbers(rates or ("0.1" if quick else _RATES)),
            {"on": [True], "off": [False], "both": [False, True]}[constraints],
            seeds,
        )
    )
    report.machine_of(out)
    _measure(out / "solvers.csv", every, names, Limits(limit, ladder_limit or limit, ladder_size))
    if memory:
        _measure_memory(out / "memory.csv", every, names, min(limit, _MEMORY_LIMIT))
    report.write(out, save=save)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limit of every solve, and up to which limit, at which size, solvers are sampled."""

    whole: float
    longest: float
    size: int

    def of(self, case: Case, name: str) -> list[float]:
        """Return the limits to run: that of the tables first, then those of the curve."""
        sampled = (
            case.n == self.size and case.rate == _LADDER_RATE and not case.constrained
            and case.seed == 0
        )  # fmt: skip
        curve = ladder(SPECS[name], self.longest) if sampled else []
        return [self.whole, *(step for step in curve if step != self.whole)]


def _measure(path: Path, every: Sequence[Case], names: Sequence[str], limits: Limits) -> None:
    for name in names:
        SPECS[name].warm_up()
    with Store(path) as store, bar() as progress:
        task = progress.add_task("Solving", total=len(every) * len(names))
        for case in every:
            todo = [n for n in names if _unfinished(store, case, n, limits)]
            instance = case.instance() if todo else None
            for name in names:
                progress.update(task, advance=1, description=_describe(case, name))
                if instance is None or name not in todo:
                    continue
                for step in limits.of(case, name):
                    if (*_key(case, name), step) in store:
                        continue
                    row = run(SPECS[name], case, instance, step)
                    row.sampled = step != limits.whole
                    store.add(row)
                    if row.skipped:
                        break


def _key(case: Case, name: str) -> tuple[str, int, int, bool, int, str]:
    return (case.family, case.n, case.k, case.constrained, case.seed, name)


def _unfinished(store: Store, case: Case, name: str, limits: Limits) -> bool:
    whole = store.by_key.get((*_key(case, name), limits.whole))
    if whole is not None and whole.skipped:
        return False
    return any((*_key(case, name), step) not in store for step in limits.of(case, name))


def _describe(case: Case, name: str) -> str:
    return f"{case.family} n={case.n} k={case.k}{' constrained' * case.constrained} {name}"


def _measure_memory(path: Path, every: Sequence[Case], names: Sequence[str], limit: float) -> None:
    store = MemoryStore(path)
    todo = sorted({(name, c.n, c.constrained) for c in every for name in names} - set(store.peaks))
    with bar() as progress:
        task = progress.add_task("Peak memory", total=len(todo))
        for name, n, constrained in todo:
            store.add(name, n, constrained, measure(name, n, _LADDER_RATE, constrained, limit))
            progress.advance(task)
    if todo:
        console.print(f"Peak memory of {len(todo)} solves measured, each in a process of its own.")
