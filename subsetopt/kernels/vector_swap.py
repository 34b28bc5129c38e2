"""Threshold search over swaps, for sums of vectors: one out at random, the best one in.

With residual r, taking point i out and point j in leaves ``r + v_i - v_j``: the best j is the
nearest neighbour of ``u = r + v_i`` among the points outside. The points lie in ascending order of
their norms, so only those whose norm is within ``sqrt(limit)`` of that of u can be near enough.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.random_ import next_below

__all__ = [
    "F_BEST",
    "F_CAPACITY",
    "F_COST",
    "F_GOAL",
    "F_THRESHOLD",
    "I_DESCENT",
    "I_WIDTH",
    "I_WORK",
    "N_FLOATS",
    "N_INTS",
    "REACHED",
    "STUCK",
    "UNFINISHED",
    "lay_out",
    "search",
]

UNFINISHED, REACHED, STUCK = 0, 1, 2

# What the caller sets or reads. Squared norms in F_BEST and F_GOAL.
F_BEST, F_GOAL, F_COST, F_CAPACITY, F_THRESHOLD, _LOCAL, _NOW = range(7)
N_FLOATS = 7
# I_DESCENT: 1 to end at the first local optimum.
I_WORK, I_DESCENT, I_WIDTH, _STALE, _LAST, _MISSES = range(6)
N_INTS = 6

# Added to the distance of a point that cannot come in.
_FAR = np.float32(1e30)
# Work of one step besides the distances.
_STEP = 100
# How much the least of a walk that has gone stale is raised.
_RELAX = 2.0
# Steps without a gain before more are looked at.
_PATIENCE = 6

_FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True)
def lay_out(vectors, items, unit, points, columns):
    """Write the vectors of ``items`` by rows, and by columns in single precision.

    Both in units of ``unit``; an item of -1 is a zero vector. In blocks of rows, so that what is
    written by columns still lies in the cache.
    """
    m, d = points.shape
    for first in range(0, m, 16):
        last = min(m, first + 16)
        for a in range(first, last):
            if items[a] < 0:
                points[a] = 0.0
                continue
            row = vectors[items[a]]
            for c in range(d):
                points[a, c] = row[c] / unit
        for c in range(d):
            for a in range(first, last):
                columns[c, a] = points[a, c]


@njit(cache=True, fastmath=_FAST)
def _nearest(columns, first, last, u, distance):
    """Add squared distances to u to ``distance``; return the least and where it is.

    ``columns`` is (d, m): the sums run along the points, several at a time. Slices of single rows
    are known to be contiguous; a slice of the matrix is not.
    """
    d, m = columns.shape[0], last - first
    c = 0
    while c + 4 <= d:
        u0, u1, u2, u3 = u[c], u[c + 1], u[c + 2], u[c + 3]
        v0, v1 = columns[c, first:last], columns[c + 1, first:last]
        v2, v3 = columns[c + 2, first:last], columns[c + 3, first:last]
        for j in range(m):
            x0, x1, x2, x3 = v0[j] - u0, v1[j] - u1, v2[j] - u2, v3[j] - u3
            distance[j] += x0 * x0 + x1 * x1 + x2 * x2 + x3 * x3
        c += 4
    while c < d:
        u0, v0 = u[c], columns[c, first:last]
        for j in range(m):
            x0 = v0[j] - u0
            distance[j] += x0 * x0
        c += 1
    least = distance[0]
    for j in range(m):
        least = min(least, distance[j])
    for j in range(m):
        if distance[j] == least:
            return least, j
    return least, 0


@njit(cache=True)
def _start_distances(i, first, last, penalty, distance, floats, codes, low, high, count, costs):
    """Set the distances to 0, and to far for points that cannot come in for point i."""
    for j in range(first, last):
        distance[j - first] = penalty[j]
    if codes.size:
        g = codes[i]
        stays = count[g] - 1 < low[g]
        for j in range(first, last):
            h = codes[j]
            if h != g and (stays or count[h] + 1 > high[h]):
                distance[j - first] = _FAR
    if costs.size:
        room = floats[F_CAPACITY] - floats[F_COST] + costs[i]
        for j in range(first, last):
            if costs[j] > room:
                distance[j - first] = _FAR


@njit(cache=True)
def _swap(a, j, points, sel, penalty, r, floats, codes, count, costs):
    """Swap member a of the subset with point j."""
    i = sel[a]
    sel[a] = j
    penalty[i] = np.float32(0.0)
    penalty[j] = _FAR
    total = 0.0
    for c in range(r.size):
        r[c] += points[i, c] - points[j, c]
        total += r[c] * r[c]
    floats[_NOW] = total
    if codes.size:
        count[codes[i]] -= 1
        count[codes[j]] += 1
    if costs.size:
        floats[F_COST] += costs[j] - costs[i]


@njit(cache=True)
def _begin(points, target, sel, best, penalty, r, ints, floats):
    """Find the residual of the subset to start from."""
    r[:] = target
    for a in range(sel.size):
        best[a] = sel[a]
        penalty[sel[a]] = _FAR
        for c in range(r.size):
            r[c] -= points[sel[a], c]
    total = 0.0
    for c in range(r.size):
        total += r[c] * r[c]
    floats[F_BEST] = floats[_LOCAL] = floats[_NOW] = total
    if ints[I_DESCENT] == 1:
        floats[F_THRESHOLD] = 1.0
    ints[_LAST] = -1


@njit(cache=True)
def search(
    points, columns, norms, target, sel, best, penalty, distance, r, u, ints, floats, rng,
    codes, low, high, count, costs, work,
):  # fmt: skip
    """Go on with the search for about ``work`` units, a unit being one coordinate looked at.

    A swap is accepted when the squared residual after it is below F_THRESHOLD times the least of
    this walk; when no new least comes, it is forgotten by degrees.

    Parameters
    ----------
    points, columns, norms
        (m, d) float64 in ascending order of their norms, the same as (d, m) float32, and (m,).
    target
        (d,) the sum to hit.
    sel, best
        (size,) the subset, and the best one so far.
    penalty, distance, r, u
        (m,) float32 zeros, (m,) float32, (d,) float64 and (d,) float32 scratch.
    ints, floats, rng
        The state; the caller sets F_GOAL, F_COST, F_CAPACITY, F_THRESHOLD and I_DESCENT.
    codes, low, high, count, costs
        Constraints; empty arrays for none.

    Returns
    -------
    int
        REACHED when F_BEST is at most F_GOAL, STUCK at a local optimum when only a descent was
        asked for, UNFINISHED otherwise.
    """
    stop = ints[I_WORK] + work
    m, d = points.shape
    size = sel.size
    if ints[I_WORK] == 0:
        _begin(points, target, sel, best, penalty, r, ints, floats)
        ints[I_WORK] += size * d + m
    while ints[I_WORK] < stop:
        if floats[F_BEST] <= floats[F_GOAL]:
            return REACHED
        a = next_below(rng, size)
        if ints[I_DESCENT] == 1 and ints[I_WIDTH] >= m:
            a = ints[_STALE] % size
        ints[I_WORK] += _STEP
        ints[_STALE] += 1
        i = sel[a]
        limit = floats[F_THRESHOLD] * floats[_LOCAL]
        if a != ints[_LAST] or size == 1:
            length = 0.0
            for c in range(d):
                x = r[c] + points[i, c]
                u[c] = x
                length += x * x
            length = np.sqrt(length)
            # A little more than the limit, for rounding in the norms.
            reach = np.sqrt(limit) + 1e-12 * length
            first = np.searchsorted(norms, length - reach)
            last = np.searchsorted(norms, length + reach)
            width = ints[I_WIDTH]
            if last - first > width:
                first += next_below(rng, last - first - width + 1)
                last = first + width
            if last > first:
                ints[I_WORK] += (last - first) * d
                _start_distances(
                    i, first, last, penalty, distance, floats, codes, low, high, count, costs
                )
                least, j = _nearest(columns, first, last, u, distance[: last - first])
                if least < limit * (1.0 - 1e-5):
                    j += first
                    _swap(a, j, points, sel, penalty, r, floats, codes, count, costs)
                    ints[_LAST] = a
                    ints[_MISSES] = 0
                    if floats[_NOW] < floats[_LOCAL]:
                        floats[_LOCAL] = floats[_NOW]
                        ints[_STALE] = 0
                    if floats[_NOW] < floats[F_BEST]:
                        floats[F_BEST] = floats[_NOW]
                        best[:] = sel
                        ints[I_WORK] += size // 4
                    continue
            ints[_MISSES] += 1
            if ints[_MISSES] >= _PATIENCE and ints[I_WIDTH] < m:
                ints[_MISSES] = 0
                ints[_STALE] = 0
                ints[I_WIDTH] *= 2
        if ints[I_DESCENT] == 1:
            if ints[I_WIDTH] >= m and ints[_STALE] > size:
                return STUCK
        elif ints[_STALE] > 2 * size:
            ints[_STALE] = 0
            floats[_LOCAL] *= _RELAX
    return REACHED if floats[F_BEST] <= floats[F_GOAL] else UNFINISHED
