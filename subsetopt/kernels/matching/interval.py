"""The interval bound: how far a target lies from the sums that are within reach.

The sums of ``size`` values lie between those of the smallest and of the largest. With an outlier in
the pool the target lies inside that interval and yet out of reach; so the farthest values are fixed
in and out, as branch and bound does, for a few hundred nodes. If every node then leaves the target
outside its interval, the least distance is the optimum.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.matching.lattice import lattice_distance

__all__ = [
    "DEPTH",
    "MOST_NODES",
    "branching_distance",
    "interval_distance",
    "plain_distance",
    "push",
]

_ROUNDING = 64 * 2.220446049250313e-16
MOST_NODES = 200
DEPTH = 64


@njit(cache=True)
def interval_distance(values, size, target):
    """Return how far the target lies outside the sums of ``size`` ascending values."""
    low, high, magnitude = 0.0, 0.0, abs(target)
    for p in range(size):
        low += values[p]
        high += values[values.size - 1 - p]
        magnitude += abs(values[p]) + abs(values[values.size - 1 - p])
    return max(0.0, max(low - target, target - high) - _ROUNDING * magnitude)


@njit(cache=True)
def push(windows, targets, waiting, a, b, k, t):
    """Put a window [a, b), with its size and target, to those still to be looked at."""
    windows[waiting, 0], windows[waiting, 1], windows[waiting, 2] = a, b, k
    targets[waiting] = t
    return waiting + 1


@njit(cache=True)
def branching_distance(values, size, target):
    """Return the least distance over the nodes of a small tree; 0 when it proves nothing.

    Parameters
    ----------
    values
        Ascending, (m,) float64.
    size, target
        How many to choose, and the sum to hit.
    """
    m = values.size
    prefix = np.empty(m + 1)
    prefix[0] = 0.0
    magnitude = abs(target)
    for p in range(m):
        prefix[p + 1] = prefix[p] + values[p]
        magnitude += abs(values[p])
    center = values[m // 2]
    windows, targets = np.empty((DEPTH, 3), np.int64), np.empty(DEPTH)
    waiting = push(windows, targets, 0, 0, m, size, target)
    least = np.inf
    for _ in range(MOST_NODES):
        waiting -= 1
        a, b, k = windows[waiting]
        t = targets[waiting]
        if 0 <= k <= b - a:
            distance = max(prefix[a + k] - prefix[a] - t, t - (prefix[b] - prefix[b - k]))
            if distance > 0.0:
                least = min(least, distance)
            elif k == 0 or k == b - a or waiting + 2 > DEPTH:
                return 0.0
            else:
                bottom = center - values[a] >= values[b - 1] - center
                x = a if bottom else b - 1
                first, last = (a + 1, b) if bottom else (a, b - 1)
                waiting = push(windows, targets, waiting, first, last, k, t)
                waiting = push(windows, targets, waiting, first, last, k - 1, t - values[x])
        if waiting == 0:
            return max(0.0, least - _ROUNDING * magnitude)
    return 0.0


@njit(cache=True)
def plain_distance(values, bits, size, target, least):
    """Return the larger of the lattice bound and the branching interval bound."""
    lattice = lattice_distance(values, bits, size, target, least)
    return max(lattice, branching_distance(values, size, target))
