"""Swaps of a subset's members that keep every constraint: one by one, at random, towards a sum."""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.random_ import next_below

__all__ = ["NONE", "PATIENCE", "goes_together", "is_reached", "shuffle", "swap_positions", "walk"]

# Random swaps in a row that bring the sum no nearer to its target, after which it counts as near.
PATIENCE = 32
# The index of no move at all.
NONE = np.int64(-1)
# Work of a random swap: its candidates lie far apart in memory, outside the cache.
_FAR_READ = 4


@uncounted
def _residual(values, chosen, target):
    """Return target minus the sum of the chosen values, by compensated summation (Neumaier)."""
    total = 0.0
    lost = 0.0
    for a in range(chosen.size):
        x = values[chosen[a]]
        t = total + x
        if abs(total) >= abs(x):
            lost += (total - t) + x
        else:
            lost += (x - t) + total
        total = t
    return (target - total) - lost


@uncounted
def is_reached(values, subset, now):
    """Sum the subset up, keep it when it is the best so far, and tell whether the goal is met."""
    now.residual = _residual(values, subset.chosen, now.target)
    if abs(now.residual) < now.best_distance:
        now.best_distance = abs(now.residual)
        for a in range(subset.chosen.size):
            subset.best[a] = subset.chosen[a]
    return now.best_distance <= now.goal


@uncounted(forceinline=True)
def _share_a_position(table, p, q):
    """Whether two moves take the same position out or in; not if one of them is NONE."""
    if p < 0 or q < 0:
        return False
    return table.leaving[p] == table.leaving[q] or table.entering[p] == table.entering[q]


@uncounted
def goes_together(table, subset, limits, now, moves):
    """Whether the subset may make three moves of the table together; NONE stands for no move."""
    p, q, s = moves
    leaving, entering = table.leaving, table.entering
    if (
        _share_a_position(table, p, q)
        or _share_a_position(table, p, s)
        or _share_a_position(table, q, s)
    ):
        return False
    if limits.costs.size:
        cost = now.cost
        for move in moves:
            if move >= 0:
                cost += limits.costs[entering[move]] - limits.costs[leaving[move]]
        if cost > limits.capacity:
            return False
    return limits.codes.size == 0 or _keeps_quotas(table, subset.counts, limits, moves)


@uncounted
def _keeps_quotas(table, counts, limits, moves):
    """Whether the quotas hold once all moves are made; ``counts`` is left as it is."""
    codes = limits.codes
    for t in moves:
        if t >= 0:
            counts[codes[table.leaving[t]]] -= 1
            counts[codes[table.entering[t]]] += 1
    kept = True
    for t in moves:
        if t >= 0:
            g, h = codes[table.leaving[t]], codes[table.entering[t]]
            if counts[g] < limits.low[g] or counts[h] > limits.high[h]:
                kept = False
    for t in moves:
        if t >= 0:
            counts[codes[table.leaving[t]]] += 1
            counts[codes[table.entering[t]]] -= 1
    return kept


@uncounted(forceinline=True)
def _swap_places(a, b, subset, limits, now):
    """Swap the member at place a of the chosen with the position at place b of the rest."""
    i, j = subset.chosen[a], subset.rest[b]
    subset.chosen[a] = j
    subset.rest[b] = i
    subset.mark[i] = 0
    subset.mark[j] = 1
    if limits.costs.size:
        now.cost += limits.costs[j] - limits.costs[i]
    if limits.codes.size:
        subset.counts[limits.codes[i]] -= 1
        subset.counts[limits.codes[j]] += 1


@uncounted(forceinline=True)
def _is_allowed(i, j, subset, limits, now):
    """Whether position j may take the place of i."""
    if limits.costs.size and now.cost + limits.costs[j] - limits.costs[i] > limits.capacity:
        return False
    if limits.codes.size == 0 or limits.codes[i] == limits.codes[j]:
        return True
    g, h = limits.codes[i], limits.codes[j]
    return subset.counts[g] - 1 >= limits.low[g] and subset.counts[h] + 1 <= limits.high[h]


@uncounted
def shuffle(subset, limits, now, rng, steps):
    """Make random feasible swaps: the restart of a constrained search."""
    for _ in range(steps):
        a = next_below(rng, subset.chosen.size)
        b = next_below(rng, subset.rest.size)
        if _is_allowed(subset.chosen[a], subset.rest[b], subset, limits, now):
            _swap_places(a, b, subset, limits, now)


@uncounted
def walk(values, subset, limits, now, rng, steps):
    """Make random feasible swaps that bring the sum nearer to the target, until few do.

    A random subset is farther from the target than the three moves of a table reach. Counts the
    fruitless swaps in a row in ``now.tries``, and spends about ``steps`` of work; the residual is
    kept up to date but for rounding.
    """
    residual, failures = now.residual, now.tries
    work = 0
    while work < steps and failures < PATIENCE:
        work += _FAR_READ
        failures += 1
        a = next_below(rng, subset.chosen.size)
        b = next_below(rng, subset.rest.size)
        i, j = subset.chosen[a], subset.rest[b]
        remaining = residual - (values[j] - values[i])
        if abs(remaining) < abs(residual) and _is_allowed(i, j, subset, limits, now):
            _swap_places(a, b, subset, limits, now)
            residual = remaining
            failures = 0
    now.residual, now.tries = residual, failures
    now.work += work


@uncounted
def swap_positions(i, j, subset, limits, now):
    """Swap position i of the subset with position j of the rest."""
    a = 0
    while subset.chosen[a] != i:
        a += 1
    b = 0
    while subset.rest[b] != j:
        b += 1
    _swap_places(a, b, subset, limits, now)
    now.work += a + b
