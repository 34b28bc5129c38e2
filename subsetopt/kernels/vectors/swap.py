"""Threshold search over swaps, for sums of vectors: one out at random, the best one in.

With residual r, taking point i out and point j in leaves ``r + v_i - v_j``: the best j is the
nearest neighbour of ``u = r + v_i`` among the points outside. The points lie in ascending order of
their norms, so only those whose norm is within ``sqrt(limit)`` of that of u can be near enough.
Distances to these are taken anew, or found by

    |u - v_j|^2 = |u|^2 + (|v_j|^2 - 2 r.v_j) - 2 v_i.v_j

from the products of v_i with all points, which are kept, and those of r, which every swap shifts.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.random_ import next_below
from subsetopt.kernels.vectors.products import (
    FAR,
    LANES,
    add_products,
    least_of,
    least_sum,
    row_of,
    shift,
    some_below,
)
from subsetopt.kernels.vectors.start import approach, fits, replace, square_after
from subsetopt.kernels.vectors.state import (
    F_BEST,
    F_GOAL,
    F_LOCAL,
    F_NOW,
    F_THRESHOLD,
    F_WALK,
    F_WIDTH,
    I_DESCENT,
    I_FRESH,
    I_LAST,
    I_MISSES,
    I_MODE,
    I_PHASE,
    I_SINCE,
    I_SPAN,
    I_STALE,
    I_TURN,
    I_WIDTH,
    I_WORK,
)

__all__ = ["APPROACHED", "REACHED", "STUCK", "UNFINISHED", "search"]

UNFINISHED, REACHED, STUCK, APPROACHED = 0, 1, 2, 3

_BEGIN, _APPROACH, _WALK = 0, 1, 2
# Work of one step besides the distances.
_STEP = 300
# How much the least of a walk that has gone stale is raised, and after how many steps per member.
_RELAX = 3.0
_PATIENCE = 0.75
# Steps per member without a new least after which a walk begins anew elsewhere. Where a few large
# vectors decide, the way from one set of them to a better leads over points far worse than any walk
# may visit.
_STAY = 16
# Steps without a gain before more are looked at.
_MISSES = 6
# Below this share of |u|^2, single precision cannot tell distances found by products apart.
_FINE = 1e-3
# Steps between two looks at which way to find distances is the cheaper.
_PERIOD = 64

_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}


@njit(cache=True, fastmath=_FAST)
def _add_squares(columns, first, last, u, distance):
    """Add squared distances of some points to u to ``distance``.

    Slices of single rows are known to be contiguous; a slice of the matrix is not.
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


@njit(cache=True)
def _bar(i, first, last, distance, floats, codes, low, high, count, costs):
    """Add to the distances of points that constraints keep from coming in for point i."""
    for j in range(first, last):
        if not fits(i, j, floats, codes, low, high, count, costs):
            distance[j - first] += FAR


@njit(cache=True)
def _below(values, x):
    """Return how many of the ascending values are below x."""
    first, count = 0, values.size
    while count > 0:
        half = count >> 1
        if values[first + half] < x:
            first += half + 1
            count -= half + 1
        else:
            count = half
    return first


@njit(cache=True)
def _begin(vectors, items, inverse, target, sel, best, penalty, r, ints, floats):
    """Find the residual of the subset to start from."""
    r[:] = target
    for a in range(sel.size):
        best[a] = sel[a]
        penalty[sel[a]] = FAR
        item = items[sel[a]]
        if item >= 0:
            for c in range(r.size):
                r[c] -= vectors[item, c] * inverse
    total = 0.0
    for c in range(r.size):
        total += r[c] * r[c]
    floats[F_BEST] = floats[F_LOCAL] = floats[F_NOW] = floats[F_WALK] = total
    if ints[I_DESCENT] == 1:
        floats[F_THRESHOLD] = 1.0
    ints[I_LAST] = -1
    ints[I_SPAN] = ints[I_TURN] = 1
    ints[I_PHASE] = _APPROACH


@njit(cache=True)
def _refresh(columns, norms, penalty, r, products, keys):
    """Compute ``|v_j|^2 - 2 r.v_j`` of all points."""
    u = (-2.0 * r).astype(np.float32)
    keys[:] = np.float32(0.0)
    add_products(columns, u, keys)
    for j in range(keys.size):
        products[j] = keys[j] + norms[j] * norms[j]
        keys[j] = np.float32(products[j]) + penalty[j]


@njit(cache=True)
def _choose_mode(width, columns, rows, ints, floats):
    """Keep products where that is cheaper than distances to the points of fitting norm.

    A row of products costs m d; a swap needs one and shifts m sums; about 20 steps share it. One
    coordinate of a few points costs four times as much as one of many.
    """
    d, m = columns.shape
    if floats[F_WIDTH] < 0.0:
        floats[F_WIDTH] = width
    floats[F_WIDTH] += (width - floats[F_WIDTH]) / _PERIOD
    if ints[I_STALE] % _PERIOD == 0 and rows.shape[0]:
        direct, kept = 80.0 * floats[F_WIDTH] * d, 1.0 * m * (d + 16)
        if ints[I_MODE] == 0:
            ints[I_MODE] = 1 if direct > 1.5 * kept else 0
        elif direct < kept:
            ints[I_MODE] = ints[I_FRESH] = 0
    return ints[I_MODE] == 1


@njit(cache=True)
def _leave(i, vectors, items, inverse, r, u):
    """Write ``u = r + v_i`` in single precision; return its squared norm."""
    square, item = 0.0, items[i]
    if item < 0:
        for c in range(r.size):
            u[c] = r[c]
            square += r[c] * r[c]
        return square
    vector = vectors[item]
    for c in range(r.size):
        x = r[c] + vector[c] * inverse
        u[c] = x
        square += x * x
    return square


@njit(cache=True)
def _nearest_kept(
    i, first, last, bar, keys, row, distance, lanes, floats, codes, low, high, count, costs
):  # fmt: skip
    """Return the least distance below ``bar`` among some points, and whose; FAR for none."""
    if not some_below(keys[first:last], row[first:last], bar):
        return FAR, -1
    if not (codes.size or costs.size):
        least, j = least_sum(keys[first:last], row[first:last], lanes)
        return least, first + j
    for j in range(first, last):
        distance[j - first] = keys[j] + row[j]
    _bar(i, first, last, distance, floats, codes, low, high, count, costs)
    least, j = least_of(distance[: last - first], lanes)
    return least, first + j


@njit(cache=True)
def _nearest_anew(
    i, first, last, u, columns, penalty, distance, lanes, floats, codes, low, high, count, costs
):  # fmt: skip
    """Return the least squared distance to u among some points, and whose."""
    # By a loop: NumPy's assignment of slices takes longer than all that follows.
    for j in range(last - first):
        distance[j] = penalty[first + j]
    if codes.size or costs.size:
        _bar(i, first, last, distance, floats, codes, low, high, count, costs)
    _add_squares(columns, first, last, u, distance[: last - first])
    least, j = least_of(distance[: last - first], lanes)
    return least, first + j


@njit(cache=True)
def _accept(
    a, j, now, after, columns, sel, best, penalty, keys, products, rows, slots, holders, r, ints,
    floats, codes, count, costs,
):  # fmt: skip
    """Put point j in the place of member a, which leaves the residual ``after``."""
    if ints[I_FRESH] == 1:
        # Both rows while both points have a penalty, so that neither takes the other's place.
        gone = row_of(sel[a], columns, rows, slots, holders, penalty, ints)
        penalty[j] = FAR
        come = row_of(j, columns, rows, slots, holders, penalty, ints)
    replace(a, j, sel, penalty, floats, codes, count, costs)
    if ints[I_FRESH] == 1:
        shift(products, keys, penalty, rows[gone], rows[come])
        ints[I_WORK] += 3 * keys.size
    r[:] = after
    floats[F_NOW] = now
    ints[I_LAST] = a
    ints[I_MISSES] = 0
    if now < floats[F_LOCAL]:
        floats[F_LOCAL] = now
        ints[I_STALE] = 0
    if now < floats[F_WALK]:
        floats[F_WALK] = now
        ints[I_SINCE] = 0
    if now < floats[F_BEST]:
        floats[F_BEST] = now
        best[:] = sel
        ints[I_WORK] += sel.size // 4


@njit(cache=True)
def _throw(
    vectors, items, inverse, sel, penalty, r, after, ints, floats, rng, codes, low, high, count,
    costs,
):  # fmt: skip
    """Exchange members at random, and begin a new walk there.

    Walks are allowed 1, 1, 2, 1, 1, 2, 4, ... spans without a new least (Luby, Sinclair & Zuckerman
    1993): about as good as the best length, which no one knows.
    """
    for _ in range(sel.size):
        a, j = next_below(rng, sel.size), next_below(rng, penalty.size)
        if penalty[j] == 0.0 and fits(sel[a], j, floats, codes, low, high, count, costs):
            floats[F_NOW] = square_after(sel[a], j, vectors, items, inverse, r, after)
            r[:] = after
            replace(a, j, sel, penalty, floats, codes, count, costs)
    floats[F_LOCAL] = floats[F_WALK] = floats[F_NOW]
    ints[I_SINCE] = ints[I_STALE] = ints[I_FRESH] = 0
    ints[I_LAST] = -1
    ints[I_WORK] += sel.size * (3 * r.size + 50)
    if ints[I_TURN] & -ints[I_TURN] == ints[I_SPAN]:
        ints[I_TURN] += 1
        ints[I_SPAN] = 1
    else:
        ints[I_SPAN] *= 2


@njit(cache=True)
def search(
    vectors, items, inverse, columns, norms, target, sel, best, penalty, keys, distance, products,
    rows, slots, holders, r, ints, floats, rng, codes, low, high, count, costs, work,
):  # fmt: skip
    """Go on with the search for about ``work`` units, a unit being one coordinate looked at.

    A swap is accepted when the squared residual after it is below F_THRESHOLD times the least of
    this walk; when no new least comes, it is forgotten by degrees, and then the walk begins anew
    elsewhere.

    Parameters
    ----------
    vectors, items, inverse
        (n, d) float64, (m,) the candidate of each point in ascending order of their norms, -1 for
        a zero vector, and what candidates are multiplied by to give points.
    columns, norms, target
        (d, m) float32 the points, (m,) their norms, and (d,) the sum to hit.
    sel, best
        (size,) the subset, and the best one so far.
    penalty, keys, distance, products, r
        (m,) float32 zeros, (m,) float32 twice, (m,) and (d,) scratch.
    rows, slots, holders
        Room for kept products (R, m) float32, with (m,) and (R,) of -1. R is 0, or above size + 1.
    ints, floats, rng
        The state; the caller sets F_GOAL, F_COST, F_CAPACITY, F_THRESHOLD, F_WIDTH (below 0),
        I_DESCENT and I_WIDTH.
    codes, low, high, count, costs
        Constraints; empty arrays for none.

    Returns
    -------
    int
        REACHED when F_BEST is at most F_GOAL, STUCK at a local optimum when only a descent was
        asked for, APPROACHED once, after the first swaps, UNFINISHED otherwise.
    """
    stop = ints[I_WORK] + work
    d, m = columns.shape
    size = sel.size
    after, u = np.empty(d), np.empty(d, dtype=np.float32)
    lanes = np.empty(LANES, dtype=np.float32)
    if ints[I_PHASE] == _BEGIN:
        _begin(vectors, items, inverse, target, sel, best, penalty, r, ints, floats)
        ints[I_WORK] += size * d + m
    while ints[I_WORK] < stop:
        if floats[F_BEST] <= floats[F_GOAL]:
            return REACHED
        if ints[I_PHASE] == _APPROACH:
            again = approach(
                vectors, items, inverse, columns, norms, sel, penalty, keys, r, after, ints,
                floats, codes, low, high, count, costs,
            )  # fmt: skip
            if floats[F_NOW] < floats[F_BEST]:
                floats[F_BEST] = floats[F_LOCAL] = floats[F_WALK] = floats[F_NOW]
                best[:] = sel
            if not again:
                ints[I_PHASE] = _WALK
                return REACHED if floats[F_BEST] <= floats[F_GOAL] else APPROACHED
            continue
        ints[I_SINCE] += 1
        if ints[I_DESCENT] == 0 and ints[I_SINCE] > _STAY * ints[I_SPAN] * size:
            _throw(
                vectors, items, inverse, sel, penalty, r, after, ints, floats, rng, codes, low,
                high, count, costs,
            )  # fmt: skip
            continue
        a = next_below(rng, size)
        if ints[I_DESCENT] == 1 and ints[I_WIDTH] >= m:
            a = ints[I_STALE] % size
        ints[I_WORK] += _STEP
        i = sel[a]
        limit = floats[F_THRESHOLD] * floats[F_LOCAL]
        if a != ints[I_LAST] or size == 1:
            square = _leave(i, vectors, items, inverse, r, u)
            length = np.sqrt(square)
            # A little more than the limit, for rounding in the norms.
            reach = np.sqrt(limit) + 1e-12 * length
            first, last = _below(norms, length - reach), _below(norms, length + reach)
            least, j = FAR, -1
            kept = _choose_mode(last - first, columns, rows, ints, floats)
            if kept and limit > _FINE * square:
                if ints[I_FRESH] == 0:
                    _refresh(columns, norms, penalty, r, products, keys)
                    ints[I_FRESH] = 1
                    ints[I_WORK] += m * d + 10 * m
                slot = row_of(i, columns, rows, slots, holders, penalty, ints)
                bar = np.float32(limit - square)
                least, j = _nearest_kept(
                    i, first, last, bar, keys, rows[slot], distance, lanes, floats, codes, low,
                    high, count, costs,
                )  # fmt: skip
                least += np.float32(square)
                ints[I_WORK] += last - first
            else:
                width = ints[I_WIDTH]
                if last - first > width:
                    first += next_below(rng, last - first - width + 1)
                    last = first + width
                if last > first:
                    least, j = _nearest_anew(
                        i, first, last, u, columns, penalty, distance, lanes, floats, codes, low,
                        high, count, costs,
                    )  # fmt: skip
                ints[I_WORK] += (last - first) * d
            now = limit
            if least < limit * (1.0 - 1e-5):
                now = square_after(i, j, vectors, items, inverse, r, after)
            if now < limit * (1.0 - 1e-5):
                _accept(
                    a, j, now, after, columns, sel, best, penalty, keys, products, rows, slots,
                    holders, r, ints, floats, codes, count, costs,
                )  # fmt: skip
                continue
            ints[I_MISSES] += 1
            if ints[I_MISSES] >= _MISSES and ints[I_WIDTH] < m:
                ints[I_MISSES] = 0
                ints[I_STALE] = 0
                ints[I_WIDTH] *= 2
        ints[I_STALE] += 1
        if ints[I_DESCENT] == 1:
            if ints[I_WIDTH] >= m and ints[I_STALE] > size:
                return STUCK
        elif ints[I_STALE] > _PATIENCE * size:
            ints[I_STALE] = 0
            floats[F_LOCAL] *= _RELAX
    return REACHED if floats[F_BEST] <= floats[F_GOAL] else UNFINISHED
