"""A random feasible subset: the baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

from subsetopt.constraints.subsets import random_subset
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext

__all__ = ["Random"]


@dataclass(frozen=True, slots=True)
class Random:
    """Draw a random feasible subset.

    Uniform over all subsets where only sizes, include and exclude constrain. Under quotas every
    feasible subset can be drawn, but not with equal probability; under a tight capacity cheap
    subsets are preferred.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the draw of the context's seed."""
        return RawResult(
            random_subset(problem.constraints, context.generator(), context.deadline), iterations=1
        )
