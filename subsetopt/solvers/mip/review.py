"""Claims of backends, compared with what native solvers find in little time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from subsetopt.constraints.remaining import Remaining
from subsetopt.errors import SolverError
from subsetopt.objectives import MeanMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext, Solver
from subsetopt.solvers.coverage.farthest_first import FarthestFirst
from subsetopt.solvers.coverage.greedy import LazyGreedy
from subsetopt.solvers.exhaustive import Exhaustive
from subsetopt.solvers.greedy import Greedy
from subsetopt.solvers.mip.constraint_rows import feasible, sign_of, value_of
from subsetopt.solvers.scored.lagrangian import Lagrangian
from subsetopt.solvers.swap import Swap
from subsetopt.status import StopReason

__all__ = ["reviewed"]

# The most subsets that are all looked at, which takes some milliseconds: of objectives that
# compiled code evaluates, and of all others.
_FEW_COMPILED, _FEW = 200_000, 1_000
# The native solver of each other objective, or of larger problems, and its work.
_NATIVE: dict[str, tuple[Callable[[], Solver], int]] = {
    "MeanMatching": (Swap, 300_000),
    "TopScores": (Greedy, 1),
    "ScoredMatching": (Lagrangian, 20_000),
    "VectorMatching[uniform]": (Swap, 1_000_000),
    "FacilityLocation": (LazyGreedy, 1),
    "KCenter": (FarthestFirst, 1),
}
# The ends after which there is no time to look at a claim.
_ENDS = (StopReason.TIME, StopReason.INTERRUPTED)


def reviewed(problem: Problem, context: SolveContext, raw: RawResult) -> RawResult:
    """Return a backend's result, or a native one where that refutes what it says.

    Where there are few subsets, all of them are looked at; otherwise the native solver of the
    objective looks for one beyond the bound, or for any where none is said to be feasible.
    """
    claims = raw.infeasible or raw.bound is not None
    if not claims or raw.stop_reason in _ENDS or context.deadline.expired():
        return raw
    try:
        native = _native_result(problem, context, raw)
    except SolverError:
        return raw
    if native is None or native.indices is None or not feasible(problem, native.indices):
        return raw
    value = value_of(problem, native.indices)
    bound = math.inf if raw.bound is None else sign_of(problem) * raw.bound
    if value >= bound - problem.objective.tolerance:
        return raw
    return replace(
        raw,
        indices=min(raw.indices, native.indices, key=partial(value_of, problem)),
        bound=native.bound,
        stop_reason=StopReason.NUMERICAL,
        infeasible=False,
    )


def _native_result(problem: Problem, context: SolveContext, raw: RawResult) -> RawResult | None:
    compiled = isinstance(problem.objective, (MeanMatching, TopScores))
    few = _FEW_COMPILED if compiled else _FEW
    if _count_is_within(few, problem.constraints.remaining):
        native = Exhaustive().solve(problem, SolveContext(context.deadline))
        return native if native.stop_reason is StopReason.COMPLETED else None
    kinds = (type(problem.objective).__name__, *problem.objective.kinds)
    for kind in filter(_NATIVE.__contains__, kinds):
        make, work = _NATIVE[kind]
        limits = replace(context, max_iterations=work, warm_start=raw.indices, backend_params={})
        return make().solve(problem, limits)
    return None


def _count_is_within(most: int, remaining: Remaining) -> bool:
    """Whether there are at most so many subsets of the right size."""
    m, size = remaining.items.size, min(remaining.size, remaining.items.size)
    # There are at least 2**smaller subsets.
    smaller = min(size, m // 2) if remaining.at_most else min(size, m - size)
    if smaller > most.bit_length():
        return False
    sizes = range(0 if remaining.at_most else size, size + 1)
    return sum(math.comb(m, j) for j in sizes) <= most
