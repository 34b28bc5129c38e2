"""Where a swap search over vectors begins: the layout, a random subset, and the first swaps.

With residual r, taking point i out and point j in changes its squared norm by

    (|v_i|^2 + 2 r.v_i) + (|v_j|^2 - 2 r.v_j) - 2 v_i.v_j ,

separate but for the last term. While the residual is large, one product with all points shows the
few that are worth taking out, and putting in, and the swaps among these are made without another.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.arrays import copy
from subsetopt.kernels.compiling import njit, uncounted
from subsetopt.kernels.random_ import next_below
from subsetopt.kernels.vectors.products import FAR, add_products, any_below
from subsetopt.kernels.vectors.state import Pool

__all__ = ["approach", "draw", "fits", "lay_out", "replace", "square_after"]

# A round that leaves more than this share of the squared residual is the last.
_SLOW = 0.95
# A swap has to leave less than this share of the squared residual; the rest is rounding.
_LESS = 1.0 - 1e-6
# Points that are laid out together.
_BLOCK = 16
# Keys that are looked through together.
_RUN = 64

_FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True)
def lay_out(vectors, items, inverse, columns, start, end):
    """Write the vectors of ``items`` times ``inverse`` by columns in single precision.

    Only those of ``items[start:end]`` are written. An item of -1 is a zero vector. Rows are laid
    out in blocks, so that what is written by columns still lies in the cache.
    """
    d = columns.shape[0]
    block = np.empty((_BLOCK, d), dtype=np.float32)
    for first in range(start, end, _BLOCK):
        count = min(end - first, _BLOCK)
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


@uncounted
def draw(size, order, rng):
    """Shuffle the beginning of ``order`` (m,): its first ``size`` entries are a random subset."""
    for a in range(size):
        b = a + next_below(rng, order.size - a)
        order[a], order[b] = order[b], order[a]


@uncounted(fastmath=_FAST)
def _add(vectors, item, scale, r):
    """Add a multiple of an item's vector to r."""
    if item >= 0:
        row = vectors[item]
        for c in range(r.size):
            r[c] += scale * row[c]


@uncounted(fastmath=_FAST)
def square_after(i, j, points, residual, after):
    """Write the residual without point i and with point j to ``after``; return its square."""
    items, inverse = points.items, points.inverse
    for c in range(residual.size):
        after[c] = residual[c]
    _add(points.vectors, items[i], inverse, after)
    _add(points.vectors, items[j], -inverse, after)
    total = 0.0
    for c in range(residual.size):
        total += after[c] * after[c]
    return total


@uncounted
def fits(i, j, limits, subset):
    """Whether quotas and capacity allow point i to be swapped with point j."""
    if limits.codes.size:
        g, h, counts = limits.codes[i], limits.codes[j], subset.counts
        if g != h and (counts[g] - 1 < limits.low[g] or counts[h] + 1 > limits.high[h]):
            return False
    if limits.costs.size:
        return limits.costs[j] <= limits.capacity - subset.spent[0] + limits.costs[i]
    return True


@uncounted
def replace(a, j, subset, limits):
    """Put point j in the place of member a."""
    i = subset.members[a]
    subset.members[a] = j
    subset.penalty[i] = np.float32(0.0)
    subset.penalty[j] = FAR
    if limits.codes.size:
        subset.counts[limits.codes[i]] -= 1
        subset.counts[limits.codes[j]] += 1
    if limits.costs.size:
        subset.spent[0] += limits.costs[j] - limits.costs[i]


@uncounted
def _smallest(keys, values, places):
    """Write the smallest keys below FAR in ascending order, and where they are.

    Returns how many there are, ``values.size`` at most. Keys are looked through in blocks, most of
    which hold none that is small enough.
    """
    room, count, limit = values.size, 0, FAR
    for first in range(0, keys.size, _RUN):
        last = min(first + _RUN, keys.size)
        if not any_below(keys[first:last], limit):
            continue
        for j in range(first, last):
            x = keys[j]
            if x < limit:
                count = min(count + 1, room)
                b = count - 1
                while b > 0 and values[b - 1] > x:
                    values[b], places[b] = values[b - 1], places[b - 1]
                    b -= 1
                values[b], places[b] = x, j
                if count == room:
                    limit = values[room - 1]
    return count


@uncounted(fastmath=_FAST)
def _dot(a, b):
    total = np.float32(0.0)
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@uncounted
def _write_point(i, points, row):
    """Write point i to ``row`` (d,)."""
    item, vectors = points.items[i], points.vectors
    # A zero vector is any row of the vectors times 0.
    scale, at = points.inverse if item >= 0 else 0.0, max(item, 0)
    for c in range(row.size):
        row[c] = vectors[at, c] * scale


@uncounted(fastmath=_FAST)
def _write_keys(columns, norms, subset, u, keys, member_keys):
    """Write ``|v_j|^2 - 2 r.v_j`` of all points to keys, and ``|v_i|^2 + 2 r.v_i`` of members.

    ``u`` (d,) is scratch.
    """
    members, residual = subset.members, subset.residual
    for c in range(residual.size):
        u[c] = np.float32(-2.0 * residual[c])
    for j in range(keys.size):
        keys[j] = np.float32(norms[j] * norms[j])
    add_products(columns, u, keys)
    for a in range(members.size):
        i = members[a]
        member_keys[a] = np.float32(2.0 * norms[i] * norms[i]) - keys[i]
        keys[i] = FAR


@uncounted
def _central(norms, members, keys, member_keys, square):
    """Whether some point outside lies further along r than some member, by all of |r|."""
    furthest, nearest = -np.inf, np.inf
    for j in range(keys.size):
        if keys[j] < FAR:
            furthest = max(furthest, norms[j] * norms[j] - keys[j])
    for a in range(members.size):
        nearest = min(nearest, member_keys[a] - norms[members[a]] * norms[members[a]])
    return 0.5 * (furthest - nearest) >= 1.001 * square


@uncounted
def _write_products(leaving, entering, cross):
    """Write the products of all points that may leave with all that may enter."""
    for a in range(leaving.keys.size):
        for b in range(entering.keys.size):
            cross[a, b] = _dot(leaving.rows[a], entering.rows[b])


@uncounted
def _best_pair(leaving, entering, cross, subset, limits):
    """Return the pair whose swap takes most off the squared residual; -1 for none that does."""
    smallest, x, y = np.float32(0.0), -1, -1
    for a in range(leaving.keys.size):
        for b in range(entering.keys.size):
            if leaving.keys[a] >= FAR or entering.keys[b] >= FAR:
                continue
            key = leaving.keys[a] + entering.keys[b] - np.float32(2.0) * cross[a, b]
            i = subset.members[leaving.places[a]]
            if key < smallest and fits(i, entering.places[b], limits, subset):
                smallest, x, y = key, a, b
    return x, y


@uncounted
def _shift_keys(pool, x, products):
    """Bring keys up to date after entry x of a pool was swapped for an entry of the other pool.

    ``products`` are those of the pool's points with that other point.
    """
    pool.keys[x] = FAR
    for a in range(pool.keys.size):
        if pool.keys[a] < FAR:
            change = _dot(pool.rows[a], pool.rows[x]) - products[a]
            pool.keys[a] += np.float32(2.0) * change


@uncounted
def approach(points, limits, subset, table, scratch, first, state):
    """Make the best swaps among the few likeliest points; return whether to do so again.

    At the end ``central`` is set to 1 where a single swap could take back all of the residual along
    its own direction: no bound lies along it then.
    """
    d, m = points.columns.shape
    members, residual, after, cross = subset.members, subset.residual, scratch.after, first.cross
    square_before, keys, member_keys = state.now, table.keys, first.member_keys
    copy(members, first.members)
    _write_keys(points.columns, points.norms, subset, table.factor, keys, member_keys)
    outs = _smallest(member_keys, first.out_keys, first.out_places)
    ins = _smallest(keys, first.in_keys, first.in_places)
    leaving = Pool(first.out_keys[:outs], first.out_places[:outs], first.out_rows[:outs])
    entering = Pool(first.in_keys[:ins], first.in_places[:ins], first.in_rows[:ins])
    for a in range(outs):
        _write_point(members[leaving.places[a]], points, leaving.rows[a])
    for b in range(ins):
        _write_point(entering.places[b], points, entering.rows[b])
    _write_products(leaving, entering, cross)
    state.work += m * d + 10 * m + outs * ins * (d + 20)
    while True:
        x, y = _best_pair(leaving, entering, cross, subset, limits)
        if x < 0:
            break
        i, j = members[leaving.places[x]], entering.places[y]
        square = square_after(i, j, points, residual, after)
        if square >= _LESS * state.now:
            break
        state.now = square
        copy(after, residual)
        replace(leaving.places[x], j, subset, limits)
        for a in range(outs):
            first.column[a] = cross[a, y]
        _shift_keys(leaving, x, first.column)
        _shift_keys(entering, y, cross[x])
        state.work += (outs + ins) * d + 10 * outs * ins
    if state.now < _SLOW * square_before:
        return True
    central = _central(points.norms, first.members, keys, member_keys, square_before)
    state.central = 1 if central else 0
    return False
