"""Random subsets of a sorted pool, drawn into the arrays that a search works on."""

from __future__ import annotations

from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.random_ import next_below

__all__ = ["stratified_start", "uniform_start"]


@uncounted
def stratified_start(size, m, rng, chosen, rest, mark):
    """Draw one position from each of ``size`` consecutive strata of m sorted values.

    Writes the chosen positions to ``chosen``, shape (size,), the others to ``rest``, shape
    (m - size,), and 1 for chosen ones and 0 for others to ``mark``, shape (m,).
    """
    low = 0
    filled = 0
    for s in range(size):
        high = (s + 1) * m // size
        pick = low + next_below(rng, high - low)
        for p in range(low, high):
            mark[p] = 0
            if p != pick:
                rest[filled] = p
                filled += 1
        mark[pick] = 1
        chosen[s] = pick
        low = high
    for p in range(low, m):
        mark[p] = 0
        rest[filled] = p
        filled += 1


@uncounted
def uniform_start(size, m, rng, chosen, rest, mark):
    """Draw a uniform subset, and write it as ``stratified_start`` does."""
    for p in range(m):
        mark[p] = 0
    # Floyd's algorithm: one draw per chosen position, without a list of all.
    for s in range(size):
        top = m - size + s
        pick = next_below(rng, top + 1)
        if mark[pick] == 1:
            pick = top
        mark[pick] = 1
        chosen[s] = pick
    filled = 0
    for p in range(m):
        if mark[p] == 0:
            rest[filled] = p
            filled += 1
