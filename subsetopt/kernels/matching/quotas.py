"""The interval bound under quotas: the least and greatest sum that sizes and groups allow.

The greedy is exact: first the lower quotas, then the best of the rest within the upper ones. What
it takes of a window of the ascending values is the first of each group, up to one common position
(or to the group's quota); so with sums along each group a node costs a search for that position,
or, where there are many groups, a pass over the window.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.matching.interval import DEPTH, MOST_NODES, push

__all__ = ["quota_distance", "quota_nodes", "quota_span", "span_work"]

_ROUNDING = 64 * 2.220446049250313e-16
# Values that the nodes of the bound look at in all, and nodes at least.
_MOST_LOOKS = 1_000_000
_FEWEST = 8


@njit(cache=True)
def _bits(m):
    """Return how many bits a number has."""
    bits = 0
    while m >> bits:
        bits += 1
    return bits


@njit(cache=True)
def _search_work(groups, m):
    """Return about how many members a search for one position looks at."""
    bits = _bits(m)
    return groups * bits * max(bits - 2, 1) // 2


@njit(cache=True)
def span_work(groups, m):
    """Return about how many values one call of ``quota_span`` looks at."""
    return 4 + 2 * groups * _bits(m) + 2 * min(_search_work(groups, m), m)


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
def _before(members, room, position):
    """Return how many optional members come before a position: those of the least sum."""
    taken = 0
    for g in range(room.shape[0]):
        first, last, least, top = room[g, 0], room[g, 1], room[g, 2], room[g, 3]
        if least < top:
            taken += min(max(_rank(members, first, last, position) - first, least), top) - least
    return taken


@njit(cache=True)
def _from(members, room, position):
    """Return how many optional members come from a position on: those of the greatest sum."""
    taken = 0
    for g in range(room.shape[0]):
        first, last, least, top = room[g, 0], room[g, 1], room[g, 2], room[g, 3]
        if least < top:
            taken += min(max(last - _rank(members, first, last, position), least), top) - least
    return taken


@njit(cache=True)
def _numbers_by_search(a, b, spare, members, room):
    """Write how many of each group the least and the greatest sum have.

    The number taken before a position grows by at most one with each: the first position at which
    it is enough has it exactly. The same from above.
    """
    low_end, high_end = a, b
    while low_end < high_end:
        middle = (low_end + high_end) >> 1
        if _before(members, room, middle) < spare:
            low_end = middle + 1
        else:
            high_end = middle
    below = low_end
    low_end, high_end = a, b
    while low_end < high_end:
        middle = (low_end + high_end + 1) >> 1
        if _from(members, room, middle) < spare:
            high_end = middle - 1
        else:
            low_end = middle
    for g in range(room.shape[0]):
        first, last, least, top = room[g, 0], room[g, 1], room[g, 2], room[g, 3]
        room[g, 4] = min(max(_rank(members, first, last, below) - first, least), top)
        room[g, 5] = min(max(last - _rank(members, first, last, low_end), least), top)


@njit(cache=True)
def _numbers_by_passes(a, b, spare, codes, room):
    """Write the same in two passes over the window, for many groups."""
    for column in (4, 5):
        for g in range(room.shape[0]):
            room[g, column] = 0
        left = spare
        for step in range(b - a):
            g = codes[a + step] if column == 4 else codes[b - 1 - step]
            number = room[g, column]
            if number >= room[g, 2]:
                if number >= room[g, 3] or left == 0:
                    continue
                left -= 1
            room[g, column] = number + 1


@njit(cache=True)
def quota_span(a, b, k, codes, members, begin, sums, low, high, count, room):
    """Return the least and greatest sum of k values of a window under quotas; a flag when none.

    Parameters
    ----------
    a, b, k
        The window of positions, b exclusive, and how many of it to choose.
    codes, members, begin, sums
        The group of each position; the positions by group, ascending in each; where each group
        begins, (groups + 1,); the cumulated values of the members, (m + 1,) from 0. Without quotas
        (``low`` empty) all positions are one group, and there are no codes.
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
    if _search_work(low.size, b - a) < b - a:
        _numbers_by_search(a, b, spare, members, room)
    else:
        _numbers_by_passes(a, b, spare, codes, room)
    smallest, largest = 0.0, 0.0
    for g in range(low.size):
        first, last = room[g, 0], room[g, 1]
        smallest += sums[first + room[g, 4]] - sums[first]
        largest += sums[last] - sums[last - room[g, 5]]
    return smallest, largest, True


@njit(cache=True)
def quota_nodes(groups, m):
    """Return how many nodes :func:`quota_distance` looks at, at most."""
    return max(_FEWEST, min(MOST_NODES, _MOST_LOOKS // span_work(groups, m)))


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
    for _ in range(quota_nodes(groups, m)):
        waiting -= 1
        a, b, k = windows[waiting]
        t = targets[waiting]
        count[:] = count_of[waiting]
        smallest, largest, possible = quota_span(
            a, b, k, codes, members, begin, sums, low, high, count, room
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
