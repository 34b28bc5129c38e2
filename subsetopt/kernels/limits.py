"""What a subset must keep to besides its size, in the form that compiled loops take."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.array_types import Floats, Ints

__all__ = ["UNLIMITED", "ByCost", "Groups", "Limits"]


class Limits(NamedTuple):
    """The quotas and the capacity that a subset of m positions must keep to.

    Codes, low and high are empty without quotas, costs are empty without a capacity.
    """

    codes: Ints  #: (m,) the group at each position
    low: Ints  #: (groups,) the least count of each group
    high: Ints  #: (groups,) the greatest count of each group
    costs: Floats  #: (m,) the cost at each position, in whole units
    capacity: float  #: the largest total cost in whole units; infinity without a capacity

    def reordered(self, order: NDArray[np.int64]) -> Limits:
        """Return the limits of the same positions in another order, shape (m,)."""
        return self._replace(
            codes=self.codes[order] if self.codes.size else self.codes,
            costs=self.costs[order] if self.costs.size else self.costs,
        )


class Groups(NamedTuple):
    """The positions of a pool by group; without quotas all are one group."""

    members: Ints  #: (m,) positions, group by group, ascending in each
    begin: Ints  #: (groups + 1,) where each group begins among the members
    sums: Floats  #: (m + 1,) cumulated values of the members, from 0


class ByCost(NamedTuple):
    """The m positions of a pool by cost; m is 0 without a capacity."""

    order: Ints  #: (m,) positions by ascending cost
    sums: Floats  #: (m + 1,) their cumulated costs, from 0


_NO_INTS = np.empty(0, dtype=np.int64)

#: The limits of a subset that only has to have the right size.
UNLIMITED = Limits(_NO_INTS, _NO_INTS, _NO_INTS, np.empty(0, dtype=np.float64), math.inf)
