"""Inner products of many points with one: computed by columns, and kept where they come again.

Points are given as ``columns`` (d, m) in single precision, so that sums run along the points,
several at a time.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import uncounted

__all__ = [
    "FAR",
    "LANES",
    "add_products",
    "any_below",
    "any_sum_below",
    "minimum",
    "minimum_sum",
    "row_of",
    "shift",
]

# A key that is never the smallest.
FAR = np.float32(1e30)
# Keys compared at once.
LANES = 64
# Up to this many keys one running minimum is faster than several.
_FEW = 96

# The inputs are finite, and sums may be taken in any order.
_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}


@uncounted(fastmath=_FAST)
def add_products(columns, u, out):
    """Add the inner product of every point with u to ``out`` (m,)."""
    d, m = columns.shape
    c = 0
    while c + 4 <= d:
        u0, u1, u2, u3 = u[c], u[c + 1], u[c + 2], u[c + 3]
        v0, v1, v2, v3 = columns[c], columns[c + 1], columns[c + 2], columns[c + 3]
        for j in range(m):
            out[j] += v0[j] * u0 + v1[j] * u1 + v2[j] * u2 + v3[j] * u3
        c += 4
    while c < d:
        u0, v0 = u[c], columns[c]
        for j in range(m):
            out[j] += v0[j] * u0
        c += 1


@uncounted(fastmath=_FAST)
def _minimum_lane(lanes):
    """Return the smallest of the lanes, and which it is."""
    smallest, lane = lanes[0], 0
    for a in range(1, lanes.size):
        if lanes[a] < smallest:
            smallest, lane = lanes[a], a
    return smallest, lane


@uncounted(fastmath=_FAST)
def minimum(keys, lanes):
    """Return the smallest key and where it is.

    A running minimum is taken one key at a time; minima of separate lanes are taken several at a
    time.
    """
    m = keys.size
    full = m - m % LANES
    for a in range(LANES):
        lanes[a] = FAR
    for b in range(0, full, LANES):
        part = keys[b : b + LANES]
        for a in range(LANES):
            x, y = part[a], lanes[a]
            lanes[a] = x if x < y else y
    for a in range(m - full):
        x, y = keys[full + a], lanes[a]
        lanes[a] = x if x < y else y
    smallest, j = _minimum_lane(lanes)
    while j < m and keys[j] != smallest:
        j += LANES
    return smallest, min(j, m - 1)


@uncounted(fastmath=_FAST)
def any_below(keys, limit):
    """Whether any key is below the limit: much cheaper than which is the smallest."""
    count = np.int32(0)
    for j in range(keys.size):
        if keys[j] < limit:
            count += np.int32(1)
    return count > 0


@uncounted(fastmath=_FAST)
def any_sum_below(keys, row, limit):
    """Whether any ``keys[j] + row[j]`` is below the limit."""
    count = np.int32(0)
    for j in range(keys.size):
        if keys[j] + row[j] < limit:
            count += np.int32(1)
    return count > 0


@uncounted(fastmath=_FAST)
def _minimum_sum_of_few(keys, row):
    smallest, at = FAR, 0
    for j in range(keys.size):
        x = keys[j] + row[j]
        if x < smallest:
            smallest, at = x, j
    return smallest, at


@uncounted(fastmath=_FAST)
def _minimum_sum_of_many(keys, row, lanes):
    m = keys.size
    full = m - m % LANES
    for a in range(LANES):
        lanes[a] = FAR
    for b in range(0, full, LANES):
        key_part, row_part = keys[b : b + LANES], row[b : b + LANES]
        for a in range(LANES):
            x, y = key_part[a] + row_part[a], lanes[a]
            lanes[a] = x if x < y else y
    for a in range(m - full):
        x, y = keys[full + a] + row[full + a], lanes[a]
        lanes[a] = x if x < y else y
    smallest, j = _minimum_lane(lanes)
    while j < m and keys[j] + row[j] != smallest:
        j += LANES
    return smallest, min(j, m - 1)


@uncounted(fastmath=_FAST)
def minimum_sum(keys, row, lanes):
    """Return the smallest ``keys[j] + row[j]`` and where it is."""
    if keys.size <= _FEW:
        result = _minimum_sum_of_few(keys, row)
    else:
        result = _minimum_sum_of_many(keys, row, lanes)
    return result


@uncounted
def row_of(i, columns, table, penalty, state):
    """Return the row of the table that belongs to point i; one that is not there is computed."""
    slot = table.slots[i]
    if slot < 0:
        slot = _free_slot(table.slots, table.holders, penalty, state)
        table.slots[i], table.holders[slot] = slot, i
        u, row = table.factor, table.rows[slot]
        for c in range(u.size):
            u[c] = np.float32(-2.0) * columns[c, i]
        for j in range(row.size):
            row[j] = np.float32(0.0)
        add_products(columns, u, row)
        state.work += columns.size
    return slot


@uncounted
def _free_slot(slots, holders, penalty, state):
    """Return the next row that belongs to no point with a penalty; at least one has to be so."""
    slot, taken = np.int64(0), True
    while taken:
        slot = state.next_row
        state.next_row = slot + 1 if slot + 1 < holders.size else 0
        taken = holders[slot] >= 0 and penalty[holders[slot]] != 0.0
    if holders[slot] >= 0:
        slots[holders[slot]] = -1
    return slot


@uncounted(fastmath=_FAST)
def shift(products, keys, penalty, row_out, row_in):
    """Bring ``|v_j|^2 - 2 r.v_j`` up to date after a swap of the points with these two rows."""
    for j in range(products.size):
        products[j] += np.float64(row_out[j]) - np.float64(row_in[j])
        keys[j] = np.float32(products[j]) + penalty[j]
