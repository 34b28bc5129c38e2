"""Constraints in the normal form that solvers work with.

Sizes and quotas together are a generalized matroid, so the cheapest feasible subset is found by a
greedy: feasibility, capacity included, is decided here exactly, before any solver starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.capacity import Capacity
from subsetopt.constraints.quotas import GroupQuotas
from subsetopt.constraints.ranks import rank_within, smallest, smallest_within, stable_order
from subsetopt.constraints.remaining import Remaining

__all__ = ["Constraints"]

# Finding the best of one group takes some 20 microseconds, as long as sorting this many candidates.
_ONE_GROUP = 500


@dataclass(frozen=True, eq=False)
class Constraints:
    """What a subset must satisfy, with every label turned into a number.

    Attributes
    ----------
    n, k
        Candidates, and the size.
    at_most
        Whether fewer than k are allowed.
    forced, free
        Indices that are always chosen, and those that may be; all others are excluded, or cost
        more than the capacity by themselves.
    quotas
        How many candidates of each group a subset may have; None without quotas.
    limit
        What the costs of a subset may come to; None without a capacity, or with an infinite one.
    barred
        Candidates that could be chosen if they did not cost more than the capacity.
    """

    n: int
    k: int
    at_most: bool
    forced: NDArray[np.int64]
    free: NDArray[np.int64]
    quotas: GroupQuotas | None
    limit: Capacity | None
    barred: NDArray[np.int64]

    @property
    def costs(self) -> NDArray[np.float64] | None:
        """Cost per candidate in whole units, shape (n,); None without a capacity."""
        return None if self.limit is None else self.limit.costs

    @property
    def capacity(self) -> float:
        """The largest total cost in whole units; infinity without one."""
        return math.inf if self.limit is None else self.limit.largest

    @property
    def unbound(self) -> bool:
        """Whether there are neither quotas nor costs: any subset of the right size is feasible."""
        return self.quotas is None and self.limit is None

    @classmethod
    def normalize(
        cls,
        n: int,
        k: int,
        *,
        at_most: bool,
        include: NDArray[np.int64] | None,
        exclude: NDArray[np.int64] | None,
        quotas: GroupQuotas | None,
        costs: NDArray[Any] | None,
        capacity: float | None,
    ) -> Constraints:
        """Return the normal form of checked arguments of :class:`~subsetopt.Problem`."""
        may_choose = np.ones(n, dtype=np.bool_)
        if exclude is not None:
            may_choose[exclude] = False
        forced = np.empty(0, dtype=np.int64)
        if include is not None:
            forced = include
            may_choose[include] = False
        limit = None if costs is None or capacity is None else Capacity.of(costs, capacity, k)
        barred = np.empty(0, dtype=np.int64)
        if limit is not None:
            barred = np.flatnonzero(may_choose & (limit.costs > limit.largest))
            may_choose[barred] = False
        return cls(
            n=n,
            k=k,
            at_most=at_most,
            forced=forced,
            free=np.flatnonzero(may_choose),
            quotas=quotas,
            limit=limit,
            barred=barred,
        )

    @cached_property
    def remaining(self) -> Remaining:
        """What is left to choose once the forced candidates are in the subset."""
        capacity = self.capacity
        if self.costs is not None:
            capacity -= float(self.costs[self.forced].sum())
        return Remaining(
            forced=self.forced,
            items=self.free,
            size=self.k - self.forced.size,
            at_most=self.at_most,
            quotas=None if self.quotas is None else self.quotas.after(self.forced),
            costs=self.costs,
            capacity=capacity,
        )

    def infeasibility(self) -> str | None:
        """Return why no subset satisfies the constraints, or None when one does."""
        chosen = self.cheapest
        if isinstance(chosen, str) and self.barred.size:
            free = np.sort(np.concatenate([self.free, self.barred]))
            chosen = replace(self, free=free).cheapest
        if isinstance(chosen, str):
            return chosen
        if self.limit is not None and not self.limit.affords(chosen):
            total, capacity = self.limit.comparison(chosen)
            return f"the cheapest subset costs {total}, above the capacity of {capacity}"
        return None

    @cached_property
    def cheapest(self) -> NDArray[np.int64] | str:
        """The subset of least total cost (any, without costs), or why sizes and quotas clash."""
        return self.greedy_by(self.costs if self.costs is not None else np.zeros(self.n))

    def greedy_by(self, keys: NDArray[np.float64]) -> NDArray[np.int64] | str:
        """Return the feasible subset with the smallest total key, or why sizes and quotas clash.

        The capacity is not looked at. With ``at_most`` only what the quotas demand is taken, and
        candidates whose key is negative. Exact, because the greedy is on a generalized matroid:
        first the lower quotas, then the best of the rest within the upper ones.

        Parameters
        ----------
        keys
            Key per candidate, shape (n,); smaller is better.
        """
        if self.forced.size > self.k:
            return f"include names {self.forced.size} candidates for k = {self.k}"
        if self.quotas is not None:
            return self._greedy_within_quotas(keys)
        size = self.k - self.forced.size
        own = keys[self.free]
        if not self.at_most and own.size < size:
            return f"only {own.size + self.forced.size} candidates may be chosen for k = {self.k}"
        count = size if not self.at_most else min(size, int((own < 0.0).sum()))
        return np.sort(np.concatenate([self.forced, self.free[smallest(own, count)]]))

    def best_by(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return what :meth:`greedy_by` does, where sizes and quotas are known not to clash."""
        chosen = self.greedy_by(keys)
        assert not isinstance(chosen, str)
        return chosen

    def _greedy_within_quotas(self, keys: NDArray[np.float64]) -> NDArray[np.int64] | str:
        """Return what :meth:`greedy_by` does where there are quotas."""
        size, quotas = self.remaining.size, self.remaining.quotas
        assert quotas is not None
        items, group = self.free, quotas.codes[self.free]
        members = np.bincount(group, minlength=quotas.size)
        if (clash := self._quota_clash(members)) is not None:
            return clash
        places = size - int(quotas.low.sum())
        # Behind these of its group no candidate is chosen, so that only these need to be sorted.
        most = np.minimum(quotas.high, quotas.low + places)
        if np.minimum(members, most).sum() + _ONE_GROUP * quotas.size < items.size // 2:
            items = items[smallest_within(keys[items], group, most)]
        ranked = items[stable_order(keys[items])]
        group = quotas.codes[ranked]
        rank = rank_within(group, quotas.size)  # 0 for the best of its group
        demanded = rank < quotas.low[group]
        optional = ~demanded & (rank < quotas.high[group])
        if self.at_most:
            optional &= keys[ranked] < 0.0
        extra = ranked[optional][:places]
        if not self.at_most and extra.size < places:
            return (
                f"the quotas allow at most {self.k - places + extra.size} candidates, k is {self.k}"
            )
        return np.sort(np.concatenate([self.forced, ranked[demanded], extra]))

    def _quota_clash(self, members: NDArray[np.int64]) -> str | None:
        """Return why no subset keeps the lower quotas and include, or None.

        Parameters
        ----------
        members
            How many free candidates each group has, shape (groups,).
        """
        asked, quotas = self.quotas, self.remaining.quotas
        assert asked is not None and quotas is not None
        if (quotas.high < 0).any() or (members < quotas.low).any():
            included = asked.counts(self.forced)
            for code, label in enumerate(asked.labels):
                if quotas.high[code] < 0:
                    return (
                        f"include names {included[code]} of group {label!r}, its quota allows "
                        f"{asked.high[code]}"
                    )
                if members[code] < quotas.low[code]:
                    return (
                        f"group {label!r} has {members[code] + included[code]} candidates that "
                        f"may be chosen, its quota asks for {asked.low[code]}"
                    )
        demanded = int(quotas.low.sum())
        if demanded > self.remaining.size:
            return (
                f"the quotas and include ask for at least {demanded + self.forced.size} "
                f"candidates, k is {self.k}"
            )
        return None

    def affords(self, indices: NDArray[np.int64]) -> bool:
        """Whether the total cost of the ``indices`` is within the capacity."""
        return self.limit is None or self.limit.affords(indices)

    def violations(self, indices: NDArray[np.int64]) -> list[str]:
        """Return every constraint that the unique, in-range ``indices`` break, in words."""
        broken = []
        if indices.size > self.k or (indices.size < self.k and not self.at_most):
            broken.append(f"{indices.size} candidates chosen for k = {self.k}")
        allowed = np.zeros(self.n, dtype=np.bool_)
        allowed[self.free] = True
        allowed[self.forced] = True
        allowed[self.barred] = True
        if not allowed[indices].all():
            broken.append(f"excluded candidates chosen: {indices[~allowed[indices]][:5].tolist()}")
        chosen = np.zeros(self.n, dtype=np.bool_)
        chosen[indices] = True
        missing = self.forced[~chosen[self.forced]]
        if missing.size:
            broken.append(f"included candidates missing: {missing[:5].tolist()}")
        if self.quotas is not None:
            broken += self.quotas.violations(indices)
        if self.limit is not None and not self.limit.affords(indices):
            total, capacity = self.limit.comparison(indices)
            broken.append(f"total cost {total} above the capacity of {capacity}")
        return broken
