"""One sample at a time, the one that is best for what is still missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints import Constraints
from subsetopt.kernels.nearest import nearest_completion
from subsetopt.objectives import MeanMatching, TopScores
from subsetopt.pool import Pool
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["Greedy"]


@dataclass(frozen=True, slots=True)
class Greedy:
    """Choose one sample after the other, each the best for what is still missing.

    For ``MeanMatching`` the loss nearest to (what is missing of the sum) / (how many are missing);
    for ``TopScores`` the largest score. A sample is passed over when quotas or capacity could not
    be kept after it.

    Notes
    -----
    O(n log n) for sizes alone, O(n k) with quotas or costs. Deterministic.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the subset that the greedy ends with."""
        objective = problem.objective
        assert isinstance(objective, (MeanMatching, TopScores))
        if isinstance(objective, MeanMatching):
            pool = Pool.of(problem)
            if pool.plain:
                positions = nearest_completion(pool.values, pool.size, pool.target)
                return RawResult(pool.indices(positions), iterations=pool.size)
        return _constrained(problem, objective, context)


def _constrained(
    problem: Problem, objective: MeanMatching | TopScores, context: SolveContext
) -> RawResult:
    """Choose step by step among the candidates that leave a feasible completion."""
    rules = problem.constraints
    state = _Partial(rules)
    values = objective.values
    matching = isinstance(objective, MeanMatching)
    missing = 0.0
    if isinstance(objective, MeanMatching):
        missing = problem.k * objective.target - float(values[rules.forced].sum())
    stop = StopReason.COMPLETED
    while state.left > 0:
        if context.deadline.expired():
            stop = StopReason.TIME
            break
        allowed = state.allowed()
        if allowed.size == 0:
            break
        keys = np.abs(values[allowed] - missing / state.left) if matching else -values[allowed]
        pick = int(allowed[np.argmin(keys)])
        worse = abs(missing - values[pick]) >= abs(missing) if matching else values[pick] <= 0.0
        if rules.at_most and worse and state.satisfied():
            break
        missing -= values[pick]
        state.take(pick)
    if state.satisfied() and (state.left == 0 or rules.at_most):
        return RawResult(state.chosen(), stop_reason=stop, iterations=problem.k - state.left)
    # Out of time, or quotas and capacity together led into a dead end.
    cheapest = rules.greedy_by(np.zeros(rules.n) if rules.costs is None else rules.costs)
    return RawResult(None if isinstance(cheapest, str) else cheapest, stop_reason=stop)


class _Partial:
    """A subset under construction, and which candidates may still be added."""

    def __init__(self, rules: Constraints) -> None:
        self.rules = rules
        self.left = rules.k - rules.forced.size
        self.open = np.zeros(rules.n, dtype=np.bool_)
        self.open[rules.free] = True
        self.mask = np.zeros(rules.n, dtype=np.bool_)
        self.mask[rules.forced] = True
        self.spent = 0.0 if rules.costs is None else float(rules.costs[rules.forced].sum())
        groups = 0 if rules.low is None else rules.low.size
        self.count = np.zeros(groups, dtype=np.int64)
        if rules.codes is not None:
            self.count += np.bincount(rules.codes[rules.forced], minlength=groups)

    def satisfied(self) -> bool:
        """Whether the lower quotas hold."""
        return self.rules.low is None or bool((self.count >= self.rules.low).all())

    def allowed(self) -> NDArray[np.int64]:
        """Return the candidates after which sizes, quotas and (nearly) capacity can be kept."""
        rules = self.rules
        open_ = self.open
        if rules.codes is not None and rules.low is not None and rules.high is not None:
            lacking = np.maximum(rules.low - self.count, 0)
            fits = self.count < rules.high
            if lacking.sum() >= self.left:
                fits &= lacking > 0
            open_ = open_ & fits[rules.codes]
        candidates = np.flatnonzero(open_)
        if rules.costs is None or candidates.size == 0:
            return candidates
        # The cheapest way to fill the other slots, quotas not counted.
        others = 0 if rules.at_most else self.left - 1
        pool = np.sort(rules.costs[self.open])[: others + 1]
        room = rules.capacity - self.spent
        costs = rules.costs[candidates]
        if pool.size <= others:
            return candidates[:0]
        # Without the candidate itself the cheapest `others` are those of the rest.
        rest = pool[:others].sum() if others else 0.0
        own = costs <= (pool[others - 1] if others else -1.0)
        rest_without = np.where(own, rest + pool[others] - costs, rest)
        return candidates[costs + rest_without <= room]

    def take(self, pick: int) -> None:
        """Add a candidate."""
        self.mask[pick] = True
        self.open[pick] = False
        self.left -= 1
        if self.rules.codes is not None:
            self.count[self.rules.codes[pick]] += 1
        if self.rules.costs is not None:
            self.spent += float(self.rules.costs[pick])

    def chosen(self) -> NDArray[np.int64]:
        """Return the subset."""
        return np.flatnonzero(self.mask)
