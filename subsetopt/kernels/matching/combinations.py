"""Every combination in lexicographic order, a chunk at a time."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["enumerate_chunk"]


@njit(cache=True)
def enumerate_chunk(
    values, target, matching, comb, best, best_value, codes, low, high, costs, capacity, work
):
    """Look at up to ``work`` combinations, from ``comb`` on.

    Parameters
    ----------
    values
        (m,) float64.
    target, matching
        Minimizes ``|sum - target|`` when matching, else ``-sum``.
    comb
        (size,) the next combination, ascending; moved on in place.
    best, best_value
        The best combination so far, changed in place, and its value.
    codes, low, high, costs, capacity
        Constraints on the combination; empty arrays for none.
    work
        Combinations to look at.

    Returns
    -------
    tuple
        The best value, the combinations looked at, and whether all have been.
    """
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
        changed = size - 1
        while changed >= 0 and comb[changed] == m - size + changed:
            changed -= 1
        if changed < 0:
            return best_value, looked + 1, True
        comb[changed] += 1
        for a in range(changed + 1, size):
            comb[a] = comb[a - 1] + 1
    return best_value, work, False
