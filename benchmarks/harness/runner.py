"""One solve, timed phase by phase and checked independently."""

from __future__ import annotations

import gc
import time
from statistics import median

import subsetopt as so
from benchmarks.harness.check import Instance
from benchmarks.harness.families import Case
from benchmarks.harness.specs import Spec
from benchmarks.harness.store import Row
from subsetopt.errors import SolverLicenseError, UnsupportedProblemError

__all__ = ["LADDER", "ladder", "run"]

# Anytime solvers are sampled at limits of 1, 2, 5 per decade, from 20 microseconds to 10 seconds.
LADDER = tuple(float(f"{m}e{e}") for e in range(-5, 2) for m in (1, 2, 5))[1:-2]
# A backend is sampled from this many seconds on, since it first builds its model.
_LEAST_BACKEND_LIMIT = 0.02
# Calls shorter than this many seconds are repeated, and the median is taken.
_SHORT = 5e-3
_REPEATS = 5


def ladder(spec: Spec, most: float) -> list[float]:
    """Return the limits up to ``most`` at which a solver is sampled."""
    least = _LEAST_BACKEND_LIMIT if spec.backend else LADDER[0]
    return [limit for limit in LADDER if least <= limit <= most] if spec.anytime else []


def run(spec: Spec, case: Case, instance: Instance, limit: float) -> Row:
    """Solve one instance cold; errors become rows, not tracebacks."""
    row = Row(
        case.family, case.n, case.k, case.rate, case.constrained, case.seed, spec.name, limit,
        scale=instance.scale, tolerance=instance.tolerance,
    )  # fmt: skip
    start = time.perf_counter()
    problem = instance.problem()
    row.build = time.perf_counter() - start
    row.skipped = spec.obstacle(problem) or ""
    if row.skipped:
        return row
    try:
        solution = _timed(spec, instance, limit, case.seed, row)
    except SolverLicenseError as error:
        row.skipped = f"license: {error}"
    except UnsupportedProblemError as error:
        row.skipped = str(error)
    except Exception as error:  # a crash is a result
        row.error = f"{type(error).__name__}: {error}"
    else:
        _record(row, instance, solution)
    return row


def _timed(spec: Spec, instance: Instance, limit: float, seed: int, row: Row) -> so.Solution:
    times: list[float] = []
    gc.disable()
    try:
        while not times or (len(times) < _REPEATS and times[-1] < _SHORT):
            # Each call takes a new problem, since solvers keep what they have worked out about one.
            problem = instance.problem()
            start = time.perf_counter()
            solution = spec.solve(problem, limit if spec.timed else None, seed)
            times.append(time.perf_counter() - start)
    finally:
        gc.enable()
    row.total, row.repeats = median(times), len(times)
    return solution


def _record(row: Row, instance: Instance, solution: so.Solution) -> None:
    row.status, row.stop = solution.status.name, solution.stop_reason.name
    row.native = str(solution.extras.get("native_status", ""))
    row.by, row.setup, row.bound = solution.solver, solution.setup_time, solution.bound
    row.error = str(solution.extras.get("error", ""))
    if solution.has_solution:
        row.objective = solution.objective
        row.feasible = instance.feasible(solution.indices)
        row.residual = instance.residual(solution.indices)
