"""``lagrangian`` on scored matching, against the optimum of a mixed-integer program."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.options import RUNS, Out
from benchmarks.harness.output import Result, bar, ms
from benchmarks.harness.stats import SHIFT, quantiles, shifted_geometric_mean
from subsetopt import instances

_SIZES, _RATES, _BAND = (64, 256), (0.1, 0.5), 1e-3
_MIPS = ("gurobi", "cpsat", "scip", "highs")
_WITHIN = 0.01
# This covers the rounding of sums of up to 256 scores in float64, relative to the sum.
_ROUNDING = 1e-12
_AT = (0.5, 0.9, 0.99, 0.999, 1.0)
# This many instances are drawn per instance wanted: some families often have no subset within the
# band.
_DRAWS = 4


@dataclass(slots=True)
class Row:
    """One instance: what lagrangian and the MIP say, and what their subsets are worth.

    ``value`` and ``theirs`` are recomputed in exact sums; nan where there is no subset, or it lies
    outside the band. ``edge`` says that the MIP's subset lies within its rounding of the band only.
    """

    index: int
    limit: float
    family: str
    scores: str
    n: int
    k: int
    status: str
    value: float
    bound: float
    seconds: float
    mip: str
    mip_status: str
    theirs: float
    edge: bool
    mip_seconds: float
    unit: float

    @property
    def key(self) -> tuple[int, float, str, str]:
        return (self.index, self.limit, self.family, self.scores)

    @property
    def optimum(self) -> bool:
        """Whether the MIP proved an optimum."""
        return self.mip_status == "OPTIMAL" and not math.isnan(self.theirs)

    @property
    def gap(self) -> float:
        """What lagrangian's subset lacks, of the optimum; infinite without a subset."""
        return math.inf if math.isnan(self.value) else (self.theirs - self.value) / self.theirs

    @property
    def slack(self) -> float:
        """How far rounding may move a total score, and a MIP's claim of optimality."""
        return self.unit + _ROUNDING * abs(self.theirs)


@command
def scored(
    instances_: Annotated[int, typer.Option("--instances", help="With a proved optimum.")] = 1000,
    time_limit: Annotated[float, typer.Option(help="Seconds for each MIP.")] = 10.0,
    families: Annotated[
        str | None, typer.Option(help="Comma-separated families of losses.")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Forget what was measured before.")] = False,
    out: Out = RUNS,
) -> Result:
    """Scored matching: lagrangian's gap to the MIP optimum, its bound, its time."""
    names = families.split(",") if families else list(instances.FAMILIES)
    path = out / "scored.jsonl"
    if fresh:
        path.unlink(missing_ok=True)
    rows = _measure(path, names, instances_, time_limit)
    settings = {
        "instances": instances_, "n": "64 to 256", "rates": "0.1 to 0.5", "band": "1e-3 mean|l|",
        "MIP limit": f"{time_limit:g} s", "shift": f"{SHIFT * 1e6:g} us",
    }  # fmt: skip
    result = Result("scored", "Scored matching: lagrangian against a MIP", settings)
    _report(result, rows)
    _check(result, rows, instances_)
    return result


def problem(index: int, families: Sequence[str]) -> tuple[str, str, so.Problem]:
    """Return family, kind of scores, and the problem of an index."""
    rng = np.random.default_rng((2024, index))
    n = int(rng.integers(_SIZES[0], _SIZES[1] + 1))
    k = max(1, int(n * rng.uniform(*_RATES) + 0.5))
    family = families[index % len(families)]
    # Every family meets all kinds of scores.
    kind = list(_SCORES)[index // len(families) % len(_SCORES)]
    losses = instances.losses(family, n, k, index)
    scores = _SCORES[kind](rng, np.abs(losses.astype(np.float64)))
    band = _BAND * float(np.abs(losses).mean(dtype=np.float64))
    return family, kind, so.Problem(so.ScoredMatching(scores, losses, band), k)


_SCORES = {
    "independent": lambda rng, size: 1e-3 + rng.exponential(size=size.size),
    "with the loss": lambda rng, size: (1e-3 + size) * np.exp(0.3 * rng.normal(size=size.size)),
    "heavy-tailed": lambda rng, size: 1e-3 + rng.pareto(1.2, size=size.size),
}


def _measure(path: Path, families: Sequence[str], wanted: int, limit: float) -> list[Row]:
    """Return rows until so many have a proved optimum; what is stored is not run again."""
    stored = {row.key: row for row in _read(path)}
    mips = [name for name in _MIPS if name in so.available_solvers()]
    _warm_up(mips)
    rows: list[Row] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, bar() as progress:
        task = progress.add_task("Solving", total=wanted)
        found = 0
        for index in range(_DRAWS * wanted):
            family, kind, one = problem(index, families)
            row = stored.get((index, limit, family, kind))
            if row is None:
                row = _row(index, family, kind, one, mips, limit)
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
            rows.append(row)
            progress.update(task, advance=row.optimum)
            found += row.optimum
            if found == wanted:
                break
    return rows


def _read(path: Path) -> Iterator[Row]:
    """Yield the stored rows, and drop a last line that was cut short."""
    if not path.is_file():
        return
    whole = path.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    path.write_bytes(whole)
    for line in whole.decode("utf-8").splitlines():
        yield Row(**json.loads(line))


def _warm_up(mips: Sequence[str]) -> None:
    """Compile every kernel, the repair's included, and start the backend: none of it is timed."""
    so.warmup()
    for index, family in enumerate(("exponential", "integer", "bimodal")):
        one = problem(index, [family])[2]
        so.solve(one, "lagrangian", seed=0)
        so.solve(one, mips, time_limit=1.0, seed=0)


def _row(
    index: int, family: str, kind: str, one: so.Problem, mips: Sequence[str], limit: float
) -> Row:
    start = time.perf_counter()
    ours = so.solve(one, "lagrangian", seed=index)
    middle = time.perf_counter()
    theirs = so.solve(one, mips, time_limit=limit, seed=index)
    end = time.perf_counter()
    other, edge = _worth(one, theirs)
    return Row(
        index, limit, family, kind, one.n, one.k, ours.status.name, _worth(one, ours)[0],
        ours.bound, middle - start, theirs.solver, theirs.status.name, other, edge, end - middle,
        one.objective.tolerance,
    )  # fmt: skip


def _worth(one: so.Problem, answer: so.Solution) -> tuple[float, bool]:
    """Return the total score of a valid subset, in exact sums, and whether it is on the edge."""
    objective, chosen = one.objective, answer.indices
    assert isinstance(objective, so.ScoredMatching)
    if not answer.has_solution or np.unique(chosen).size != one.k:
        return math.nan, False
    off = abs(math.fsum(objective.losses[chosen]) / one.k - math.fsum(objective.losses) / one.n)
    edge = off > objective.band + 0.5 * objective.slack
    valid = off <= objective.band + objective.slack
    return (math.fsum(objective.scores[chosen]) if valid else math.nan), edge


def _report(result: Result, rows: Sequence[Row]) -> None:
    columns = ("losses", "scores", "drawn", "with optimum", "gap, mean", "gap, 99%", "gap, worst",
               "proved", "lagrangian", "MIP", "MIP / lagrangian")  # fmt: skip
    table = [_line(name, "all", [r for r in rows if r.family == name]) for name in _seen(rows)]
    table += [_line("all", kind, [r for r in rows if r.scores == kind]) for kind in _SCORES]
    result.table("Gaps to the optimum, and times", columns, [*table, _line("all", "all", rows)])
    both = [row for row in rows if row.optimum]
    result.table(
        "Distributions",
        ("of", "instances", *(f"{at:.1%}" for at in _AT)),
        [
            ["gap", len(both), *quantiles([row.gap for row in both], _AT)],
            ["lagrangian", len(both), *map(ms, quantiles([row.seconds for row in both], _AT))],
            ["MIP", len(both), *map(ms, quantiles([row.mip_seconds for row in both], _AT))],
        ],
    )
    pairs: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = (row.status, row.mip, row.mip_status)
        pairs[key] = pairs.get(key, 0) + 1
    result.table(
        "Statuses",
        ("lagrangian", "MIP", "its status", "instances"),
        [[*key, pairs[key]] for key in sorted(pairs)],
    )
    result.notes.append(
        "An instance counts when the MIP proves an optimum; the others are drawn and told. Scores "
        "and losses of the subsets are summed again, exactly. Times are shifted geometric means "
        "of whole calls. A gap is what the total score lacks of the optimum, over the optimum."
    )


def _seen(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.family for row in rows))


def _line(family: str, kind: str, rows: Sequence[Row]) -> list[object]:
    both = [row for row in rows if row.optimum]
    gaps = [row.gap for row in both]
    mine = shifted_geometric_mean([row.seconds for row in both])
    other = shifted_geometric_mean([row.mip_seconds for row in both])
    proved = f"{np.mean([row.status == 'OPTIMAL' for row in both]):.1%}" if both else "-"
    mean = float(np.mean(gaps)) if both else math.nan
    return [family, kind, len(rows), len(both), mean, *quantiles(gaps, (0.99, 1.0)),
            proved, ms(mine), ms(other), (other + SHIFT) / (mine + SHIFT)]  # fmt: skip


def _check(result: Result, rows: Sequence[Row], wanted: int) -> None:
    both = [row for row in rows if row.optimum]
    result.check("instances with a proved optimum", len(both), wanted, "", least=True)
    worst = max((row.gap for row in both), default=math.nan)
    result.check("lagrangian: largest gap to the optimum", worst, _WITHIN, "", least=False)
    wrong = {
        "lagrangian: bounds below a subset's score": _too_low(rows),
        "lagrangian: bounds below its own score": [r for r in rows if r.bound < r.value],
        "lagrangian: no subset, or an invalid one, where the MIP has one": [
            r for r in rows if math.isnan(r.value) and not math.isnan(r.theirs)
        ],
        "lagrangian: INFEASIBLE where the MIP has a subset": [
            r for r in rows if r.status == "INFEASIBLE" and not (math.isnan(r.theirs) or r.edge)
        ],
        "MIP: INFEASIBLE where lagrangian has a subset": [
            r for r in rows if r.mip_status == "INFEASIBLE" and not math.isnan(r.value)
        ],
        "lagrangian: OPTIMAL below the MIP's score": [
            r for r in rows
            if r.status == "OPTIMAL" and not r.edge and r.theirs - r.value > r.slack
        ],
    }  # fmt: skip
    for what, found in wrong.items():
        result.check(what, len(found), 0, f"of {len(rows):,}", least=False)
        if found:
            where = ", ".join(f"{r.index} ({r.family})" for r in found[:8])
            result.notes.append(f"{what}: instances {where}")
    mine = shifted_geometric_mean([row.seconds for row in both])
    other = shifted_geometric_mean([row.mip_seconds for row in both])
    result.check("MIP / lagrangian, times", (other + SHIFT) / (mine + SHIFT), 1.0, "x", least=True)
    beaten = sum(row.value - row.theirs > row.slack for row in both)
    edges = sum(row.edge for row in rows)
    result.notes.append(
        f"lagrangian beats the MIP's claimed optimum by more than rounding: {beaten}. MIP subsets "
        f"that are within its own rounding of the band, and not in it: {edges}."
    )


def _too_low(rows: Sequence[Row]) -> list[Row]:
    """Return where the bound excludes a subset within the band that somebody has."""
    known = [row for row in rows if not (math.isnan(row.theirs) or row.edge)]
    return [row for row in known if row.bound < row.theirs - row.slack]
