"""What is left to choose once the forced candidates are in the subset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.quotas import GroupQuotas
from subsetopt.kernels.limits import UNLIMITED, Limits

__all__ = ["ItemPool", "Remaining"]

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False, slots=True)
class Remaining:
    """What is left to choose once the forced candidates are in the subset.

    Attributes
    ----------
    forced
        Candidates that are in every subset.
    items
        Candidates that may be chosen besides, ascending, shape (m,).
    size
        How many of the items to choose; negative where more than k candidates are forced.
    at_most
        Whether fewer are allowed.
    quotas
        Counts that the items may have, the forced candidates taken off; None without quotas.
    costs
        Cost of every candidate in whole units, shape (n,); None without a capacity.
    capacity
        What the forced candidates leave of the capacity; infinity without one.
    """

    forced: NDArray[np.int64]
    items: NDArray[np.int64]
    size: int
    at_most: bool
    quotas: GroupQuotas | None
    costs: NDArray[np.float64] | None
    capacity: float

    def affordable(self) -> NDArray[np.int64]:
        """Return the items each of which fits into the capacity by itself."""
        if self.costs is None:
            return self.items
        return self.items[self.costs[self.items] <= self.capacity]

    def stand_ins(self) -> NDArray[np.int64]:
        """Return an item of -1, "one fewer", for each place that may stay empty.

        With them a choice of at most ``size`` items becomes one of exactly ``size``.
        """
        return np.full(self.size if self.at_most else 0, -1)

    def gather(
        self, values: NDArray[_Scalar], items: NDArray[np.int64], stand_in: float
    ) -> NDArray[_Scalar]:
        """Return the value of each item, of values per candidate (n,) and that of a stand-in."""
        gathered = values[items]
        if self.at_most:
            gathered[items < 0] = stand_in
        return gathered

    def limits(self, items: NDArray[np.int64]) -> Limits:
        """Return the constraints on items, stand-ins among them.

        Stand-ins cost nothing and belong to the group of labels without a quota.
        """
        codes, low, high, costs, _ = UNLIMITED
        if self.quotas is not None:
            low, high = self.quotas.low, self.quotas.high.copy()
            high[-1] = items.size
            codes = self.gather(self.quotas.codes, items, low.size - 1)
        if self.costs is not None:
            costs = self.gather(self.costs, items, 0.0)
        return Limits(codes, low, high, costs, self.capacity)


@dataclass(eq=False)
class ItemPool:
    """Items to choose from, each at a position, and the constraints on them.

    Attributes
    ----------
    items
        Candidate at each position, shape (m,); -1 for a stand-in, "one fewer".
    forced
        Candidates that are in every subset.
    size
        How many items to choose.
    limits
        The quotas and the capacity that the chosen positions must keep to.
    """

    items: NDArray[np.int64]
    forced: NDArray[np.int64]
    size: int
    limits: Limits

    @property
    def plain(self) -> bool:
        """Whether any items of the right number may be chosen."""
        return not (self.limits.codes.size or self.limits.costs.size)

    def indices(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the subset of candidates whose items stand at ``positions``, forced ones too."""
        chosen = self.items[positions]
        if self.forced.size or (chosen.size and chosen.min() < 0):
            chosen = np.concatenate([self.forced, chosen[chosen >= 0]])
        return chosen

    def positions(self, indices: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return the ``size`` positions that stand for a feasible subset of n candidates."""
        position = np.full(n, -1, dtype=np.int64)
        real = np.flatnonzero(self.items >= 0)
        position[self.items[real]] = real
        chosen = position[indices]
        chosen = chosen[chosen >= 0]
        stand_ins = np.flatnonzero(self.items < 0)[: self.size - chosen.size]
        return np.concatenate([chosen, stand_ins])
