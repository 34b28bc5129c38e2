"""How late calls return under a time limit, for every objective and native solver."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import subsetopt as so
from benchmarks.harness.limit_cases import CASES, LimitCase, natives
from benchmarks.harness.output import Result, bar, ms
from benchmarks.harness.stats import quantiles
from subsetopt.errors import did_you_mean

__all__ = ["Lateness", "case_names", "measured", "present"]

# Milliseconds after the limit by which a call has to be back, at the 99% quantile.
_LATE = 10.0
# Calls of a row at least.
_FEWEST = 3
# Seconds of the bare loop between two calls, at most.
_BARE = 1e-2


@dataclass(slots=True)
class Lateness:
    """Calls of one solver on one problem under one limit; all times in seconds."""

    case: str
    solver: str
    n: int
    k: int
    limit: float
    #: What finding a feasible subset, checking it and recomputing its objective take by themselves:
    #: no call with an answer is shorter.
    least: float
    late: list[float] = field(default_factory=list)  #: time from call to return less the limit
    #: The lateness of a loop that only looks at the clock, up to 10 ms, between the calls.
    bare: list[float] = field(default_factory=list)
    missing: int = 0  #: calls without a subset

    @property
    def p99(self) -> float:
        """The 99% quantile of the lateness in milliseconds; of few calls the worst."""
        return 1e3 * quantiles(self.late, (0.99,))[0]

    def verdict(self, jitter: float) -> str:
        """Return whether the calls were in time; "least" where no call could be.

        Parameters
        ----------
        jitter
            The 99% quantile of the bare loop's lateness in milliseconds.
        """
        allowed = _LATE + max(0.0, jitter)
        if self.p99 <= allowed:
            return "yes"
        least = 1e3 * max(0.0, self.least - self.limit)
        return "least" if least and self.p99 <= least + allowed else "NO"


def case_names(wanted: str | None) -> list[str]:
    """Return the cases of a list separated by semicolons, all of them for None."""
    if wanted is None:
        return list(CASES)
    names = [name.strip() for name in wanted.split(";") if name.strip()]
    for name in names:
        if name not in CASES:
            raise so.OptionError(
                f"no objective named {name!r}.{did_you_mean(name, CASES)} "
                f"Known: {'; '.join(CASES)}."
            )
    return names


def measured(
    names: Sequence[str],
    sizes: Sequence[int],
    limits: Sequence[float],
    seconds: float,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Lateness]:
    """Yield the lateness of every native solver that takes a case, by size and limit.

    Parameters
    ----------
    names
        Names of cases.
    sizes
        Numbers of candidates; beyond the largest of a case that one is taken.
    limits
        Time limits in seconds.
    seconds, repeats
        Most seconds and calls per row, of which there are at least three calls.
    clock
        What times and limits are measured with.
    """
    for name in names:
        case = CASES[name]
        for n in sorted({min(n, case.largest or n) for n in sizes}):
            yield from _of_size(case, n, limits, seconds, repeats, clock)


def _of_size(
    case: LimitCase,
    n: int,
    limits: Sequence[float],
    seconds: float,
    repeats: int,
    clock: Callable[[], float],
) -> Iterator[Lateness]:
    k = case.size(n)
    objective, rules = case.make(n, k)
    with bar() as progress:
        names = list(natives(so.Problem(objective, k, **rules)))
        task = progress.add_task(f"{case.name} n={n:,}", total=len(names) * len(limits))
        for solver in names:
            # An untimed call loads and compiles whatever this size needs.
            so.solve(so.Problem(objective, k, **rules), solver, max(limits), seed=0)
            for limit in limits:
                row = Lateness(case.name, solver, n, k, limit, 0.0)
                end = time.perf_counter() + seconds
                while len(row.late) < repeats:
                    if time.perf_counter() >= end and len(row.late) >= _FEWEST:
                        break
                    solution = _once(row, so.Problem(objective, k, **rules), clock)
                if solution.has_solution:
                    again = (so.Problem(objective, k, **rules) for _ in range(_FEWEST))
                    row.least = min(_least(problem, solution, clock) for problem in again)
                progress.advance(task)
                yield row


def _once(row: Lateness, problem: so.Problem, clock: Callable[[], float]) -> so.Solution:
    # A garbage collection takes up to a millisecond for objects that are not the solver's.
    gc.disable()
    try:
        deadline = so.Deadline(row.limit, clock=clock)
        solution = so.solve(problem, row.solver, deadline, seed=len(row.late))
        row.late.append(deadline.elapsed() - row.limit)
    finally:
        gc.enable()
    bare = so.Deadline(min(row.limit, _BARE), clock=clock)
    while not bare.expired():
        pass
    row.bare.append(bare.elapsed() - bare.seconds)
    row.missing += not solution.has_solution
    return solution


def _least(problem: so.Problem, solution: so.Solution, clock: Callable[[], float]) -> float:
    start = clock()
    if problem.constrained:
        problem.constraints.infeasibility()  # finds a feasible subset
    so.verify(problem, solution)
    return clock() - start


def present(result: Result, rows: Sequence[Lateness]) -> None:
    """Add the table of all rows, the bare loop's own rows, and the claims."""
    jitter = {limit: _jitter(rows, limit) for limit in sorted({row.limit for row in rows})}
    table: list[list[Any]] = [
        ["(bare loop)", "", "", "", ms(min(limit, _BARE)), calls, *map(ms, late), "", "", ""]
        for limit, (calls, late) in jitter.items()
    ]
    for row in rows:
        late = [*quantiles(row.late, (0.5, 0.99)), max(row.late)]
        verdict = row.verdict(1e3 * jitter[row.limit][1][1])
        table.append(
            [row.case, row.solver, row.n, row.k, ms(row.limit), len(row.late), *map(ms, late),
             ms(row.least), row.missing, verdict]
        )  # fmt: skip
    columns = ("objective", "solver", "n", "k", "limit", "calls", "50%", "99%", "worst", "least",
               "no subset", "in time")  # fmt: skip
    result.table("Every objective and native solver: actual time minus limit", columns, table)
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        late = [row for row in own if row.verdict(1e3 * jitter[row.limit][1][1]) == "NO"]
        result.check(f"{case}: rows late by more than 10 ms", len(late), 0, "", least=False)
        missing = sum(row.missing for row in own if _owes_a_subset(row))
        result.check(f"{case}: calls without a subset", missing, 0, "", least=False)
    result.notes.append(
        "Every objective: a call is timed from solve to return, with what a solver prepares, and "
        "with the check of its answer. The objective and the Problem are the caller's own, made "
        "before; every call has a new Problem. A first call of each solver and size, which loads "
        "kernels, is not timed. 'Least' is what "
        "the constraints, the check of a subset and its objective in float64 take by themselves. A "
        "call that cannot be shorter than its limit plus 10 ms for that reason alone is marked "
        "'least'. '(Bare loop)' only looks at the clock, in turn with the calls; its 99% quantile "
        "is allowed for. Looking at all subsets finds none within the band of scored matching in "
        "time, where there are many. Quantiles are observed values: of fewer than 100 calls the "
        "99% quantile is the worst."
    )


def _owes_a_subset(row: Lateness) -> bool:
    """Whether a solver finds a feasible subset without looking at all: in a band it has to."""
    return CASES[row.case].free or row.solver != "exhaustive"


def _jitter(rows: Sequence[Lateness], limit: float) -> tuple[int, list[float]]:
    """Return how often the bare loop ran under a limit, and its quantiles and worst in seconds."""
    bare = [late for row in rows if row.limit == limit for late in row.bare]
    return len(bare), [*quantiles(bare, (0.5, 0.99)), max(bare)]
