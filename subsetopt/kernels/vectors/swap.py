"""Threshold search over swaps, for sums of vectors: one out at random, the best one in.

With residual r, taking point i out and point j in leaves ``r + v_i - v_j``: the best j is the
nearest neighbor of ``u = r + v_i`` among the points outside. The points lie in ascending order of
their norms, so only those whose norm is within ``sqrt(limit)`` of that of u can be near enough.
Distances to these are taken anew, or found by

    |u - v_j|^2 = |u|^2 + (|v_j|^2 - 2 r.v_j) - 2 v_i.v_j

from the products of v_i with all points, which are kept, and those of r, which every swap shifts.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.arrays import copy
from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.limits import Limits
from subsetopt.kernels.random_ import next_below
from subsetopt.kernels.vectors.products import (
    FAR,
    add_products,
    any_sum_below,
    minimum,
    minimum_sum,
    row_of,
    shift,
)
from subsetopt.kernels.vectors.start import approach, fits, replace, square_after
from subsetopt.kernels.vectors.state import First, Points, Scratch, Subset, Table

__all__ = ["APPROACHED", "REACHED", "STUCK", "UNFINISHED", "search"]

# Why a call of the search ends.
UNFINISHED, REACHED, STUCK, APPROACHED = 0, 1, 2, 3

# The phases of a search.
_BEGIN, _APPROACH, _WALK = 0, 1, 2
# Work of one step besides the distances, in coordinates.
_STEP = 300
# What the reference of a walk that has gone stale is multiplied by.
_RELAX = 3.0
# Steps per member without a new smallest residual after which a walk has gone stale.
_PATIENCE = 0.75
# Steps per member without a new smallest residual after which a walk begins anew elsewhere. Where a
# few large vectors decide, the way from one set of them to a better leads over points far worse
# than any walk may visit.
_STAY = 16
# Steps without a swap before more points are looked at.
_MISSES = 6
# Below this share of |u|^2, single precision cannot tell distances found by products apart.
_FINE = 1e-3
# Steps between two looks at which way to find distances is the cheaper.
_PERIOD = 64
# A swap has to leave less than this share of its limit; the rest is rounding.
_BELOW = 1.0 - 1e-5

_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}


@uncounted(fastmath=_FAST)
def _add_squares(columns, first, last, u, distances):
    """Add squared distances of some points to u to ``distances``.

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
            distances[j] += x0 * x0 + x1 * x1 + x2 * x2 + x3 * x3
        c += 4
    while c < d:
        u0, v0 = u[c], columns[c, first:last]
        for j in range(m):
            x0 = v0[j] - u0
            distances[j] += x0 * x0
        c += 1


@uncounted
def _bar(i, first, last, distances, limits, subset):
    """Add to the distances of points that constraints keep from coming in for point i."""
    for j in range(first, last):
        if not fits(i, j, limits, subset):
            distances[j - first] += FAR


@uncounted
def _allowed(i, j, limits, subset):
    """Whether point j, -1 for none, is outside and may come in for point i."""
    return j >= 0 and subset.penalty[j] == 0.0 and fits(i, j, limits, subset)


@uncounted
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


@uncounted
def _begin(points, subset, state):
    """Find the residual of the subset to start from."""
    members, residual = subset.members, subset.residual
    vectors, items, inverse = points.vectors, points.items, points.inverse
    copy(points.target, residual)
    for a in range(members.size):
        subset.best[a] = members[a]
        subset.penalty[members[a]] = FAR
        item = items[members[a]]
        if item >= 0:
            for c in range(residual.size):
                residual[c] -= vectors[item, c] * inverse
    square = 0.0
    for c in range(residual.size):
        square += residual[c] * residual[c]
    state.best = state.walk_best = state.reference = state.now = square
    if state.descent:
        state.threshold = 1.0
    state.last = -1
    state.span = state.turn = 1
    state.phase = _APPROACH
    state.work += members.size * residual.size + points.norms.size


@uncounted
def _refresh(columns, norms, subset, table):
    """Compute ``|v_j|^2 - 2 r.v_j`` of all points."""
    products, keys, penalty = table.products, table.keys, subset.penalty
    residual, u = subset.residual, table.factor
    for c in range(u.size):
        u[c] = -2.0 * residual[c]
    for j in range(keys.size):
        keys[j] = np.float32(0.0)
    add_products(columns, u, keys)
    for j in range(keys.size):
        products[j] = keys[j] + norms[j] * norms[j]
        keys[j] = np.float32(products[j]) + penalty[j]


@uncounted
def _by_products(width, d, m, room, state):
    """Whether to find distances by kept products, for which there is ``room`` in rows.

    They are kept where that is cheaper than distances to the points of fitting norm, of which there
    are ``width``. A row of products costs m d; a swap needs one and shifts m sums; about 20 steps
    share it. One coordinate of a few points costs four times as much as one of many.
    """
    if state.mean_width < 0.0:
        state.mean_width = width
    state.mean_width += (width - state.mean_width) / _PERIOD
    if state.stale % _PERIOD == 0 and room:
        direct, kept = 80.0 * state.mean_width * d, 1.0 * m * (d + 16)
        if not state.by_products:
            state.by_products = 1 if direct > 1.5 * kept else 0
        elif direct < kept:
            state.by_products = state.fresh = 0
    return state.by_products == 1


@uncounted
def _leave(i, points, residual, center):
    """Write the residual without point i, ``u = r + v_i``; return its squared norm."""
    square, item, vectors = 0.0, points.items[i], points.vectors
    scale = points.inverse if item >= 0 else 0.0
    # A zero vector adds nothing, whichever row is read for it.
    row = max(item, 0)
    for c in range(residual.size):
        x = residual[c] + vectors[row, c] * scale
        center[c] = x
        square += x * x
    return square


@uncounted
def _nearest_kept(i, first, last, bar, table, scratch, limits, subset):
    """Return the smallest distance below ``bar`` among some points, and whose; FAR for none.

    Distances are less the squared norm of the center; the table has a row of point i.
    """
    keys, distances = table.keys[first:last], scratch.distances
    row = table.rows[table.slots[i]][first:last]
    nearest, j = FAR, -1
    if any_sum_below(keys, row, bar):
        if limits.codes.size or limits.costs.size:
            for j in range(last - first):
                distances[j] = keys[j] + row[j]
            _bar(i, first, last, distances, limits, subset)
            nearest, j = minimum(distances[: last - first], scratch.lanes)
        else:
            nearest, j = minimum_sum(keys, row, scratch.lanes)
    return nearest, first + j


@uncounted
def _nearest_anew(i, first, last, columns, scratch, limits, subset):
    """Return the smallest squared distance to the center among some points, and whose."""
    distances, penalty = scratch.distances, subset.penalty
    # By a loop: NumPy's assignment of slices takes longer than all that follows.
    for j in range(last - first):
        distances[j] = penalty[first + j]
    if limits.codes.size or limits.costs.size:
        _bar(i, first, last, distances, limits, subset)
    _add_squares(columns, first, last, scratch.center, distances[: last - first])
    nearest, j = minimum(distances[: last - first], scratch.lanes)
    return nearest, first + j


@uncounted
def _exchange(a, j, columns, subset, limits, table, state):
    """Put point j in the place of member a, and bring kept products up to date."""
    penalty = subset.penalty
    row_out = row_in = np.int64(-1)
    if state.fresh:
        # Both rows while both points have a penalty, so that neither takes the other's place.
        row_out = row_of(subset.members[a], columns, table, penalty, state)
        penalty[j] = FAR
        row_in = row_of(j, columns, table, penalty, state)
    replace(a, j, subset, limits)
    if state.fresh:
        shift(table.products, table.keys, penalty, table.rows[row_out], table.rows[row_in])
        state.work += 3 * penalty.size


@uncounted
def _record(a, square, after, subset, state):
    """Note the residual that a swap of member a has left."""
    copy(after, subset.residual)
    state.now = square
    state.last = a
    state.misses = 0
    if square < state.reference:
        state.reference = square
        state.stale = 0
    if square < state.walk_best:
        state.walk_best = square
        state.since = 0
    if square < state.best:
        state.best = square
        copy(subset.members, subset.best)
        state.work += subset.members.size // 4


@uncounted
def _throw(points, limits, subset, after, state, rng):
    """Exchange members at random, and begin a new walk there.

    Walks are allowed 1, 1, 2, 1, 1, 2, 4, ... spans without a new smallest residual (Luby, Sinclair
    & Zuckerman 1993): about as good as the best length, which no one knows.
    """
    members, residual, penalty = subset.members, subset.residual, subset.penalty
    for _ in range(members.size):
        a, j = next_below(rng, members.size), next_below(rng, penalty.size)
        if penalty[j] == 0.0 and fits(members[a], j, limits, subset):
            state.now = square_after(members[a], j, points, residual, after)
            copy(after, residual)
            replace(a, j, subset, limits)
    state.reference = state.walk_best = state.now
    state.since = state.stale = state.fresh = 0
    state.last = -1
    state.work += members.size * (3 * residual.size + 50)
    if state.turn & -state.turn == state.span:
        state.turn += 1
        state.span = 1
    else:
        state.span *= 2


@uncounted
def _choose(size, m, state, rng):
    """Return the position of the member to take out: at random, or in turn in a full descent."""
    a = next_below(rng, size)
    if state.descent and state.window >= m:
        a = state.stale % size
    state.work += _STEP
    return a


@uncounted
def _try_swap(a, points, limits, subset, table, scratch, state, rng):
    """Swap member a for the nearest point to the residual without it; whether that was done."""
    columns, norms = points.columns, points.norms
    d, m = columns.shape
    i = subset.members[a]
    limit = state.threshold * state.reference
    square = _leave(i, points, subset.residual, scratch.center)
    length = np.sqrt(square)
    # A little more than the limit, for rounding in the norms.
    reach = np.sqrt(limit) + 1e-12 * length
    first, last = _below(norms, length - reach), _below(norms, length + reach)
    nearest, j = FAR, -1
    kept = _by_products(last - first, d, m, table.holders.size, state)
    if kept and limit > _FINE * square:
        if not state.fresh:
            _refresh(columns, norms, subset, table)
            state.fresh = 1
            state.work += m * d + 10 * m
        row_of(i, columns, table, subset.penalty, state)
        bar = np.float32(limit - square)
        nearest, j = _nearest_kept(i, first, last, bar, table, scratch, limits, subset)
        nearest += np.float32(square)
        state.work += last - first
    else:
        width = state.window
        if last - first > width:
            first += next_below(rng, last - first - width + 1)
            last = first + width
        if last > first:
            nearest, j = _nearest_anew(i, first, last, columns, scratch, limits, subset)
        state.work += (last - first) * d
    after = limit
    # The limit of a stale walk may grow beyond FAR, by which points are barred: they are looked at.
    if nearest < limit * _BELOW and _allowed(i, j, limits, subset):
        after = square_after(i, j, points, subset.residual, scratch.after)
    swapped = after < limit * _BELOW
    if swapped:
        _exchange(a, j, columns, subset, limits, table, state)
        _record(a, after, scratch.after, subset, state)
    else:
        state.misses += 1
        if state.misses >= _MISSES and state.window < m:
            state.misses = state.stale = 0
            state.window *= 2
    return swapped


@uncounted
def search(points, limits, subset, table, scratch, first, record, rng, work):
    """Go on with the search for about ``work`` units, a unit being one coordinate looked at.

    A swap is accepted when the squared residual after it is below ``threshold`` times the smallest
    of this walk; when no new smallest comes, it is forgotten by degrees, and then the walk begins
    anew elsewhere.

    Parameters
    ----------
    points, limits, subset, table, scratch, first
        The fields of Points, Limits, Subset, Table, Scratch and First, see
        :mod:`subsetopt.kernels.vectors.state`, as plain tuples: calls with named ones take longer.
        All penalties are 0 before the first call.
    record
        (1,) of type STATE, the numbers that change.
    rng
        (1,) uint64, the state of the generator.
    work
        Units of work.

    Returns
    -------
    int
        REACHED when the best square is at most the goal, STUCK at a local optimum when only a
        descent was asked for, APPROACHED once, after the first swaps, UNFINISHED otherwise.
    """
    points, limits = Points(*points), Limits(*limits)
    subset, table = Subset(*subset), Table(*table)
    scratch, first = Scratch(*scratch), First(*first)
    state = record[0]
    stop = state.work + work
    size, m = subset.members.size, points.norms.size
    if state.phase == _BEGIN:
        _begin(points, subset, state)
    while state.work < stop:
        if state.best <= state.goal:
            return REACHED
        if state.phase == _APPROACH:
            again = approach(points, limits, subset, table, scratch, first, state)
            if state.now < state.best:
                state.best = state.reference = state.walk_best = state.now
                copy(subset.members, subset.best)
            if not again:
                state.phase = _WALK
                return REACHED if state.best <= state.goal else APPROACHED
            continue
        state.since += 1
        if not state.descent and state.since > _STAY * state.span * size:
            _throw(points, limits, subset, scratch.after, state, rng)
            continue
        a = _choose(size, m, state, rng)
        if (a != state.last or size == 1) and _try_swap(
            a, points, limits, subset, table, scratch, state, rng
        ):
            continue
        state.stale += 1
        if state.descent:
            if state.window >= m and state.stale > size:
                return STUCK
        elif state.stale > _PATIENCE * size:
            state.stale = 0
            state.reference *= _RELAX
    return REACHED if state.best <= state.goal else UNFINISHED
