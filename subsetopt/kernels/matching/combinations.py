"""Every combination in lexicographic order, a chunk at a time."""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit, uncounted

__all__ = ["enumerate_chunk", "next_combination"]


@uncounted(forceinline=True)
def next_combination(comb, m):
    """Move on to the next combination of m; return the first changed place, -1 at the end."""
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
def enumerate_chunk(values, target, matching, comb, best, best_value, limits, work):
    """Look at up to ``work`` combinations, from ``comb`` on.

    Parameters
    ----------
    values
        Values to choose from, shape (m,), float64.
    target, matching
        What is minimized: ``|sum - target|`` when matching, else ``-sum``.
    comb
        The next combination, shape (size,), int64, ascending; moved on in place.
    best, best_value
        The best combination so far, shape (size,), int64, changed in place, and its value.
    limits
        The constraints on the combination, as :class:`Limits`.
    work
        Combinations to look at.

    Returns
    -------
    tuple
        The best value, the combinations looked at, and whether all have been.
    """
    codes, low, high, costs, capacity = limits
    m, size = values.size, comb.size
    sums = np.zeros(size + 1)
    spent = np.zeros(size + 1)
    count = np.zeros(low.size, dtype=np.int64)
    changed = 0
    for looked in range(work):
        for a in range(changed, size):
            sums[a + 1] = sums[a] + values[comb[a]]
            if costs.size:
                spent[a + 1] = spent[a] + costs[comb[a]]
        feasible = spent[size] <= capacity
        if feasible and codes.size:
            count[:] = 0
            for a in range(size):
                count[codes[comb[a]]] += 1
            for g in range(low.size):
                if count[g] < low[g] or count[g] > high[g]:
                    feasible = False
        if feasible:
            value = abs(sums[size] - target) if matching else -sums[size]
            if value < best_value:
                best_value = value
                for a in range(size):
                    best[a] = comb[a]
        changed = next_combination(comb, m)
        if changed < 0:
            return best_value, looked + 1, True
    return best_value, work, False
