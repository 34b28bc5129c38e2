"""Where a swap search over vectors begins: the layout, a random subset, and the first swaps.

With residual r, taking point i out and point j in changes its squared norm by

    (|v_i|^2 + 2 r.v_i) + (|v_j|^2 - 2 r.v_j) - 2 v_i.v_j ,

separate but for the last term. While the residual is large, one product with all points shows the
few that are worth to go and to come, and the swaps among these are made without another.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.random_ import next_below
from subsetopt.kernels.vectors.products import FAR, add_products, any_below
from subsetopt.kernels.vectors.state import F_CAPACITY, F_COST, F_NOW, I_CENTRAL, I_WORK

__all__ = ["approach", "draw", "fits", "lay_out", "replace", "square_after"]

# How many of the likeliest to go, and to come, are paired.
_POOL = 8
# A round that leaves more than this share of the squared residual is the last.
_SLOW = 0.95
# A swap has to leave less than this share; the rest is rounding.
_LESS = 1.0 - 1e-6
_BLOCK = 16
# Keys looked through together.
_RUN = 64

_FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True)
def lay_out(vectors, items, inverse, columns):
    """Write the vectors of ``items`` times ``inverse`` by columns in single precision.

    An item of -1 is a zero vector. In blocks of rows, so that what is written by columns still
    lies in the cache.
    """
    d, m = columns.shape
    block = np.empty((_BLOCK, d), dtype=np.float32)
    for first in range(0, m, _BLOCK):
        count = min(m - first, _BLOCK)
        for a in range(count):
            item = items[first + a]
            row = block[a]
            if item < 0:
                row[:] = np.float32(0.0)
            else:
                vector = vectors[item]
                for c in range(d):
                    row[c] = vector[c] * inverse
        for c in range(d):
            column = columns[c]
            for a in range(count):
                column[first + a] = block[a, c]


@njit(cache=True)
def draw(size, order, rng):
    """Shuffle the beginning of ``order`` (m,): its first ``size`` entries are a random subset."""
    for a in range(size):
        b = a + next_below(rng, order.size - a)
        order[a], order[b] = order[b], order[a]


@njit(cache=True, fastmath=_FAST)
def _add(vectors, item, scale, r):
    """Add a multiple of an item's vector to r."""
    if item >= 0:
        row = vectors[item]
        for c in range(r.size):
            r[c] += scale * row[c]


@njit(cache=True, fastmath=_FAST)
def square_after(i, j, vectors, items, inverse, r, after):
    """Write the residual without point i and with point j to ``after``; return its square."""
    for c in range(r.size):
        after[c] = r[c]
    _add(vectors, items[i], inverse, after)
    _add(vectors, items[j], -inverse, after)
    total = 0.0
    for c in range(r.size):
        total += after[c] * after[c]
    return total


@njit(cache=True)
def fits(i, j, floats, codes, low, high, count, costs):
    """Whether quotas and capacity allow point i to be swapped with point j."""
    if codes.size:
        g, h = codes[i], codes[j]
        if g != h and (count[g] - 1 < low[g] or count[h] + 1 > high[h]):
            return False
    if costs.size:
        return costs[j] <= floats[F_CAPACITY] - floats[F_COST] + costs[i]
    return True


@njit(cache=True)
def replace(a, j, sel, penalty, floats, codes, count, costs):
    """Put point j in the place of member a."""
    i = sel[a]
    sel[a] = j
    penalty[i] = np.float32(0.0)
    penalty[j] = FAR
    if codes.size:
        count[codes[i]] -= 1
        count[codes[j]] += 1
    if costs.size:
        floats[F_COST] += costs[j] - costs[i]


@njit(cache=True)
def _likeliest(keys, values, places):
    """Find the smallest keys below FAR, in order; return how many there are, as many as fit.

    In blocks, most of which hold none that is small enough.
    """
    most, found, limit = values.size, 0, FAR
    for first in range(0, keys.size, _RUN):
        last = min(first + _RUN, keys.size)
        if not any_below(keys[first:last], limit):
            continue
        for j in range(first, last):
            x = keys[j]
            if x < limit:
                found = min(found + 1, most)
                b = found - 1
                while b > 0 and values[b - 1] > x:
                    values[b], places[b] = values[b - 1], places[b - 1]
                    b -= 1
                values[b], places[b] = x, j
                if found == most:
                    limit = values[most - 1]
    return found


@njit(cache=True, fastmath=_FAST)
def _dot(a, b):
    total = np.float32(0.0)
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@njit(cache=True)
def _gather(vectors, items, inverse, points, out):
    """Write some points to the rows of ``out``."""
    for a in range(points.size):
        item = items[points[a]]
        row = out[a]
        if item < 0:
            row[:] = np.float32(0.0)
        else:
            vector = vectors[item]
            for c in range(row.size):
                row[c] = vector[c] * inverse


@njit(cache=True, fastmath=_FAST)
def _keys(columns, norms, r, sel, keys, go):
    """Write ``|v_j|^2 - 2 r.v_j`` of all points to keys, and ``|v_i|^2 + 2 r.v_i`` of members."""
    u = np.empty(r.size, dtype=np.float32)
    for c in range(r.size):
        u[c] = np.float32(-2.0 * r[c])
    for j in range(keys.size):
        keys[j] = np.float32(norms[j] * norms[j])
    add_products(columns, u, keys)
    for a in range(sel.size):
        i = sel[a]
        go[a] = np.float32(2.0 * norms[i] * norms[i]) - keys[i]
        keys[i] = FAR


@njit(cache=True)
def _central(norms, sel, keys, go, square):
    """Whether some point outside lies further along r than some member, by all of |r|."""
    furthest, nearest = -np.inf, np.inf
    for j in range(keys.size):
        if keys[j] < FAR:
            furthest = max(furthest, norms[j] * norms[j] - keys[j])
    for a in range(sel.size):
        nearest = min(nearest, go[a] - norms[sel[a]] * norms[sel[a]])
    return 0.5 * (furthest - nearest) >= 1.001 * square


@njit(cache=True)
def _best_pair(sel, out_values, out_places, in_values, in_places, cross, floats, codes, low, high,
               count, costs):  # fmt: skip
    """Return the pair whose swap takes most off the squared residual; -1 for none that does."""
    least, x, y = np.float32(0.0), -1, -1
    for a in range(out_values.size):
        for b in range(in_values.size):
            key = out_values[a] + in_values[b] - np.float32(2.0) * cross[a, b]
            if key < least and fits(
                sel[out_places[a]], in_places[b], floats, codes, low, high, count, costs
            ):
                least, x, y = key, a, b
    return x, y


@njit(cache=True)
def approach(
    vectors, items, inverse, columns, norms, sel, penalty, keys, r, after, ints, floats,
    codes, low, high, count, costs,
):  # fmt: skip
    """Make the best swaps among the few likeliest points; return whether to do so again.

    ``keys`` (m,) and ``after`` (d,) are scratch. At the end I_CENTRAL is set to 1 where a single
    swap could take back all of the residual along its own direction: no bound lies along it then.
    """
    d, m = columns.shape
    go = np.empty(sel.size, dtype=np.float32)
    _keys(columns, norms, r, sel, keys, go)
    before, members = floats[F_NOW], sel.copy()
    out_values, in_values = np.empty(_POOL, np.float32), np.empty(_POOL, np.float32)
    out_places, in_places = np.empty(_POOL, np.int64), np.empty(_POOL, np.int64)
    outs = _likeliest(go, out_values, out_places)
    ins = _likeliest(keys, in_values, in_places)
    out_values, in_values = out_values[:outs], in_values[:ins]
    leave, enter = np.empty((outs, d), np.float32), np.empty((ins, d), np.float32)
    _gather(vectors, items, inverse, sel[out_places[:outs]], leave)
    _gather(vectors, items, inverse, in_places[:ins], enter)
    cross = np.empty((outs, ins), np.float32)
    for a in range(outs):
        for b in range(ins):
            cross[a, b] = _dot(leave[a], enter[b])
    ints[I_WORK] += m * d + 10 * m + outs * ins * (d + 20)
    while True:
        x, y = _best_pair(
            sel, out_values, out_places, in_values, in_places, cross, floats, codes, low, high,
            count, costs,
        )  # fmt: skip
        if x < 0:
            break
        i, j = sel[out_places[x]], in_places[y]
        now = square_after(i, j, vectors, items, inverse, r, after)
        if now >= _LESS * floats[F_NOW]:
            break
        floats[F_NOW] = now
        r[:] = after
        replace(out_places[x], j, sel, penalty, floats, codes, count, costs)
        out_values[x] = in_values[y] = FAR
        for a in range(outs):
            if out_values[a] < FAR:
                out_values[a] += np.float32(2.0) * (_dot(leave[a], leave[x]) - cross[a, y])
        for b in range(ins):
            if in_values[b] < FAR:
                in_values[b] += np.float32(2.0) * (_dot(enter[b], enter[y]) - cross[x, b])
        ints[I_WORK] += (outs + ins) * d + 10 * outs * ins
    if floats[F_NOW] < _SLOW * before:
        return True
    ints[I_CENTRAL] = 1 if _central(norms, members, keys, go, before) else 0
    return False
