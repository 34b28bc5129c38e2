"""Claim 4: ``exact`` is exact: against all subsets where n is small, against backends above."""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated

import typer

import subsetopt as so
from benchmarks.harness.check import Instance
from benchmarks.harness.command import recorded_command
from benchmarks.harness.families import cases, family_names
from benchmarks.harness.fuzz_cases import draw
from benchmarks.harness.options import Families, integers, numbers
from benchmarks.harness.output import Result, bar

_LARGEST = 18
_PATIENCE = 60.0
_BACKENDS = ("gurobi", "cpsat")


@recorded_command
def exactness(
    small: Annotated[int, typer.Option(help="Instances with n <= 18.")] = 10_000,
    sizes: Annotated[str, typer.Option(help="Sizes compared with backends.")] = "24,28,32,36,40",
    rates: Annotated[str, typer.Option(help="Rates of these.")] = "0.1,0.5",
    families: Families = None,
    seeds: Annotated[int, typer.Option(help="Instances of each kind.")] = 1,
    time_limit: Annotated[float, typer.Option(help="Seconds for a backend.")] = 5.0,
) -> Result:
    """Claim 4: ``exact`` equals ``exhaustive`` up to n = 18, and Gurobi and CP-SAT up to 40."""
    so.warmup()
    settings = {"n <= 18": small, "sizes": sizes, "rates": rates, "seeds": seeds,
                "backend limit": f"{time_limit:g} s"}  # fmt: skip
    result = Result("exactness", "exact against other ways to the optimum", settings)
    _small(result, small)
    backends = [name for name in _BACKENDS if name in so.available_solvers()]
    every = list(
        cases(family_names(families), integers(sizes), numbers(rates), (False, True), seeds)
    )
    _against(result, [case.instance() for case in every], backends, time_limit)
    return result


def _small(result: Result, count: int) -> None:
    """Compare with the exhaustive search, which the fuzzer holds against plain Python."""
    tally: Counter[str] = Counter()
    wrong: list[list[object]] = []
    with bar() as progress:
        task = progress.add_task("n <= 18", total=count)
        for i in range(count):
            instance, parts = draw(18, i, _LARGEST)
            problem = instance.problem()
            ours = so.solve(problem, "exact", time_limit=_PATIENCE, seed=i)
            truth = so.solve(problem, "exhaustive", time_limit=_PATIENCE, seed=i)
            tally[truth.status.name] += 1
            if ours.status is not truth.status or _apart(instance, ours, truth) > 1.0:
                wrong.append([i, "+".join(parts), ours.status.name, truth.status.name])
            progress.advance(task)
    result.table("exact against exhaustive, n <= 18", ("status", "instances"), [*tally.items()])
    if wrong:
        result.table("Differences", ("instance", "kind", "exact", "exhaustive"), wrong)
    result.check("n <= 18: differences", len(wrong), 0, f"of {count:,}", least=False)


def _apart(instance: Instance, one: so.Solution, other: so.Solution) -> float:
    """Return the difference of two residuals in tolerances; 0 where neither has a subset."""
    if one.has_solution != other.has_solution:
        return math.inf
    if not one.has_solution:
        return 0.0
    unit = instance.tolerance + instance.rounding
    gap = abs(instance.residual(one.indices) - instance.residual(other.indices))
    return gap / unit if unit else (0.0 if gap == 0.0 else math.inf)


def _against(result: Result, instances: list[Instance], backends: list[str], limit: float) -> None:
    """Compare the residuals of proved answers, recomputed here, in tolerances."""
    rows: list[list[object]] = []
    ours = []
    with bar() as progress:
        task = progress.add_task("exact", total=len(instances))
        for instance in instances:
            ours.append(so.solve(instance.problem(), "exact", time_limit=_PATIENCE, seed=0))
            progress.advance(task)
    proved = sum(answer.status is so.Status.OPTIMAL for answer in ours)
    result.check("n = 24 to 40: proved by exact", proved, len(instances), "instances", least=True)
    for name in backends:
        compared, claimed, apart, beaten = _versus(name, instances, ours, limit)
        rows.append([name, compared, claimed, apart, beaten])
        result.check(f"{name}: subsets better than exact's optimum", beaten, 0, "", least=False)
        result.check(
            f"{name}: largest difference of proved optima", apart, 1.0, "tolerances", least=False
        )
        result.check(f"{name}: proved optima compared", claimed, 1, "", least=True)
    columns = ("backend", "instances", "proved by both", "largest difference (tolerances)",
               "better than exact")  # fmt: skip
    result.table("exact against backends, n = 24 to 40", columns, rows)


def _versus(
    name: str, instances: list[Instance], ours: list[so.Solution], limit: float
) -> tuple[int, int, float, int]:
    both, worst, beaten, solved = 0, 0.0, 0, 0
    with bar() as progress:
        task = progress.add_task(name, total=len(instances))
        for instance, answer in zip(instances, ours, strict=True):
            theirs = so.solve(instance.problem(), name, time_limit=limit, seed=0)
            progress.advance(task)
            if answer.status is not so.Status.OPTIMAL or not theirs.has_solution:
                continue
            solved += 1
            unit = instance.tolerance + instance.rounding
            lead = instance.residual(answer.indices) - instance.residual(theirs.indices)
            beaten += bool(lead > unit)
            if theirs.status is so.Status.OPTIMAL:
                both += 1
                worst = max(worst, _apart(instance, answer, theirs))
    return solved, both, worst, beaten
