"""What a subset must keep to besides its size, in the form that compiled loops take."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNLIMITED", "ByCost", "Groups", "Limits"]


class Limits(NamedTuple):
    """The quotas and the capacity that a subset of m positions must keep to.

    Attributes
    ----------
    codes
        Group number at each position, shape (m,), int64; empty without quotas.
    low, high
        Least and greatest count of each group, both inclusive, shape (groups,), int64; empty
        without quotas.
    costs
        Cost at each position in whole units, shape (m,), float64; empty without a capacity.
    capacity
        Largest total cost in whole units; infinity without a capacity.
    """

    codes: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    costs: NDArray[np.float64]
    capacity: float

    def reordered(self, order: NDArray[np.int64]) -> Limits:
        """Return the limits of the same positions in another order, shape (m,)."""
        return self._replace(
            codes=self.codes[order] if self.codes.size else self.codes,
            costs=self.costs[order] if self.costs.size else self.costs,
        )


class Groups(NamedTuple):
    """The positions of a pool by group.

    Attributes
    ----------
    members
        Positions, group by group, ascending in each, shape (m,), int64.
    begin
        Where each group begins among the members, shape (groups + 1,), int64; without quotas all
        are one group.
    sums
        Cumulated values of the members, from 0, shape (m + 1,), float64.
    """

    members: NDArray[np.int64]
    begin: NDArray[np.int64]
    sums: NDArray[np.float64]


class ByCost(NamedTuple):
    """The positions of a pool by cost.

    Attributes
    ----------
    order
        Positions by ascending cost, shape (m,), int64; empty without a capacity.
    sums
        Their cumulated costs, from 0, shape (m + 1,), float64.
    """

    order: NDArray[np.int64]
    sums: NDArray[np.float64]


_NO_INTS = np.empty(0, dtype=np.int64)

#: The limits of a subset that only has to have the right size.
UNLIMITED = Limits(_NO_INTS, _NO_INTS, _NO_INTS, np.empty(0, dtype=np.float64), math.inf)
