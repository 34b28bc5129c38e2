"""Constraints in the normal form that solvers work with.

Sizes and quotas together are a generalized matroid, so the cheapest feasible subset is found by a
greedy: feasibility, capacity included, is decided here exactly, before any solver starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Constraints"]

_CAPACITY_SLACK = 1e-9


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
        Indices that are always chosen, and those that may be; all others are excluded.
    codes
        Group number of every candidate (n,); the last number is the group of all labels without a
        quota. None without quotas.
    low, high
        Least and greatest count per group number. None without quotas.
    costs, capacity
        Cost per candidate (n,) and the largest total; None and infinity without. The capacity is
        widened by 1e-9 of itself, so that 0.1 + 0.1 + 0.1 fits into 0.3.
    labels
        Label of each group number, for messages.
    """

    n: int
    k: int
    at_most: bool
    forced: NDArray[np.int64]
    free: NDArray[np.int64]
    codes: NDArray[np.int64] | None
    low: NDArray[np.int64] | None
    high: NDArray[np.int64] | None
    costs: NDArray[np.float64] | None
    capacity: float
    labels: tuple[Any, ...]

    @property
    def unbound(self) -> bool:
        """Whether there are neither quotas nor costs: any subset of the right size is feasible."""
        return self.codes is None and self.costs is None

    @classmethod
    def normalize(
        cls,
        n: int,
        k: int,
        *,
        at_most: bool,
        include: NDArray[np.int64] | None,
        exclude: NDArray[np.int64] | None,
        groups: NDArray[Any] | None,
        quotas: Mapping[Any, tuple[int, int]] | None,
        costs: NDArray[np.float64] | None,
        capacity: float | None,
    ) -> Constraints:
        """Return the normal form of checked arguments of :class:`~subsetopt.Problem`."""
        open_mask = np.ones(n, dtype=np.bool_)
        if exclude is not None:
            open_mask[exclude] = False
        forced = np.empty(0, dtype=np.int64)
        if include is not None:
            forced = include
            open_mask[include] = False
        codes = low = high = None
        labels: tuple[Any, ...] = ()
        if quotas is not None and groups is not None:
            labels = tuple(quotas)
            codes = np.full(n, len(labels), dtype=np.int64)
            for code, label in enumerate(labels):
                codes[groups == label] = code
            low = np.array([quotas[label][0] for label in labels] + [0], dtype=np.int64)
            high = np.array([quotas[label][1] for label in labels] + [n], dtype=np.int64)
        return cls(
            n=n,
            k=k,
            at_most=at_most,
            forced=forced,
            free=np.flatnonzero(open_mask),
            codes=codes,
            low=low,
            high=high,
            costs=costs,
            capacity=math.inf if capacity is None else capacity + _CAPACITY_SLACK * abs(capacity),
            labels=labels,
        )

    def infeasibility(self) -> str | None:
        """Return why no subset satisfies the constraints, or None when one does."""
        chosen = self.cheapest
        if isinstance(chosen, str):
            return chosen
        if self.costs is not None:
            least = math.fsum(self.costs[chosen])
            if least > self.capacity:
                return (
                    f"the cheapest subset costs {least:g}, above the capacity of {self.capacity:g}"
                )
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
        need = self.k - self.forced.size
        if self.codes is None or self.low is None or self.high is None:
            own = keys[self.free]
            if not self.at_most and own.size < need:
                return (
                    f"only {own.size + self.forced.size} candidates may be chosen for k = {self.k}"
                )
            limit = need if not self.at_most else min(need, int((own < 0.0).sum()))
            return np.sort(np.concatenate([self.forced, self.free[_smallest(own, limit)]]))
        free = self.free[_order(keys[self.free])]
        return self._greedy_by_with_quotas(free, keys, need)

    def _greedy_by_with_quotas(
        self, free: NDArray[np.int64], keys: NDArray[np.float64], need: int
    ) -> NDArray[np.int64] | str:
        assert self.codes is not None and self.low is not None and self.high is not None
        count = np.bincount(self.codes[self.forced], minlength=self.low.size)
        group = self.codes[free]
        rank = _rank_within(group, self.low.size)  # 0 for the best of its group
        lower = np.maximum(self.low - count, 0)
        upper = self.high - count
        members = np.bincount(group, minlength=self.low.size)
        for code, label in enumerate(self.labels):
            if upper[code] < 0:
                return (
                    f"include names {count[code]} of group {label!r}, its quota allows "
                    f"{self.high[code]}"
                )
            if members[code] < lower[code]:
                return (
                    f"group {label!r} has {members[code] + count[code]} candidates that may be "
                    f"chosen, its quota asks for {self.low[code]}"
                )
        if lower.sum() > need:
            return (
                f"the quotas and include ask for at least {lower.sum() + self.forced.size} "
                f"candidates, k is {self.k}"
            )
        demanded = rank < lower[group]
        optional = ~demanded & (rank < upper[group])
        if self.at_most:
            optional &= keys[free] < 0.0
        rest = need - int(lower.sum())
        extra = free[optional][:rest]
        if not self.at_most and extra.size < rest:
            return (
                f"the quotas allow at most {self.k - rest + extra.size} candidates, k is {self.k}"
            )
        return np.sort(np.concatenate([self.forced, free[demanded], extra]))

    def affords(self, indices: NDArray[np.int64]) -> bool:
        """Whether the total cost of the ``indices`` is within the capacity."""
        return self.costs is None or math.fsum(self.costs[indices]) <= self.capacity

    def violations(self, indices: NDArray[np.int64]) -> list[str]:
        """Return every constraint that the unique, in-range ``indices`` break, in words."""
        found = []
        if indices.size > self.k or (indices.size < self.k and not self.at_most):
            found.append(f"{indices.size} candidates chosen for k = {self.k}")
        allowed = np.zeros(self.n, dtype=np.bool_)
        allowed[self.free] = True
        allowed[self.forced] = True
        if not allowed[indices].all():
            found.append(f"excluded candidates chosen: {indices[~allowed[indices]][:5].tolist()}")
        chosen = np.zeros(self.n, dtype=np.bool_)
        chosen[indices] = True
        missing = self.forced[~chosen[self.forced]]
        if missing.size:
            found.append(f"included candidates missing: {missing[:5].tolist()}")
        if self.codes is not None and self.low is not None and self.high is not None:
            count = np.bincount(self.codes[indices], minlength=self.low.size)
            found += [
                f"{count[code]} of group {label!r} chosen, its quota is "
                f"({self.low[code]}, {self.high[code]})"
                for code, label in enumerate(self.labels)
                if not self.low[code] <= count[code] <= self.high[code]
            ]
        if self.costs is not None and not self.affords(indices):
            total = math.fsum(self.costs[indices])
            found.append(f"total cost {total:g} above the capacity of {self.capacity:g}")
        return found


def _smallest(keys: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the positions of the ``count`` smallest keys, in no order; of ties, the first."""
    if count >= keys.size:
        return np.arange(keys.size)
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    last = np.partition(keys, count - 1)[count - 1]
    below = np.flatnonzero(keys < last)
    tied = np.flatnonzero(keys == last)
    return np.concatenate([below, tied[: count - below.size]])


def _order(keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the stable order of keys; NumPy's other sort is faster, and as stable without ties."""
    order = np.argsort(keys)
    ranked = keys[order]
    if (ranked[1:] == ranked[:-1]).any():
        return np.argsort(keys, kind="stable")
    return order


def _rank_within(group: NDArray[np.int64], n_groups: int) -> NDArray[np.int64]:
    """Return the position of each entry among the entries of its own group, in order."""
    # NumPy sorts 16-bit integers by radix.
    narrow = group.astype(np.int16) if n_groups <= np.iinfo(np.int16).max else group
    order = np.argsort(narrow, kind="stable")
    counts = np.bincount(group, minlength=n_groups)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(group.size, dtype=np.int64)
    rank[order] = np.arange(group.size) - starts
    return rank
