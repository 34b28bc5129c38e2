"""The form in which solvers take up mean matching: choose ``size`` of ``m`` values, hit a sum.

Included candidates move into the target, excluded ones are dropped, and ``at_most`` becomes exact
by values of 0 that stand for "one fewer".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.ranks import stable_order
from subsetopt.constraints.remaining import ItemPool
from subsetopt.kernels.limits import UNLIMITED, ByCost, Groups
from subsetopt.kernels.matching import radix_sort as radix
from subsetopt.objectives import MeanMatching
from subsetopt.problem import Problem

__all__ = ["KnownDistance", "Pool", "ascending"]

# The number of values from which on radix sort is faster than sorting by comparison.
_RADIX = 1024
# The number of tied values above which sorting by one key after another is faster.
_MANY_TIED = 10_000
# A float32 holds every integer below this one.
_FLOAT32_INTEGERS = 1 << 24
_NO_INTS = np.empty(0, dtype=np.int64)


class KnownDistance(NamedTuple):
    """A lower bound that :func:`~subsetopt.solvers.matching.bounds.sum_distance` has proved.

    Attributes
    ----------
    useful_above
        Bounds up to this one were of no use to the caller that asked.
    bound
        The bound on the distance of the sum from the target.
    """

    useful_above: float
    bound: float


@dataclass(eq=False)
class Pool(ItemPool):
    """Values to choose from, ascending, and the sum to hit.

    One pool is shared by all solvers that take up the same problem: its arrays are not written to.

    Attributes
    ----------
    values
        Value at each position, shape (m,), float64, ascending; 0 for a stand-in.
    target
        The sum to hit: k times the objective's target, less the forced values.
    distance
        The lower bound on the distance from the target; None until a solver has asked for it.
    ascending
        False where the values are in the order of the candidates, see :meth:`as_given`.
    """

    values: NDArray[np.float64]
    target: float
    distance: KnownDistance | None = None
    ascending: bool = True

    @classmethod
    def of(cls, problem: Problem) -> Pool:
        """Return the pool of a mean-matching problem whose constraints can be satisfied."""
        pool = problem.prepared
        if not isinstance(pool, Pool):
            # Two threads may both prepare one: the two are equal.
            pool = problem.prepared = cls._prepare(problem)
        return pool

    @classmethod
    def as_given(cls, problem: Problem) -> Pool:
        """Return the pool of a problem without constraints, its values in their given order."""
        objective = problem.objective
        assert isinstance(objective, MeanMatching)
        # Kernels are compiled for contiguous arrays that can be written to.
        values = np.require(objective.values, requirements=["C", "W"])
        return cls(
            np.arange(problem.n), _NO_INTS, problem.k, UNLIMITED, values,
            objective.target_sum(problem.k), ascending=False,
        )  # fmt: skip

    @classmethod
    def _prepare(cls, problem: Problem) -> Pool:
        objective = problem.objective
        assert isinstance(objective, MeanMatching)
        if not problem.constrained and problem.cardinality == "exact":
            values, order = ascending(objective)
            target = objective.target_sum(problem.k)
            return cls(order, _NO_INTS, problem.k, UNLIMITED, values, target)
        return cls._constrained(problem, objective)

    @classmethod
    def _constrained(cls, problem: Problem, objective: MeanMatching) -> Pool:
        remaining = problem.constraints.remaining
        forced = remaining.forced
        items = np.concatenate([remaining.items, remaining.stand_ins()])
        values = remaining.gather(objective.values, items, 0.0)
        limits = remaining.limits(items)
        order = _order(values, [key for key in (limits.costs, limits.codes) if key.size])
        target = objective.target_sum(problem.k) - math.fsum(objective.values[forced])
        return cls(
            items[order], forced, remaining.size, limits.reordered(order), values[order], target
        )

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
        if not self.limits.codes.size:
            return Groups(np.arange(m), np.array([0, m]), _cumulated(self.values))
        members = np.argsort(self.limits.codes, kind="stable")
        groups = self.limits.low.size
        begin = np.zeros(groups + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.limits.codes, minlength=groups), out=begin[1:])
        return Groups(members, begin, _cumulated(self.values[members]))

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """The kind of every position, ascending: positions of one kind are interchangeable."""
        differs = self.values[1:] != self.values[:-1]
        for key in (self.limits.codes, self.limits.costs):
            if key.size:
                differs |= key[1:] != key[:-1]
        return np.concatenate([[0], np.cumsum(differs)])[: self.values.size]

    @cached_property
    def by_cost(self) -> ByCost:
        """The positions by cost; empty without costs."""
        order = np.argsort(self.limits.costs, kind="stable")
        return ByCost(order, _cumulated(self.limits.costs[order]))


def _cumulated(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros(values.size + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _order(values: NDArray[np.float64], keys: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Return the order by value; equal values are in the order of the further keys, last first.

    Interchangeable candidates then stand side by side, as the searches need it. Sorting by every
    key takes several sorts, so only equal values are sorted by the further ones.
    """
    order = np.argsort(values)
    ranked = values[order]
    same = ranked[1:] == ranked[:-1]
    tied = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    if tied.size > _MANY_TIED and keys:
        return _order_by_ranks(order, same, keys)
    if tied.size:
        items = order[tied]
        order[tied] = items[np.lexsort((items, *(key[items] for key in keys), values[items]))]
    return order


def _order_by_ranks(
    order: NDArray[np.int64], same: NDArray[np.bool_], keys: list[NDArray[Any]]
) -> NDArray[np.int64]:
    """Return the order of :func:`_order`, sorted by one key after another, by value last.

    Parameters
    ----------
    order
        The order by value, shape (m,).
    same
        Whether each value in that order equals the one before it, shape (m - 1,).
    keys
        The further keys, each of shape (m,).
    """
    ranks = np.zeros(order.size, dtype=np.int64)
    ranks[order[1:]] = np.cumsum(~same)
    order = np.arange(order.size)
    for key in (*keys, ranks):
        order = order[_stable_order(key[order])]
    return order


def _stable_order(key: NDArray[Any]) -> NDArray[np.int64]:
    """Return the stable order of a key, by radix sort where a float32 holds its integers."""
    if key.dtype.kind != "i":
        return stable_order(key)
    if key.size and key.max() < _FLOAT32_INTEGERS:
        by_radix: NDArray[np.int64] = radix.ascending(key.astype(np.float64))[1]
        return by_radix
    return np.argsort(key, kind="stable")


def ascending(objective: MeanMatching) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return an objective's values in ascending order, and their positions."""
    values = objective.values
    if values.size < _RADIX or not objective.single or objective.base_weights is not None:
        order = values.argsort()
        return values[order], order
    # The values came in single precision, and radix sort is fast on these.
    return radix.ascending(values)
