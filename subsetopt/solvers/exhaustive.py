"""Every subset in turn: the oracle that other solvers are tested against."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import chain, combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.kernels.matching.combinations import enumerate_chunk
from subsetopt.objectives import MeanMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["Exhaustive"]

# Combinations looked at between two looks at the clock, which takes about 50 microseconds.
_CHUNK = 5_000
# Members of a combination up to which that is so; with more of them fewer are looked at.
_SMALL = 128
# The default limit of combinations, which takes half a second or less.
_DEFAULT_WORK = 50_000_000
# Subsets that the objective itself evaluates between two looks at the clock: each may take long.
_SLOW_CHUNK = 1
# The default limit of such subsets, which takes about two seconds.
_SLOW_WORK = 100_000


@dataclass(frozen=True, slots=True)
class Exhaustive:
    """Look at every subset; exact under every constraint, for tiny n.

    Notes
    -----
    One iteration is one subset. For ``MeanMatching`` and ``TopScores`` it takes about 8 ns, and the
    default limit is 50 million; for all others, evaluated one by one, some 20 us, and 100,000.
    Nonnegative weights take some 150 us; their fits prove no more than they are exact.
    Stopped before the end, it returns the best subset so far without a bound; if none was
    feasible, the warm start or a subset of least cost, where that keeps the constraints.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best of all subsets."""
        try:
            ended = StopReason.TIME if context.deadline.expired() else None
        except KeyboardInterrupt:
            ended = StopReason.INTERRUPTED
        if ended is not None:
            # Listing many candidates takes a while, too.
            return RawResult(_without_search(problem, context), stop_reason=ended)
        linear = isinstance(problem.objective, (MeanMatching, TopScores))
        enumeration: _Enumeration = _Compiled(problem) if linear else _Evaluated(problem)
        stop = enumeration.run(context)
        best = enumeration.best
        if best is None:
            complete = stop is StopReason.COMPLETED
            return RawResult(
                context.warm_start if complete else _without_search(problem, context),
                stop_reason=stop,
                iterations=enumeration.looked,
                infeasible=complete,
            )
        bound = enumeration.bound() if stop is StopReason.COMPLETED else None
        return RawResult(best, bound=bound, stop_reason=stop, iterations=enumeration.looked)


def _without_search(problem: Problem, context: SolveContext) -> NDArray[np.int64] | None:
    """Return the warm start, or a subset of least cost if it is feasible; None for neither."""
    if context.warm_start is not None:
        return context.warm_start
    cheapest = problem.constraints.cheapest
    if isinstance(cheapest, str) or not problem.constraints.affords(cheapest):
        return None
    return None if problem.objective.violations(cheapest, problem.k) else cheapest


class _Enumeration(ABC):
    """The subsets of the items that are left to choose from, size by size, and the best so far.

    Attributes
    ----------
    best, value
        The best feasible subset so far, forced candidates included, and its value to minimize;
        None and infinity without one.
    looked
        Subsets looked at.
    ended
        Whether every subset has been looked at.
    """

    chunk: int
    default_work: ClassVar[int]

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.remaining = remaining = problem.constraints.remaining
        smallest = 0 if remaining.at_most else remaining.size
        largest = min(remaining.size, remaining.items.size)
        self.sizes = iter(range(smallest, largest + 1))
        self.best: NDArray[np.int64] | None = None
        self.value = math.inf
        self.looked = 0
        self.ended = False

    def run(self, context: SolveContext) -> StopReason:
        """Enumerate until the end, a limit or an interrupt."""
        limit = context.max_iterations
        if limit is None and not context.deadline.limited:
            limit = self.default_work
        try:
            while not self.ended:
                room = self.chunk if limit is None else min(self.chunk, limit - self.looked)
                if room <= 0:
                    return StopReason.ITERATION
                if not self.has_time(context.deadline):
                    return StopReason.TIME
                self.look(room)
                if context.deadline.expired() and not self.ended:
                    return StopReason.TIME
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED
        return StopReason.COMPLETED

    def has_time(self, deadline: Deadline) -> bool:
        """Whether there is time for the next look."""
        return True

    @abstractmethod
    def look(self, count: int) -> None:
        """Look at the next subsets, ``count`` at most."""

    @abstractmethod
    def bound(self) -> float:
        """Return the bound that a complete enumeration proves, once there is a best subset."""


class _Compiled(_Enumeration):
    """The enumeration for objectives that are linear in the subset, in compiled code."""

    chunk = _CHUNK
    default_work = _DEFAULT_WORK

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        objective, remaining = problem.objective, self.remaining
        assert isinstance(objective, (MeanMatching, TopScores))
        self.matching = isinstance(objective, MeanMatching)
        self.values = np.ascontiguousarray(objective.values[remaining.items])
        self.target = 0.0
        if isinstance(objective, MeanMatching):
            forced = math.fsum(objective.values[remaining.forced])
            self.target = objective.target_sum(problem.k) - forced
        # Calls with a named tuple take a microsecond longer than calls with a plain one.
        self.limits = tuple(remaining.limits(remaining.items))
        self._begin_size()

    def _begin_size(self) -> None:
        """Go to the first combination of the next size."""
        size = next(self.sizes, None)
        self.ended = size is None
        # Going on from one combination to the next takes up to as many steps as it has members.
        self.chunk = max(1, _CHUNK * _SMALL // max(size or 0, _SMALL))
        self.combination = np.arange(size or 0)
        self.best_positions = np.empty_like(self.combination)

    def look(self, count: int) -> None:
        """Look at the next combinations of one size."""
        value, looked, done = enumerate_chunk(
            self.values, self.target, self.matching, self.combination, self.best_positions,
            self.value, self.limits, count,
        )  # fmt: skip
        self.looked += looked
        if value < self.value:
            self.value = value
            items = self.remaining.items[self.best_positions]
            self.best = np.concatenate([self.remaining.forced, items])
        if done:
            self._begin_size()

    def bound(self) -> float:
        """Return the objective of the best subset."""
        assert self.best is not None
        return self.problem.objective.fit(np.sort(self.best), self.problem.k)[1]


class _Evaluated(_Enumeration):
    """The enumeration for all others: the objective itself evaluates subset after subset."""

    chunk = _SLOW_CHUNK
    default_work = _SLOW_WORK

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        items = self.remaining.items.tolist()
        self.sign = 1.0 if problem.objective.sense == "minimize" else -1.0
        self.least = math.inf
        # Seconds that a look takes; None before the first under a time limit.
        self.seconds: float | None = None
        self.subsets = chain.from_iterable(combinations(items, size) for size in self.sizes)
        self._advance()

    def _advance(self) -> None:
        """Go to the next subset."""
        self.following = next(self.subsets, None)
        self.ended = self.following is None

    def has_time(self, deadline: Deadline) -> bool:
        """Whether there is time for one more subset."""
        if not deadline.limited:
            return True
        if self.seconds is None:
            problem = self.problem
            self.seconds = problem.objective.evaluation_time(problem.k, deadline.clock)
        return self.seconds == 0.0 or deadline.remaining() > self.seconds

    def look(self, count: int) -> None:
        """Evaluate the next subsets."""
        for _ in range(count):
            if self.following is None:
                return
            self._evaluate(self.following)
            self._advance()

    def _evaluate(self, subset: tuple[int, ...]) -> None:
        problem, objective = self.problem, self.problem.objective
        self.looked += 1
        indices = np.sort(np.concatenate([self.remaining.forced, np.array(subset, dtype=np.int64)]))
        if problem.constraints.violations(indices) or objective.violations(indices, problem.k):
            return
        weights, bound = objective.fit(indices, problem.k)
        value = self.sign * objective.evaluate(indices, weights)
        self.least = min(self.least, self.sign * bound)
        if value < self.value:
            self.value, self.best = value, indices

    def bound(self) -> float:
        """Return the best that any subset can reach, by the bounds of their fits."""
        return self.sign * self.least
