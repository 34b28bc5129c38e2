"""The two coreset approximations of AdaSelection (Zhang et al., AdaSelection, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subsetopt.constraints.ranks import smallest
from subsetopt.objectives import MeanMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext

__all__ = ["HalfAndHalf", "NearestMean"]


@dataclass(frozen=True, slots=True)
class HalfAndHalf:
    """Take half the k largest and half the k smallest losses (coreset approximation 1).

    For odd k the extra one comes from the largest. Ties go to the lower index.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the two ends of the sorted losses."""
        objective = problem.objective
        assert isinstance(objective, MeanMatching)
        remaining = problem.constraints.remaining
        items = remaining.items
        values = objective.values[items]
        size = min(remaining.size, items.size)
        largest = (size + 1) // 2
        # Ties are broken by position, so that the two ends never share a sample: the earlier of two
        # equal losses counts as the larger one.
        ends = [
            items[smallest(-values, largest)],
            items[::-1][smallest(values[::-1], size - largest)],
        ]
        return RawResult(np.concatenate([remaining.forced, *ends]), iterations=1)


@dataclass(frozen=True, slots=True)
class NearestMean:
    """Take the k losses nearest the target, the mean by default (coreset approximation 2).

    Ties go to the lower index; under quotas the nearest of each group, exactly.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the losses nearest the target."""
        objective = problem.objective
        assert isinstance(objective, MeanMatching)
        keys = np.abs(objective.values - objective.target)
        if problem.constraints.at_most:
            # The keys are ranks, since differences of small distances may round to ties. They are
            # negative, so that "at most" takes as many candidates as it may.
            order = np.argsort(keys, kind="stable")
            keys[order] = np.arange(problem.n) - problem.n
        chosen = problem.constraints.greedy_by(keys)
        if isinstance(chosen, str):
            return RawResult(None, infeasible=True, extras={"why": chosen})
        return RawResult(chosen, iterations=1)
