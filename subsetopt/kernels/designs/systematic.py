"""Systematic sampling: equidistant points on the line of cumulated inclusion probabilities."""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit
from subsetopt.kernels.random_ import next_below, next_bits

__all__ = ["shuffle", "systematic"]

_S11 = np.uint64(11)
_UNIT = 2.0**-53


@njit(cache=True)
def shuffle(order, rng):
    """Permute an array uniformly at random, in place (Fisher & Yates)."""
    for i in range(order.size - 1, 0, -1):
        j = next_below(rng, i + 1)
        order[i], order[j] = order[j], order[i]


@njit(cache=True)
def systematic(pi, order, size, rng, taken):
    """Draw ``size`` candidates with inclusion probabilities pi.

    Candidate j is taken when a point ``u, u + 1, u + 2, ...`` lies in its interval of length pi_j.

    Parameters
    ----------
    pi
        Inclusion probabilities, shape (n,), which sum to ``size`` but for rounding.
    order
        The candidates in the order of their intervals, shape (n,).
    size
        How many to take; rounding never changes how many are taken.
    rng
        State of the generator.
    taken
        Written: whether each candidate is taken, shape (n,), bool.
    """
    missing = size
    for i in range(pi.size):
        taken[i] = pi[i] >= 1.0
        missing -= taken[i]
    point = np.float64(next_bits(rng) >> _S11) * _UNIT
    reach = 0.0
    for j in order:
        if missing > 0 and 0.0 < pi[j] < 1.0:
            reach += pi[j]
            if reach > point:
                # The next interval is measured from the next point, so that sums stay small.
                reach -= 1.0
                taken[j] = True
                missing -= 1
    for i in range(order.size - 1, -1, -1):
        # The last point may lie beyond the end by rounding.
        j = order[i]
        if missing > 0 and pi[j] > 0.0 and not taken[j]:
            taken[j] = True
            missing -= 1
