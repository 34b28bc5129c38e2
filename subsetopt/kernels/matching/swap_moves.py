"""Swaps of a subset's members that keep every constraint: one by one, at random, towards a sum."""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.matching.swap_state import F_BEST, F_CAPACITY, F_COST, F_RESIDUAL
from subsetopt.kernels.random_ import next_below

__all__ = [
    "PATIENCE",
    "fits",
    "remember",
    "residual",
    "shuffle",
    "swap_positions",
    "walk",
]

# Random swaps in a row that bring the target no nearer: then it is near.
PATIENCE = 32
# Work of a random swap: of many candidates, none lies in the cache.
_FAR_READ = 4


@njit(cache=True)
def residual(v, sel, target):
    """Return target minus the sum of the chosen values, by compensated summation (Neumaier)."""
    total = 0.0
    lost = 0.0
    for a in range(sel.size):
        x = v[sel[a]]
        t = total + x
        if abs(total) >= abs(x):
            lost += (total - t) + x
        else:
            lost += (x - t) + total
        total = t
    return (target - total) - lost


@njit(cache=True)
def remember(sel, best, floats):
    """Keep the current subset when it is the best so far."""
    if abs(floats[F_RESIDUAL]) < floats[F_BEST]:
        floats[F_BEST] = abs(floats[F_RESIDUAL])
        for a in range(sel.size):
            best[a] = sel[a]


@njit(cache=True)
def fits(p, q, floats, codes, low, high, count, costs, pa, pb, third):
    """Whether the moves p, q, third (indices into the pair list, -1: none) go together."""
    moves = (np.int64(p), np.int64(q), np.int64(third))
    a1, b1 = pa[p], pb[p]
    if q >= 0:
        if pa[q] == a1 or pb[q] == b1:
            return False
        if third >= 0 and (
            pa[third] == a1 or pb[third] == b1 or pa[third] == pa[q] or pb[third] == pb[q]
        ):
            return False
    if costs.size:
        cost = floats[F_COST]
        for t in moves:
            if t >= 0:
                cost += costs[pb[t]] - costs[pa[t]]
        if cost > floats[F_CAPACITY]:
            return False
    if codes.size:
        for t in moves:
            if t >= 0:
                count[codes[pa[t]]] -= 1
                count[codes[pb[t]]] += 1
        good = True
        for t in moves:
            if t >= 0:
                g, h = codes[pa[t]], codes[pb[t]]
                if count[g] < low[g] or count[h] > high[h]:
                    good = False
        for t in moves:
            if t >= 0:
                count[codes[pa[t]]] += 1
                count[codes[pb[t]]] -= 1
        return good
    return True


@njit(cache=True)
def apply(a, b, sel, out, mark, floats, codes, count, costs):
    """Swap member a of the subset with member b of the rest."""
    i, j = sel[a], out[b]
    sel[a] = j
    out[b] = i
    mark[i] = 0
    mark[j] = 1
    if costs.size:
        floats[F_COST] += costs[j] - costs[i]
    if codes.size:
        count[codes[i]] -= 1
        count[codes[j]] += 1


@njit(cache=True)
def _allowed(i, j, floats, codes, low, high, count, costs):
    """Whether position j may take the place of i."""
    if costs.size and floats[F_COST] + costs[j] - costs[i] > floats[F_CAPACITY]:
        return False
    if codes.size == 0 or codes[i] == codes[j]:
        return True
    g, h = codes[i], codes[j]
    return count[g] - 1 >= low[g] and count[h] + 1 <= high[h]


@njit(cache=True)
def shuffle(sel, out, mark, floats, codes, low, high, count, costs, rng, steps):
    """Make random feasible swaps: the restart of a constrained search."""
    for _ in range(steps):
        a = next_below(rng, sel.size)
        b = next_below(rng, out.size)
        i, j = sel[a], out[b]
        if not _allowed(i, j, floats, codes, low, high, count, costs):
            continue
        apply(a, b, sel, out, mark, floats, codes, count, costs)


@njit(cache=True)
def walk(v, sel, out, mark, floats, codes, low, high, count, costs, rng, failures, steps):
    """Make random feasible swaps that bring the sum nearer to the target, until few do.

    The residual of a random subset is that of many moves, and a table holds three. Returns the
    failures in a row and the work, about ``steps``; the residual is up to date but for rounding.
    """
    done = 0
    while done < steps and failures < PATIENCE:
        done += _FAR_READ
        failures += 1
        a = next_below(rng, sel.size)
        b = next_below(rng, out.size)
        i, j = sel[a], out[b]
        rest = floats[F_RESIDUAL] - (v[j] - v[i])
        if abs(rest) >= abs(floats[F_RESIDUAL]):
            continue
        if not _allowed(i, j, floats, codes, low, high, count, costs):
            continue
        apply(a, b, sel, out, mark, floats, codes, count, costs)
        floats[F_RESIDUAL] = rest
        failures = 0
    return failures, done


@njit(cache=True)
def swap_positions(i, j, sel, out, mark, floats, codes, count, costs):
    """Swap position i of the subset with position j of the rest."""
    a = 0
    while sel[a] != i:
        a += 1
    b = 0
    while out[b] != j:
        b += 1
    apply(a, b, sel, out, mark, floats, codes, count, costs)
    return a + b
