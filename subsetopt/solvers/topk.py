"""The k largest values: exact for linear scores, the big-loss heuristic for matching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subsetopt.objectives import MeanMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext

__all__ = ["TopK"]


@dataclass(frozen=True, slots=True)
class TopK:
    """Take the k largest values, per group under quotas.

    For ``TopScores`` the greedy over sizes and quotas is exact (a generalized matroid), and the
    result proves itself. For ``MeanMatching`` it is the big-loss choice, a heuristic.

    Notes
    -----
    Ties go to the lower index. With ``cardinality="at_most"`` only positive values are taken.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the k largest values."""
        objective = problem.objective
        assert isinstance(objective, (TopScores, MeanMatching))
        chosen = problem.constraints.greedy_by(-objective.values)
        if isinstance(chosen, str):
            return RawResult(None, infeasible=True, extras={"why": chosen})
        if isinstance(objective, MeanMatching):
            return RawResult(chosen, iterations=1)
        bound = float(np.add.reduce(objective.values[chosen]))
        return RawResult(chosen, bound=bound, iterations=1)
