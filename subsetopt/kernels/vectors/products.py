"""Inner products of many points with one: computed by columns, and kept where they come again.

Points are given as ``columns`` (d, m) in single precision, so that sums run along the points,
several at a time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.vectors.state import I_ROWS, I_WORK

__all__ = [
    "FAR",
    "LANES",
    "add_products",
    "any_below",
    "least_of",
    "least_sum",
    "row_of",
    "shift",
    "some_below",
]

# A key that is never the least.
FAR = np.float32(1e30)
# Keys compared at once.
LANES = 64
_HAND = I_ROWS

# The inputs are finite, and sums may be taken in any order.
_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}


@njit(cache=True, fastmath=_FAST)
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


@njit(cache=True, fastmath=_FAST)
def _lane(lanes):
    """Return the least of the lanes, and which it is."""
    least, lane = lanes[0], 0
    for a in range(1, lanes.size):
        if lanes[a] < least:
            least, lane = lanes[a], a
    return least, lane


@njit(cache=True, fastmath=_FAST)
def least_of(keys, lanes):
    """Return the least key and where it is.

    A running minimum is taken one key at a time; minima of separate lanes are taken several at a
    time.
    """
    m, width = keys.size, lanes.size
    full = m - m % width
    for a in range(width):
        lanes[a] = FAR
    for b in range(0, full, width):
        part = keys[b : b + width]
        for a in range(width):
            x, y = part[a], lanes[a]
            lanes[a] = x if x < y else y
    for a in range(m - full):
        x, y = keys[full + a], lanes[a]
        lanes[a] = x if x < y else y
    least, j = _lane(lanes)
    while j < m and keys[j] != least:
        j += width
    return least, min(j, m - 1)


@njit(cache=True, fastmath=_FAST)
def any_below(keys, limit):
    """Whether any key is below the limit: much cheaper than which is the least."""
    found = np.int32(0)
    for j in range(keys.size):
        if keys[j] < limit:
            found += np.int32(1)
    return found > 0


@njit(cache=True, fastmath=_FAST)
def some_below(keys, row, limit):
    """Whether any ``keys[j] + row[j]`` is below the limit."""
    found = np.int32(0)
    for j in range(keys.size):
        if keys[j] + row[j] < limit:
            found += np.int32(1)
    return found > 0


@njit(cache=True, fastmath=_FAST)
def least_sum(keys, row, lanes):
    """Return the least ``keys[j] + row[j]`` and where it is."""
    m, width = keys.size, lanes.size
    if m <= 96:
        least, at = FAR, 0
        for j in range(m):
            x = keys[j] + row[j]
            if x < least:
                least, at = x, j
        return least, at
    full = m - m % width
    for a in range(width):
        lanes[a] = FAR
    for b in range(0, full, width):
        left, right = keys[b : b + width], row[b : b + width]
        for a in range(width):
            x, y = left[a] + right[a], lanes[a]
            lanes[a] = x if x < y else y
    for a in range(m - full):
        x, y = keys[full + a] + row[full + a], lanes[a]
        lanes[a] = x if x < y else y
    least, j = _lane(lanes)
    while j < m and keys[j] + row[j] != least:
        j += width
    return least, min(j, m - 1)


@njit(cache=True)
def row_of(i, columns, rows, slots, holders, penalty, ints):
    """Return the slot that holds ``-2`` times the inner products of all points with point i.

    Computed when it is not there, in place of one that belongs to no point with a penalty: at
    least one slot has to be of that kind.
    """
    slot = slots[i]
    if slot >= 0:
        return slot
    while True:
        slot = ints[_HAND]
        ints[_HAND] = slot + 1 if slot + 1 < holders.size else 0
        if holders[slot] < 0:
            break
        if penalty[holders[slot]] == 0.0:
            slots[holders[slot]] = -1
            break
    slots[i], holders[slot] = slot, i
    u = np.empty(columns.shape[0], dtype=np.float32)
    for c in range(u.size):
        u[c] = np.float32(-2.0) * columns[c, i]
    rows[slot] = np.float32(0.0)
    add_products(columns, u, rows[slot])
    ints[I_WORK] += columns.size
    return slot


@njit(cache=True, fastmath=_FAST)
def shift(products, keys, penalty, gone, come):
    """Bring ``|v_j|^2 - 2 r.v_j`` up to date after a swap, whose two rows are given."""
    for j in range(products.size):
        products[j] += np.float64(gone[j]) - np.float64(come[j])
        keys[j] = np.float32(products[j]) + penalty[j]
