"""Claim 2: against MIP backends, on instances where both reach the tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.harness.command import recorded_command
from benchmarks.harness.families import Case, cases, family_names
from benchmarks.harness.options import RUNS, Families, Out, integers
from benchmarks.harness.output import Result, bar, ms, us
from benchmarks.harness.runner import run
from benchmarks.harness.specs import BACKENDS, SPECS, spec_names
from benchmarks.harness.stats import SHIFT, shifted_geometric_mean
from benchmarks.harness.store import Row, Store

_OURS = "auto"
_WANTED = 500.0


@recorded_command
def backends(
    seeds: Annotated[int, typer.Option(help="Instances per family and size.")] = 2,
    sizes: Annotated[str, typer.Option(help="Comma-separated n.")] = "128,512,1024",
    solvers: Annotated[str, typer.Option(help="Comma-separated backends.")] = ",".join(BACKENDS),
    families: Families = None,
    time_limit: Annotated[float, typer.Option(help="Seconds for each solve.")] = 10.0,
    fresh: Annotated[bool, typer.Option(help="Forget what was measured before.")] = False,
    out: Out = RUNS,
) -> Result:
    """Claim 2: the ratio of shifted geometric means to every backend."""
    path = out / "backends.csv"
    if fresh:
        path.unlink(missing_ok=True)
    names = spec_names(solvers)
    every = list(cases(family_names(families), integers(sizes), [0.1], [False], seeds))
    rows = _measure(path, every, [_OURS, *names], time_limit)
    settings = {"rate": 0.1, "seeds": seeds, "limit": f"{time_limit:g} s", "ours": _OURS,
                "shift": f"{SHIFT * 1e6:g} us"}  # fmt: skip
    result = Result("backends", "Against MIP backends, both within tolerance", settings)
    _compare(result, rows, names, integers(sizes))
    return result


def _measure(path: Path, every: Sequence[Case], names: Sequence[str], limit: float) -> list[Row]:
    """Return the rows of every case, running what is not stored yet."""
    keys = {(c.family, c.n, c.k, False, c.seed, name, limit) for c in every for name in names}
    for name in names:
        SPECS[name].warm_up()
    with Store(path) as store, bar() as progress:
        task = progress.add_task("Solving", total=len(keys))
        for case in every:
            instance = case.instance()
            for name in names:
                key = (case.family, case.n, case.k, False, case.seed, name, limit)
                progress.update(task, advance=1, description=f"{case.family} n={case.n} {name}")
                if key not in store:
                    store.add(run(SPECS[name], case, instance, limit))
    return [row for row in store.rows if row.key in keys]


def pairs(rows: Sequence[Row], name: str) -> list[tuple[Row, Row]]:
    """Return (ours, theirs) where both are within tolerance."""
    ours = {row.instance: row for row in rows if row.solver == _OURS and row.within}
    theirs = [row for row in rows if row.solver == name and row.within]
    return [(ours[row.instance], row) for row in theirs if row.instance in ours]


def _compare(result: Result, rows: list[Row], names: list[str], sizes: list[int]) -> None:
    table = []
    # The optimum is below the tolerance wherever some solver reached it.
    reachable = {row.instance for row in rows if row.within}
    for name in names:
        for n in [*sizes, 0]:
            both = [(a, b) for a, b in pairs(rows, name) if n in (a.n, 0)]
            total = sum(n in (instance[1], 0) for instance in reachable)
            if not both:
                table.append([name, n or "all", 0, total, "-", "-", float("nan")])
                continue
            mine = shifted_geometric_mean([a.total for a, _ in both])
            other = shifted_geometric_mean([b.total for _, b in both])
            ratio = (other + SHIFT) / (mine + SHIFT)
            table.append([name, n or "all", len(both), total, us(mine), ms(other), ratio])
            if n:
                result.check(f"{name}, n={n}: {_OURS} is faster", ratio, _WANTED, "x", least=True)
    columns = ("backend", "n", "both within", "reachable", _OURS, "backend's time", "ratio")
    result.table("Shifted geometric means", columns, table)
    result.notes.append(
        "Reachable: instances on which any solver was within tolerance. The ratio is that of the "
        "means with the shift left in, which makes it smaller."
    )
    missing = {(r.solver, r.skipped or r.error) for r in rows if r.skipped or r.error}
    result.notes += [f"{solver}: {why}" for solver, why in sorted(missing)]
