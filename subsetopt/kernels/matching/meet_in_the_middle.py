"""Meet in the middle with cardinality: one half's subsets listed, the other half's streamed.

The pool is cut into halves A and B. A subset of size k has c values from A and k - c from B. For
each c the smaller list of sums is stored sorted, the larger streamed past it, combination by
combination, each asking the list for the nearest completion (Horowitz & Sahni, J. ACM 1974).
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["list_sums", "stream_chunk"]


@njit(cache=True)
def _advance(comb, m):
    """Move on to the next combination; return the first changed place, -1 at the end."""
    size = comb.size
    place = size - 1
    while place >= 0 and comb[place] == m - size + place:
        place -= 1
    if place < 0:
        return -1
    comb[place] += 1
    for q in range(place + 1, size):
        comb[q] = comb[q - 1] + 1
    return place


@njit(cache=True)
def list_sums(values, size, total):
    """Return the sums of all ``total`` combinations of ``size`` values, in lexicographic order."""
    sums = np.empty(total)
    comb = np.arange(size)
    partial = np.zeros(size + 1)
    place = 0
    for index in range(total):
        for q in range(place, size):
            partial[q + 1] = partial[q] + values[comb[q]]
        sums[index] = partial[size]
        place = _advance(comb, values.size)
    return sums


@njit(cache=True)
def stream_chunk(values, comb, stored, target, best_value, best_comb, goal, work):
    """Stream up to ``work`` combinations from ``comb`` on past the sorted ``stored`` sums.

    Returns the best distance, the position of its completion in ``stored`` (-1: no improvement),
    the combinations looked at, and whether the stream is at its end. ``best_comb`` is set to the
    best combination, ``comb`` to the next one.
    """
    size = comb.size
    partial = np.zeros(size + 1)
    place = 0
    found = -1
    last = stored.size - 1
    for looked in range(work):
        for q in range(place, size):
            partial[q + 1] = partial[q] + values[comb[q]]
        need = target - partial[size]
        low, high = 0, last
        while low < high:
            middle = (low + high) // 2
            if stored[middle] < need:
                low = middle + 1
            else:
                high = middle
        at = low
        err = abs(stored[low] - need)
        if low > 0 and abs(stored[low - 1] - need) < err:
            at = low - 1
            err = abs(stored[at] - need)
        if err < best_value:
            best_value = err
            found = at
            for q in range(size):
                best_comb[q] = comb[q]
        place = _advance(comb, values.size)
        if place < 0 or best_value <= goal:
            return best_value, found, looked + 1, True
    return best_value, found, work, False
