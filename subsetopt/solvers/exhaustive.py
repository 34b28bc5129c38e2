"""Every subset in turn: the oracle that other solvers are tested against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.matching.combinations import enumerate_chunk
from subsetopt.objectives import MeanMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["Exhaustive"]

# Combinations looked at between two looks at the clock: about 50 microseconds.
_CHUNK = 5_000
# The default work limit: half a second or less.
_DEFAULT_WORK = 50_000_000
# The same for objectives that are evaluated one subset at a time.
_SLOW_CHUNK = 4
_SLOW_WORK = 100_000
_NO_INTS = np.empty(0, dtype=np.int64)
_NO_FLOATS = np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Exhaustive:
    """Look at every subset; exact under every constraint, for tiny n.

    Notes
    -----
    One iteration is one subset. For ``MeanMatching`` and ``TopScores`` it takes about 8 ns, and the
    default limit is 50 million; for all others, evaluated one by one, some 20 us, and 100,000.
    Stopped before the end, it returns the best subset so far without a bound.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best of all subsets."""
        linear = isinstance(problem.objective, (MeanMatching, TopScores))
        enumeration = _Enumeration(problem) if linear else _Evaluation(problem)
        stop = enumeration.run(context)
        best = enumeration.best
        if best is None:
            done = stop is StopReason.COMPLETED
            return RawResult(
                context.warm_start,
                stop_reason=stop,
                iterations=enumeration.looked,
                infeasible=done,
            )
        bound = None
        if stop is StopReason.COMPLETED:
            indices = np.sort(best)
            weights = problem.objective.weights_for(indices, problem.k)
            assert weights is not None
            bound = problem.objective.evaluate(indices, weights)
        return RawResult(best, bound=bound, stop_reason=stop, iterations=enumeration.looked)


class _Enumeration:
    """The combinations of the free candidates, size by size."""

    def __init__(self, problem: Problem) -> None:
        objective = problem.objective
        assert isinstance(objective, (MeanMatching, TopScores))
        rules = problem.constraints
        self.rules = rules
        self.matching = isinstance(objective, MeanMatching)
        self.values = np.ascontiguousarray(objective.values[rules.free])
        self.target = 0.0
        if isinstance(objective, MeanMatching):
            self.target = problem.k * objective.target - math.fsum(objective.values[rules.forced])
        self.codes = self.low = self.high = _NO_INTS
        if rules.codes is not None and rules.low is not None and rules.high is not None:
            self.codes = rules.codes[rules.free]
            count = np.bincount(rules.codes[rules.forced], minlength=rules.low.size)
            self.low, self.high = rules.low - count, rules.high - count
        self.costs, self.capacity = _NO_FLOATS, math.inf
        if rules.costs is not None:
            self.costs = rules.costs[rules.free]
            self.capacity = rules.capacity - math.fsum(rules.costs[rules.forced])
        need = problem.k - rules.forced.size
        self.sizes = range(need + 1) if rules.at_most else range(need, need + 1)
        self.best: NDArray[np.int64] | None = None
        self.value = math.inf
        self.looked = 0

    def run(self, context: SolveContext) -> StopReason:
        """Enumerate until the end, a limit or an interrupt."""
        limit = context.max_iterations
        if limit is None and not context.deadline.limited:
            limit = _DEFAULT_WORK
        try:
            for size in self.sizes:
                stop = self._run_size(size, limit, context)
                if stop is not None:
                    return stop
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED
        return StopReason.COMPLETED

    def _run_size(self, size: int, limit: int | None, context: SolveContext) -> StopReason | None:
        if size > self.values.size:
            return None
        comb = np.arange(size)
        best = np.full(size, -1, dtype=np.int64)
        while True:
            chunk = _CHUNK if limit is None else min(_CHUNK, limit - self.looked)
            if chunk <= 0:
                return StopReason.ITERATION
            value, looked, done = enumerate_chunk(
                self.values, self.target, self.matching, comb, best, self.value,
                self.codes, self.low, self.high, self.costs, self.capacity, chunk,
            )  # fmt: skip
            self.looked += looked
            if value < self.value:
                self.value = value
                self.best = np.concatenate([self.rules.forced, self.rules.free[best]])
            if done:
                return None
            if context.deadline.expired():
                return StopReason.TIME


class _Evaluation:
    """The combinations of the free candidates, each evaluated by the objective itself."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.best: NDArray[np.int64] | None = None
        self.value = math.inf
        self.looked = 0

    def run(self, context: SolveContext) -> StopReason:
        """Enumerate until the end, a limit or an interrupt."""
        limit = context.max_iterations
        if limit is None and not context.deadline.limited:
            limit = _SLOW_WORK
        subsets = self._subsets()
        try:
            while True:
                room = _SLOW_CHUNK if limit is None else min(_SLOW_CHUNK, limit - self.looked)
                chunk = list(islice(subsets, max(room, 1)))
                if not chunk:
                    return StopReason.COMPLETED
                if room <= 0:
                    return StopReason.ITERATION
                for subset in chunk:
                    self._look(subset)
                if context.deadline.expired():
                    return StopReason.TIME
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED

    def _subsets(self) -> Iterator[tuple[int, ...]]:
        rules = self.problem.constraints
        need = rules.k - rules.forced.size
        for size in range(need + 1) if rules.at_most else (need,):
            yield from combinations(rules.free.tolist(), size)

    def _look(self, subset: tuple[int, ...]) -> None:
        problem, objective = self.problem, self.problem.objective
        self.looked += 1
        rules = problem.constraints
        indices = np.sort(np.concatenate([rules.forced, np.array(subset, dtype=np.int64)]))
        if rules.violations(indices) or objective.violations(indices, problem.k):
            return
        weights = objective.weights_for(indices, problem.k)
        assert weights is not None
        value = objective.evaluate(indices, weights)
        value = value if objective.sense == "minimize" else -value
        if value < self.value:
            self.value, self.best = value, indices
