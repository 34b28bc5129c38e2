"""Greedy search: one sample at a time, the best for what is still missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.partial_subset import Partial, seconds_to_complete
from subsetopt.kernels.matching.nearest import nearest_completion
from subsetopt.objectives import FacilityLocation, MeanMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.coverage.growth import Growth
from subsetopt.solvers.matching.pool import Pool
from subsetopt.status import StopReason

__all__ = ["Greedy"]


@dataclass(frozen=True, slots=True)
class Greedy:
    """Choose one sample after the other, each the best for what is still missing.

    For ``MeanMatching`` this is the loss nearest to the rest of the sum over the number of samples
    still to choose; for ``TopScores`` the largest score; for ``FacilityLocation`` the largest gain.
    A sample is passed over when quotas or capacity could not be kept after it.

    Notes
    -----
    O(n log n) for sizes alone, O(n k) with quotas or costs. Deterministic. Facility location takes
    O(n^2 k); ``lazy-greedy`` chooses the same samples much faster. Its value is at least 1 - 1/e of
    the optimum where the size is the only constraint, and at least half of it under quotas.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the subset that the greedy ends with."""
        objective = problem.objective
        if isinstance(objective, FacilityLocation):
            return _covering(problem, context)
        assert isinstance(objective, (MeanMatching, TopScores))
        if isinstance(objective, MeanMatching):
            pool = Pool.of(problem)
            if pool.plain:
                positions = np.empty(pool.size, dtype=np.int64)
                nearest_completion(pool.values, pool.target, positions)
                return RawResult(pool.indices(positions), iterations=pool.size)
        return _constrained(problem, objective, context)


def _constrained(
    problem: Problem, objective: MeanMatching | TopScores, context: SolveContext
) -> RawResult:
    """Choose step by step among the candidates that leave a feasible completion."""
    rules = problem.constraints
    deadline = context.deadline.less(seconds_to_complete(rules))
    state = Partial(rules)
    values = objective.values
    matching = isinstance(objective, MeanMatching)
    missing = 0.0
    if isinstance(objective, MeanMatching):
        missing = objective.target_sum(problem.k) - float(values[rules.forced].sum())
    stop = StopReason.COMPLETED
    while state.slots > 0:
        if deadline.expired():
            stop = StopReason.TIME
            break
        allowed = state.allowed()
        if allowed.size == 0:
            break
        keys = np.abs(values[allowed] - missing / state.slots) if matching else -values[allowed]
        pick = int(allowed[np.argmin(keys)])
        worse = abs(missing - values[pick]) >= abs(missing) if matching else values[pick] <= 0.0
        if rules.at_most and worse and state.satisfied():
            break
        missing -= values[pick]
        state.take(pick)
    return RawResult(state.completed(), stop_reason=stop, iterations=problem.k - state.slots)


def _covering(problem: Problem, context: SolveContext) -> RawResult:
    """Take the candidate with the largest gain, all of which are computed at every step."""
    growth = Growth(problem, context.deadline)

    def best(allowed: NDArray[np.int64]) -> tuple[int, int, bool]:
        complete = growth.gains.refresh(growth.upper, allowed, context.deadline)
        return int(allowed[np.argmax(growth.upper[allowed])]), allowed.size, complete

    growth.run(best)
    return growth.result(greedy=True)
