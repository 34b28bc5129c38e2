"""Meet in the middle with cardinality: one half's subsets listed, the other half's streamed.

The pool is cut into halves A and B. A subset of size k has c values from A and k - c from B. For
each c the smaller list of sums is stored sorted, the larger streamed past it, combination by
combination, each asking the list for the nearest completion (Horowitz & Sahni, J. ACM 1974).
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit
from subsetopt.kernels.matching.bisection import first_not_below
from subsetopt.kernels.matching.combinations import next_combination

__all__ = ["list_sums", "stream_chunk"]


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
        place = next_combination(comb, values.size)
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
    completion = -1
    last = stored.size - 1
    for looked in range(work):
        for q in range(place, size):
            partial[q + 1] = partial[q] + values[comb[q]]
        wanted = target - partial[size]
        at = first_not_below(stored, 0, last, wanted)
        distance = abs(stored[at] - wanted)
        if at > 0 and abs(stored[at - 1] - wanted) < distance:
            at -= 1
            distance = abs(stored[at] - wanted)
        if distance < best_value:
            best_value = distance
            completion = at
            for q in range(size):
                best_comb[q] = comb[q]
        place = next_combination(comb, values.size)
        if place < 0 or best_value <= goal:
            return best_value, completion, looked + 1, True
    return best_value, completion, work, False
