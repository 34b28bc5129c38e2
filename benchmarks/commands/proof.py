"""Claim 3: tolerance or proof, hence OPTIMAL, within milliseconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

import subsetopt as so
from benchmarks.harness.command import recorded_command
from benchmarks.harness.families import SOURCE, Case
from benchmarks.harness.output import Result, bar, ms
from benchmarks.harness.recorder import EPOCHS
from benchmarks.harness.stats import quantiles

_FAMILIES = ("exponential", "uniform", "gaussian", "integer", "two-decimal")
_SIZES = (64, 128, 256)
_RATES = (0.1, 0.25)
_LIMIT = 0.010
# Recorded losses are solved at these (n, limit in seconds).
_RECORDED = ((64, 0.2), (128, 0.1), (256, 0.1))
_AT = (0.5, 0.95, 0.999)


@dataclass(frozen=True, slots=True)
class Tally:
    """How the instances of one cell ended, and how long each took."""

    optimal: list[bool]
    seconds: list[float]

    @property
    def share(self) -> float:
        return sum(self.optimal) / len(self.optimal)


@recorded_command
def proof(
    instances: Annotated[
        int, typer.Option(help="Per family (recorded: a tenth per cell).")
    ] = 10_000,
    recorded: Annotated[bool, typer.Option(help="Include recorded losses.")] = True,
) -> Result:
    """Claim 3: the share of answers that are proved within a limit."""
    so.warmup()
    settings = {"instances per family": instances, "solver": "auto"}
    result = Result("proof", "Tolerance or proof within a limit", settings)
    _generic(result, max(1, instances // (len(_SIZES) * len(_RATES))))
    if recorded:
        _recorded(result, max(1, instances // 10))
        result.settings["recorded from"] = SOURCE.recording.data
    _outliers(result, max(1, instances // 10))
    return result


def tally(family: str, n: int, rate: float, count: int, limit: float) -> Tally:
    """Solve ``count`` instances, and note which were OPTIMAL and within the limit."""
    optimal, seconds = [], []
    with bar() as progress:
        task = progress.add_task(f"{family} n={n} rate={rate}", total=count)
        for seed in range(count):
            case = Case(family, n, rate, seed=seed)
            losses = case.losses()
            start = time.perf_counter()
            solution = so.select(losses, case.k, time_limit=limit, seed=seed)
            seconds.append(time.perf_counter() - start)
            optimal.append(solution.status is so.Status.OPTIMAL)
            progress.advance(task)
    return Tally(optimal, seconds)


def _row(family: str, n: int, rate: float, limit: float, cell: Tally) -> list[object]:
    times = [ms(t) for t in quantiles(cell.seconds, _AT)]
    return [family, n, rate, ms(limit), len(cell.optimal), f"{cell.share:.2%}", *times]


_COLUMNS = ("family", "n", "rate", "limit", "instances", "OPTIMAL", "median", "95%", "99.9%")


def _generic(result: Result, count: int) -> None:
    rows = []
    for family in _FAMILIES:
        cells = []
        for n in _SIZES:
            for rate in _RATES:
                cells.append(tally(family, n, rate, count, _LIMIT))
                rows.append(_row(family, n, rate, _LIMIT, cells[-1]))
        _check_share(result, f"{family}: OPTIMAL within 10 ms", cells, 0.999)
    result.table("Families whose optimum is within tolerance, or on a lattice", _COLUMNS, rows)


def _recorded(result: Result, count: int) -> None:
    rows = []
    for n, limit in _RECORDED:
        for epoch in EPOCHS:
            family = f"recorded-epoch-{epoch}"
            if not Case(family, n, 0.1).fits():
                continue
            cell = tally(family, n, 0.1, count, limit)
            rows.append(_row(family, n, 0.1, limit, cell))
            _check_share(
                result, f"{family}, n={n}: OPTIMAL within {limit * 1e3:g} ms", [cell], 0.99
            )
    result.table(f"Recorded losses ({SOURCE.recording.data})", _COLUMNS, rows)


def _outliers(result: Result, count: int) -> None:
    """Outliers: the time is to the end of a solve that ended with a proof."""
    rows = []
    for family, limit, wanted in (("far-outlier", 0.0005, 0.99), ("edge-outlier", 0.005, 0.95)):
        for rate in (0.1, 0.25):
            cell = tally(family, 128, rate, count, 0.1)
            proved = [o and s <= limit for o, s in zip(cell.optimal, cell.seconds, strict=True)]
            rows.append([*_row(family, 128, rate, 0.1, cell), f"{sum(proved) / count:.2%}"])
            share = sum(proved) / count
            what = f"{family}, rate {rate}: proved within {limit * 1e3:g} ms"
            result.check(what, share, wanted, "of instances", least=True)
    result.table("Outliers", (*_COLUMNS, "proved in time"), rows)


def _check_share(result: Result, what: str, cells: Sequence[Tally], wanted: float) -> None:
    optimal = [flag for cell in cells for flag in cell.optimal]
    result.check(what, sum(optimal) / len(optimal), wanted, "of instances", least=True)
