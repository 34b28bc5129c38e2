"""A matching problem with everything settled taken out: choose `size` of `m` values, hit a sum.

Included candidates move into the target, excluded ones are dropped, and ``at_most`` becomes exact
by zero-valued dummies that stand for "one fewer". Solvers work on this form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.matching import radix_sort as radix
from subsetopt.objectives import MeanMatching
from subsetopt.problem import Problem

__all__ = ["Groups", "Pool", "ascending"]

# From this size on, sorting by radix pays.
_RADIX = 1024
# From so many tied values on, sorting by their ranks does.
_MANY_TIED = 10_000
_FLOAT32_INTEGERS = 1 << 24
_NO_INTS = np.empty(0, dtype=np.int64)
_NO_FLOATS = np.empty(0, dtype=np.float64)


class Groups(NamedTuple):
    """The positions of a pool by group.

    Attributes
    ----------
    members
        Positions, group by group, ascending in each, (m,).
    begin
        Where each group begins, (groups + 1,); one group without quotas.
    sums
        Cumulated values of the members, (m + 1,) from 0.
    """

    members: NDArray[np.int64]
    begin: NDArray[np.int64]
    sums: NDArray[np.float64]


class ByCost(NamedTuple):
    """The positions of a pool by ascending cost, and their cumulated costs from 0."""

    order: NDArray[np.int64]
    sums: NDArray[np.float64]


@dataclass(eq=False)
class Pool:
    """Values to choose from, ascending, and the sum to hit.

    One pool is shared by all solvers that take up the same problem: its arrays are not written to.

    Attributes
    ----------
    values
        Candidate values (m,), float64, ascending.
    items
        Candidate index of each value (m,); -1 for a dummy.
    forced
        Candidates that are in every subset.
    size
        How many of the pool to choose.
    target
        The sum to hit: k times the objective's target, less the forced values.
    codes, low, high
        Group number per value, and the counts still allowed per group; empty without quotas.
    costs, capacity
        Cost per value and what is left of the capacity; empty and infinity without.
    distance
        The lower bound on the distance from the target, once it is known, with the bound that was
        of no more use (see :func:`~subsetopt.solvers.matching.bounds.sum_distance`).
    ascending
        False where the values are in the order of the candidates, see :meth:`as_given`.
    """

    values: NDArray[np.float64]
    items: NDArray[np.int64]
    forced: NDArray[np.int64]
    size: int
    target: float
    codes: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    costs: NDArray[np.float64]
    capacity: float
    distance: tuple[float, float] | None = None
    ascending: bool = True

    @classmethod
    def of(cls, problem: Problem) -> Pool:
        """Return the pool of a mean-matching problem whose constraints can be satisfied."""
        pool: Pool | None = problem.shared.get("pool")
        if pool is None:
            # Two threads may both make one: they are the same.
            pool = problem.shared["pool"] = cls._made(problem)
        return pool

    @classmethod
    def as_given(cls, problem: Problem) -> Pool:
        """Return the pool of a problem without constraints, its values as they come."""
        objective = problem.objective
        assert isinstance(objective, MeanMatching)
        # What a kernel is compiled for: contiguous, and not for reading only.
        values = np.require(objective.values, requirements=["C", "W"])
        return cls(
            values, np.arange(problem.n), _NO_INTS, problem.k, problem.k * objective.target,
            _NO_INTS, _NO_INTS, _NO_INTS, _NO_FLOATS, math.inf, ascending=False,
        )  # fmt: skip

    @classmethod
    def _made(cls, problem: Problem) -> Pool:
        objective = problem.objective
        assert isinstance(objective, MeanMatching)
        if not problem.constrained and problem.cardinality == "exact":
            values, order = ascending(objective)
            target = problem.k * objective.target
            return cls(
                values, order, _NO_INTS, problem.k, target, _NO_INTS, _NO_INTS, _NO_INTS,
                _NO_FLOATS, math.inf,
            )  # fmt: skip
        return cls._constrained(problem, objective)

    @classmethod
    def _constrained(cls, problem: Problem, objective: MeanMatching) -> Pool:
        rules = problem.constraints
        size = problem.k - rules.forced.size
        dummies = size if rules.at_most else 0
        values = np.concatenate([objective.values[rules.free], np.zeros(dummies)])
        items = np.concatenate([rules.free, np.full(dummies, -1)])
        codes = low = high = _NO_INTS
        if rules.codes is not None and rules.low is not None and rules.high is not None:
            count = np.bincount(rules.codes[rules.forced], minlength=rules.low.size)
            low = np.maximum(rules.low - count, 0)
            high = rules.high - count
            high[-1] = items.size  # the free group, and the dummies
            codes = np.where(items >= 0, rules.codes[items], low.size - 1)
        costs, capacity = _NO_FLOATS, math.inf
        if rules.costs is not None:
            costs = np.where(items >= 0, rules.costs[items], 0.0)
            capacity = rules.capacity - math.fsum(rules.costs[rules.forced])
        target = problem.k * objective.target - math.fsum(objective.values[rules.forced])
        order = _order(values, [key for key in (costs, codes) if key.size])
        return cls(
            values[order],
            items[order],
            rules.forced,
            size,
            target,
            codes[order] if codes.size else codes,
            low,
            high,
            costs[order] if costs.size else costs,
            capacity,
        )

    @property
    def plain(self) -> bool:
        """Whether any subset of the right size is feasible."""
        return not (self.codes.size or self.costs.size)

    @property
    def span(self) -> float:
        """The largest value less the smallest."""
        if self.ascending and self.values.size:
            return float(self.values[-1] - self.values[0])
        return float(np.ptp(self.values)) if self.values.size else 0.0

    @cached_property
    def groups(self) -> Groups:
        """The positions by group."""
        m = self.values.size
        if not self.codes.size:
            return Groups(np.arange(m), np.array([0, m]), _cumulated(self.values))
        members = np.argsort(self.codes, kind="stable")
        begin = np.zeros(self.low.size + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.codes, minlength=self.low.size), out=begin[1:])
        return Groups(members, begin, _cumulated(self.values[members]))

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """The kind of every position, ascending: positions of one kind are interchangeable."""
        other = self.values[1:] != self.values[:-1]
        for key in (self.codes, self.costs):
            if key.size:
                other |= key[1:] != key[:-1]
        return np.concatenate([[0], np.cumsum(other)])[: self.values.size]

    @cached_property
    def by_cost(self) -> ByCost:
        """The positions by cost; empty without costs."""
        order = np.argsort(self.costs, kind="stable")
        return ByCost(order, _cumulated(self.costs[order]))

    def indices(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the candidates that chosen positions of the pool stand for, forced ones too."""
        chosen = self.items[positions]
        if self.forced.size or (chosen.size and chosen.min() < 0):
            chosen = np.concatenate([self.forced, chosen[chosen >= 0]])
        return chosen

    def positions(self, indices: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return ``size`` positions that stand for a feasible subset of candidates."""
        where = np.full(n, -1, dtype=np.int64)
        real = np.flatnonzero(self.items >= 0)
        where[self.items[real]] = real
        chosen = where[indices]
        chosen = chosen[chosen >= 0]
        dummies = np.flatnonzero(self.items < 0)[: self.size - chosen.size]
        return np.concatenate([chosen, dummies])


def _cumulated(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(values.size + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _order(values: NDArray[np.float64], keys: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the order of values, and of equal values the order of the further keys, last first.

    Interchangeable candidates come side by side: searches take them in order only. Sorting by
    every key is several sorts, so that it is left to the ties.
    """
    order = np.argsort(values)
    ranked = values[order]
    same = ranked[1:] == ranked[:-1]
    tied = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    if tied.size > _MANY_TIED and keys:
        return _order_by_ranks(order, same, keys)
    if tied.size:
        among = order[tied]
        order[tied] = among[np.lexsort((among, *(key[among] for key in keys), values[among]))]
    return order


def _order_by_ranks(
    order: NDArray[np.int64], same: NDArray[np.bool_], keys: list[NDArray[Any]]
) -> NDArray[np.int64]:
    """Return what :func:`_order` does for many ties: by one key after another, the ranks last."""
    ranks = np.zeros(order.size, dtype=np.int64)
    ranks[order[1:]] = np.cumsum(~same)
    order = np.arange(order.size)
    for key in (*keys, ranks):
        order = order[_stable_order(key[order])]
    return order


def _stable_order(key: NDArray[Any]) -> NDArray[np.int64]:
    """Return the stable order of a key: by radix where it is of integers that a float32 holds."""
    if key.dtype.kind != "i":
        order = np.argsort(key)
        ranked = key[order]
        return np.argsort(key, kind="stable") if (ranked[1:] == ranked[:-1]).any() else order
    if key.size and key.max() < _FLOAT32_INTEGERS:
        by_radix: NDArray[np.int64] = radix.ascending(key.astype(np.float64))[1]
        return by_radix
    return np.argsort(key, kind="stable")


def ascending(objective: MeanMatching) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return an objective's values in ascending order, and their positions."""
    values = objective.values
    if values.size < _RADIX or not objective.single or objective.base_weights is not None:
        order = np.argsort(values)
        return values[order], order
    # Values that came in single precision are that still, and sort faster so.
    return radix.ascending(values)
