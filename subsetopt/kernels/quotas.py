"""The interval bound under quotas: the least and greatest sum that sizes and groups allow.

The greedy is exact: first the lower quotas, then the best of the rest within the upper ones. What
it takes of a window of the ascending values is the first of each group, up to one common position
(or to the group's quota); so with sums along each group a node costs a search for that position,
not a pass over the values.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.interval import DEPTH, MOST_NODES, push

__all__ = ["quota_distance", "quota_span", "span_work"]

_ROUNDING = 64 * 2.220446049250313e-16


@njit(cache=True)
def span_work(groups, m):
    """Return about how many values one call of ``quota_span`` looks at."""
    bits = 1
    while m >> bits:
        bits += 1
    return 4 + 2 * groups * bits * max(bits - 2, 1) // 2


@njit(cache=True)
def _rank(members, first, last, position):
    """Return the first index from ``first`` to ``last`` whose member is not before a position."""
    while first < last:
        middle = (first + last) >> 1
        if members[middle] < position:
            first = middle + 1
        else:
            last = middle
    return first


@njit(cache=True)
def quota_span(a, b, k, members, begin, sums, low, high, count, room):
    """Return the least and greatest sum of k values of a window under quotas; a flag when none.

    Parameters
    ----------
    a, b, k
        The window of positions, b exclusive, and how many of it to choose.
    members, begin, sums
        The positions by group, ascending in each; where each group begins, (groups + 1,); the
        cumulated values of the members, (m + 1,) from 0. Without quotas (``low`` empty) all
        positions are one group.
    low, high, count
        Least and most of each group, and how many are chosen already.
    room
        Per group, (groups, 6) int64, written to: the first member in the window and the last,
        exclusive; the least and the most to choose; how many the least and the greatest sum have.
    """
    if k < 0 or k > b - a:
        return 0.0, 0.0, False
    if low.size == 0:
        return sums[a + k] - sums[a], sums[b] - sums[b - k], True
    spare, most = k, 0
    for g in range(low.size):
        first = _rank(members, begin[g], begin[g + 1], a)
        last = _rank(members, first, begin[g + 1], b)
        least = max(0, low[g] - count[g])
        room[g, 0], room[g, 1], room[g, 2] = first, last, least
        room[g, 3] = min(last - first, high[g] - count[g])
        if least > room[g, 3]:
            return 0.0, 0.0, False
        spare -= least
        most += room[g, 3]
    if spare < 0 or most < k:
        return 0.0, 0.0, False
    # The number taken before a position grows by at most one with each: the first position at
    # which it is enough has it exactly. The same from above.
    low_end, high_end = a, b
    while low_end < high_end:
        middle = (low_end + high_end) >> 1
        taken = 0
        for g in range(low.size):
            first, last, least, top = room[g, 0], room[g, 1], room[g, 2], room[g, 3]
            if least < top:
                before = _rank(members, first, last, middle) - first
                taken += min(max(before, least), top) - least
        if taken < spare:
            low_end = middle + 1
        else:
            high_end = middle
    smallest = 0.0
    for g in range(low.size):
        first, last, least, top = room[g, 0], room[g, 1], room[g, 2], room[g, 3]
        number = min(max(_rank(members, first, last, low_end) - first, least), top)
        room[g, 4] = number
        smallest += sums[first + number] - sums[first]
    low_end, high_end = a, b
    while low_end < high_end:
        middle = (low_end + high_end + 1) >> 1
        taken = 0
        for g in range(low.size):
            first, last, least, top = room[g, 0], room[g, 1], room[g, 2], room[g, 3]
            if least < top:
                after = last - _rank(members, first, last, middle)
                taken += min(max(after, least), top) - least
        if taken < spare:
            high_end = middle - 1
        else:
            low_end = middle
    largest = 0.0
    for g in range(low.size):
        first, last, least, top = room[g, 0], room[g, 1], room[g, 2], room[g, 3]
        number = min(max(last - _rank(members, first, last, low_end), least), top)
        room[g, 5] = number
        largest += sums[last] - sums[last - number]
    return smallest, largest, True


@njit(cache=True)
def quota_distance(values, codes, members, begin, sums, low, high, size, target):
    """Return the same bound as ``branching_distance`` under quotas; 0 when it proves nothing.

    Parameters
    ----------
    values, codes
        Ascending, (m,) float64, and the group of each.
    members, begin, sums, low, high
        As ``quota_span`` takes them.
    size, target
        How many to choose, and the sum to hit.
    """
    m, groups = values.size, low.size
    center = values[m // 2]
    magnitude = abs(target)
    for p in range(m):
        magnitude += abs(values[p])
    windows, targets = np.empty((DEPTH, 3), np.int64), np.empty(DEPTH)
    waiting = push(windows, targets, 0, 0, m, size, target)
    count_of = np.zeros((DEPTH, groups), np.int64)
    room, count = np.empty((groups, 6), np.int64), np.empty(groups, np.int64)
    least = np.inf
    for _ in range(MOST_NODES):
        waiting -= 1
        a, b, k = windows[waiting]
        t = targets[waiting]
        count[:] = count_of[waiting]
        smallest, largest, possible = quota_span(
            a, b, k, members, begin, sums, low, high, count, room
        )
        if possible:
            distance = max(smallest - t, t - largest)
            if distance > 0.0:
                least = min(least, distance)
            elif k == 0 or k == b - a or waiting + 2 > DEPTH:
                return 0.0
            else:
                bottom = center - values[a] >= values[b - 1] - center
                x = a if bottom else b - 1
                first, last = (a + 1, b) if bottom else (a, b - 1)
                count_of[waiting] = count
                waiting = push(windows, targets, waiting, first, last, k, t)
                if count[codes[x]] < high[codes[x]]:
                    count_of[waiting] = count
                    count_of[waiting, codes[x]] += 1
                    waiting = push(windows, targets, waiting, first, last, k - 1, t - values[x])
        if waiting == 0:
            return max(0.0, least - _ROUNDING * magnitude)
    return 0.0
