"""Claim 5: time limits that hold, idle and with every core kept busy."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import typer

import subsetopt as so
from benchmarks.harness.check import Instance
from benchmarks.harness.command import command
from benchmarks.harness.lateness import case_names, measured, present
from benchmarks.harness.limit_cases import hard_losses
from benchmarks.harness.options import RUNS, Out, integers, numbers
from benchmarks.harness.output import Result, bar, ms
from benchmarks.harness.specs import BACKENDS, SPECS, spec_names
from benchmarks.harness.stats import quantiles

_NATIVE = ("swap", "exact", "auto")
_AT = (0.5, 0.99, 0.999)
_CASE_LIMITS = "1e-3,1e-2,1e-1"
_LIMITS = "50e-6,100e-6,500e-6,1e-3,1e-2,1e-1,1"
_BACKEND_LIMITS = (0.05, 0.2, 1.0)
# Gurobi's pip license takes this many candidates, and HiGHS keeps a limit for this many.
_LARGEST = {"gurobi": 1999, "highs": 1100}
# auto hands over to a backend when more than this many seconds are left of its limit.
_AUTO_BACKEND = 0.25
_N = 128


@dataclass(slots=True)
class Cell:
    """Overruns of one solver under one limit, and of a bare loop between its calls."""

    solver: str
    n: int
    limit: float
    load: str
    over: list[float] = field(default_factory=list)
    spin: list[float] = field(default_factory=list)
    missing: int = 0
    early: int = 0


@command
def overrun(
    limits: Annotated[str, typer.Option(help="Comma-separated seconds.")] = _LIMITS,
    backend_sizes: Annotated[str, typer.Option(help="Sizes for MIP backends.")] = "128,1024,4096",
    repeats: Annotated[int, typer.Option(help="Most calls per solver and limit.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="Most seconds per solver and limit.")] = 1.5,
    busy: Annotated[bool, typer.Option(help="Also with every core kept busy.")] = True,
    solvers: Annotated[str | None, typer.Option(help="Native ones, comma-separated.")] = None,
    backends: Annotated[bool, typer.Option(help="Also the MIP backends.")] = True,
    matching: Annotated[bool, typer.Option(help="Mean matching in detail.")] = True,
    objectives: Annotated[bool, typer.Option(help="Every objective and native solver.")] = True,
    cases: Annotated[
        str | None, typer.Option(help="Objectives, separated by semicolons; default: all.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="Sizes for these.")] = "128,2000,20000,200000",
    case_limits: Annotated[str, typer.Option(help="Seconds for these.")] = _CASE_LIMITS,
    case_seconds: Annotated[float, typer.Option(help="Most seconds per row of these.")] = 0.3,
    cpu: Annotated[
        bool,
        typer.Option(
            help="Limit and measure processor time for these, for a busy machine: with "
            "OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1."
        ),
    ] = False,
    out: Out = RUNS,
) -> Result:
    """Claim 5: actual time minus limit, against a bare spin loop."""
    so.warmup()
    settings = {
        "instance": "rate 0.1, out of reach by 1 in 2e6, unprovably",
        "most calls": repeats,
        "most seconds": seconds,
        "most seconds per objective, solver and limit": case_seconds,
        "clock of these": "processor time" if cpu else "wall clock",
    }
    result = Result("overrun", "Time limits: actual time minus limit", settings)
    if matching:
        natives = spec_names(solvers) if solvers else list(_NATIVE)
        usable = set(so.available_solvers()) if backends else set()
        cells = []
        for load in ("idle", "busy") if busy else ("idle",):
            with _busy_cores() if load == "busy" else contextlib.nullcontext():
                for name in natives:
                    SPECS[name].warm_up()
                    cells += [_cell(name, _N, t, load, repeats, seconds) for t in numbers(limits)]
                for name in [b for b in BACKENDS if b in usable]:
                    SPECS[name].warm_up()
                    cells += [
                        _cell(name, n, t, load, repeats, seconds)
                        for n in _sizes(name, backend_sizes)
                        for t in _BACKEND_LIMITS
                    ]
        _present(result, cells)
    if objectives:
        clock = time.process_time if cpu else time.perf_counter
        rows = measured(
            case_names(cases), integers(sizes), numbers(case_limits), case_seconds, repeats, clock
        )
        present(result, list(rows))
    return result


def _sizes(name: str, wanted: str) -> list[int]:
    """Return the sizes that a backend takes under a time limit."""
    return [n for n in integers(wanted) if n <= _LARGEST.get(name, n)]


def hard_instance(seed: int = 0, n: int = _N) -> Instance:
    """Return an instance that no solver settles within a second, see :func:`hard_losses`."""
    k = round(0.1 * n)
    losses, target = hard_losses(n, k, seed)
    return Instance(losses, k, {"target": target})


def _cell(name: str, n: int, limit: float, load: str, repeats: int, seconds: float) -> Cell:
    cell = Cell(name, n, limit, load)
    end = time.perf_counter() + seconds
    with bar() as progress:
        task = progress.add_task(f"{load} {name} n={n} {limit * 1e3:g} ms", total=repeats)
        while len(cell.over) < repeats and (time.perf_counter() < end or not cell.over):
            _once(cell, len(cell.over))
            progress.advance(task)
    return cell


def _once(cell: Cell, seed: int) -> None:
    instance = hard_instance(seed % 16, cell.n)
    problem = instance.problem()
    # A garbage collection takes up to a millisecond for objects that are not the solver's, so it is
    # off while a call is timed.
    gc.disable()
    try:
        start = time.perf_counter()
        solution = SPECS[cell.solver].solve(problem, cell.limit, seed)
        taken = time.perf_counter() - start
    finally:
        gc.enable()
    if solution.status is so.Status.OPTIMAL and taken < cell.limit:
        cell.early += 1
    cell.over.append(taken - cell.limit)
    cell.spin.append(_spin(cell.limit))
    if not (solution.has_solution and instance.feasible(solution.indices)):
        cell.missing += 1


def _spin(limit: float) -> float:
    start = time.perf_counter()
    while time.perf_counter() - start < limit:
        pass
    return time.perf_counter() - start - limit


@contextlib.contextmanager
def _busy_cores() -> Iterator[None]:
    """Keep every core busy with a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_burn, daemon=True) for _ in range(os.cpu_count() or 1)]
    for worker in workers:
        worker.start()
    try:
        time.sleep(1.0)
        yield
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _burn() -> None:
    while True:
        pass


def _present(result: Result, cells: list[Cell]) -> None:
    rows = []
    for cell in cells:
        quantile = [ms(q) for q in quantiles(cell.over, _AT)]
        spin = [ms(q) for q in quantiles(cell.spin, _AT)]
        rows.append(
            [cell.load, cell.solver, cell.n, ms(cell.limit), len(cell.over), *quantile, *spin,
             cell.missing, cell.early]
        )  # fmt: skip
        _check(result, cell)
    columns = ("load", "solver", "n", "limit", "calls", "50%", "99%", "99.9%", "spin 50%",
               "spin 99%", "spin 99.9%", "no subset", "proved early")  # fmt: skip
    result.table("Actual time minus limit", columns, rows)
    result.notes.append(
        "Python's garbage collector is off during a call, as in timeit. "
        "Quantiles are observed values: of fewer than 1,000 calls the 99.9% quantile is the worst. "
        "'Spin' is a bare loop to the same limit, in turn with the calls. Calls that proved the "
        "optimum before the limit are counted apart; they make quantiles smaller. Backends may "
        "end without a subset below their own start-up time; native solvers may not."
    )


def _check(result: Result, cell: Cell) -> None:
    what = f"{cell.load}: {cell.solver}, n={cell.n:,}, {cell.limit * 1e3:g} ms"
    backend = cell.solver in BACKENDS or (cell.solver == "auto" and cell.limit > _AUTO_BACKEND)
    over, spin = quantiles(cell.over, _AT), quantiles(cell.spin, _AT)
    if backend:
        result.check(f"{what}: p99", over[1] * 1e3, 50.0, "ms", least=False)
    elif cell.load == "busy":
        result.check(f"{what}: p99", over[1] * 1e3, 10.0, "ms", least=False)
    else:
        target = 0.3 + max(0.0, spin[2]) * 1e3
        result.check(f"{what}: p99.9", over[2] * 1e3, target, "ms", least=False)
    if cell.solver not in BACKENDS:
        result.check(f"{what}: calls without a subset", cell.missing, 0, "", least=False)
