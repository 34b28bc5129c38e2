"""The interval bound: how far a target lies from the sums that are within reach.

The sums of ``size`` values lie between those of the smallest and of the largest (under quotas, of
the smallest and the largest that they allow: the greedy is exact). With an outlier in the pool the
target lies inside that interval and yet out of reach; so the farthest values are fixed in and out,
as branch and bound does, for a few hundred nodes. If every node then leaves the target outside its
interval, the least distance is the optimum.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.lattice import lattice_distance

__all__ = [
    "MOST_LOOKS",
    "MOST_NODES",
    "branching_distance",
    "interval_distance",
    "plain_distance",
    "quota_distance",
    "quota_span",
]

_ROUNDING = 64 * 2.220446049250313e-16
MOST_NODES = 200
_DEPTH = 64
# Under quotas a node costs a pass over the values: so many values in all, and nodes at least.
MOST_LOOKS = 1_000_000
_FEWEST = 8


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
def _push(windows, targets, waiting, a, b, k, t):
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
    windows, targets = np.empty((_DEPTH, 3), np.int64), np.empty(_DEPTH)
    waiting = _push(windows, targets, 0, 0, m, size, target)
    least = np.inf
    for _ in range(MOST_NODES):
        waiting -= 1
        a, b, k = windows[waiting]
        t = targets[waiting]
        if 0 <= k <= b - a:
            distance = max(prefix[a + k] - prefix[a] - t, t - (prefix[b] - prefix[b - k]))
            if distance > 0.0:
                least = min(least, distance)
            elif k == 0 or k == b - a or waiting + 2 > _DEPTH:
                return 0.0
            else:
                bottom = center - values[a] >= values[b - 1] - center
                x = a if bottom else b - 1
                first, last = (a + 1, b) if bottom else (a, b - 1)
                waiting = _push(windows, targets, waiting, first, last, k, t)
                waiting = _push(windows, targets, waiting, first, last, k - 1, t - values[x])
        if waiting == 0:
            return max(0.0, least - _ROUNDING * magnitude)
    return 0.0


@njit(cache=True)
def plain_distance(values, bits, size, target, least):
    """Return the larger of the lattice bound and the branching interval bound."""
    lattice = lattice_distance(values, bits, size, target, least)
    return max(lattice, branching_distance(values, size, target))


@njit(cache=True)
def quota_span(v, a, b, k, codes, low, high, count, taken):
    """Return the least and greatest sum of k values of the window under quotas; a flag when none.

    The greedy is exact: first the lower quotas, then the best of the rest within the upper ones.
    ``taken`` (groups,) is scratch.
    """
    if codes.size == 0:
        if k > b - a:
            return 0.0, 0.0, False
        smallest, largest = 0.0, 0.0
        for p in range(k):
            smallest += v[a + p]
            largest += v[b - 1 - p]
        return smallest, largest, True
    ends = np.zeros(2)
    for direction in range(2):
        demanded = 0
        for g in range(low.size):
            taken[g] = 0
            if low[g] > count[g]:
                demanded += low[g] - count[g]
        if demanded > k:
            return 0.0, 0.0, False
        total, missing, spare = 0.0, demanded, k - demanded
        for step in range(b - a):
            p = a + step if direction == 0 else b - 1 - step
            g = codes[p]
            if count[g] + taken[g] < low[g]:
                missing -= 1
            elif count[g] + taken[g] < high[g] and spare > 0:
                spare -= 1
            else:
                continue
            taken[g] += 1
            total += v[p]
        if missing > 0 or spare > 0:
            return 0.0, 0.0, False
        ends[direction] = total
    return ends[0], ends[1], True


@njit(cache=True)
def quota_distance(values, codes, low, high, size, target):
    """Return the same bound as ``branching_distance`` under quotas; 0 when it proves nothing.

    Parameters
    ----------
    values
        Ascending, (m,) float64.
    codes, low, high
        Group of each value, and the least and most of each group to choose.
    size, target
        How many to choose, and the sum to hit.
    """
    m, groups = values.size, low.size
    center = values[m // 2]
    magnitude = abs(target)
    for p in range(m):
        magnitude += abs(values[p])
    windows, targets = np.empty((_DEPTH, 3), np.int64), np.empty(_DEPTH)
    waiting = _push(windows, targets, 0, 0, m, size, target)
    count_of = np.zeros((_DEPTH, groups), np.int64)
    taken, count = np.empty(groups, np.int64), np.empty(groups, np.int64)
    least = np.inf
    for _ in range(max(_FEWEST, min(MOST_NODES, MOST_LOOKS // max(m, 1)))):
        waiting -= 1
        a, b, k = windows[waiting]
        t = targets[waiting]
        count[:] = count_of[waiting]
        smallest, largest, possible = 0.0, 0.0, False
        if 0 <= k <= b - a:
            smallest, largest, possible = quota_span(
                values, a, b, k, codes, low, high, count, taken
            )
        if possible:
            distance = max(smallest - t, t - largest)
            if distance > 0.0:
                least = min(least, distance)
            elif k == 0 or k == b - a or waiting + 2 > _DEPTH:
                return 0.0
            else:
                bottom = center - values[a] >= values[b - 1] - center
                x = a if bottom else b - 1
                first, last = (a + 1, b) if bottom else (a, b - 1)
                count_of[waiting] = count
                waiting = _push(windows, targets, waiting, first, last, k, t)
                if count[codes[x]] < high[codes[x]]:
                    count_of[waiting] = count
                    count_of[waiting, codes[x]] += 1
                    waiting = _push(windows, targets, waiting, first, last, k - 1, t - values[x])
        if waiting == 0:
            return max(0.0, least - _ROUNDING * magnitude)
    return 0.0
