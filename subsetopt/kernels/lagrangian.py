"""Scored matching around a Lagrangian optimum: cheapest exchanges in order, and swap repair."""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.random_ import next_below

__all__ = ["DEPTH", "NEXT", "N_INTS", "SIZE", "enumerate_flips", "repair"]

# Slots of the state that enumeration carries from chunk to chunk.
DEPTH, NEXT, SIZE, N_INTS = 0, 1, 2, 3


@njit(cache=True)
def enumerate_flips(
    prices, moves, gains, signs, codes, spends, first_in, first_out, price_in, price_out,
    up, down, window, capacity, least, most, low, high, counts, ints, stack, paid, moved, gained,
    spent, best, limits, work,
):  # fmt: skip
    """Visit sets of flips in depth-first order while their total price stays below a limit.

    A flip puts a candidate in (sign 1) or out (-1). Flips are ordered by their price, at least 0.

    Parameters
    ----------
    prices, moves, gains, signs, codes, spends
        (m,) per flip: price, change of the sum of losses, of the score, of the size, group, change
        of the cost.
    first_in, first_out
        (m + 1,) how many of the flips before a position put in, or out.
    price_in, price_out
        Cumulated prices of the flips in, and of those out, from 0.
    up, down
        (m,) how far up, or down, the flips from a position on move the sum per price at most.
    window, capacity
        The changes of the sum of losses that are within the band, and the greatest of the cost.
    least, most, low, high, counts
        Range of the size; least and greatest count per group, and the counts now.
    ints, stack, paid, moved, gained, spent
        State: depth, next flip and size; flips set; totals at every depth.
    best
        (m + 1,) the best set of flips, its length last.
    limits
        The best gain so far; the price that a set must stay below; the most that a gain can be
        for price 0.
    work
        Nodes to visit.

    Returns
    -------
    tuple
        Nodes visited, and whether the enumeration is complete.
    """
    m = prices.size
    depth, at, size = ints[DEPTH], ints[NEXT], ints[SIZE]
    visited = 0
    done = False
    while visited < work:
        limit = min(limits[1], limits[2] - limits[0])
        descend = False
        if at < m:
            visited += 1
            total = paid[depth] + prices[at]
            # What restoring the size costs at least, with flips from here on.
            lacking = least - size
            if lacking > 0:
                start = first_in[at]
                if start + lacking < price_in.size:
                    need = price_in[start + lacking] - price_in[start]
                    total = max(total, paid[depth] + need)
                else:
                    total = np.inf
            elif size > most:
                start = first_out[at]
                if start + size - most < price_out.size:
                    need = price_out[start + size - most] - price_out[start]
                    total = max(total, paid[depth] + need)
                else:
                    total = np.inf
            descend = total < limit
            if descend:
                # What the price left can move the sum by: is the band still within reach?
                rest = limit - paid[depth]
                short, over = window[0] - moved[depth], moved[depth] - window[1]
                if short > 0.0:
                    descend = short <= rest * up[at]
                elif over > 0.0:
                    descend = over <= rest * down[at]
        if not descend:
            if depth == 0:
                done = True
                break
            depth -= 1
            at = stack[depth]
            size -= signs[at]
            counts[codes[at]] -= signs[at]
            at += 1
            continue
        stack[depth] = at
        paid[depth + 1] = paid[depth] + prices[at]
        moved[depth + 1] = moved[depth] + moves[at]
        gained[depth + 1] = gained[depth] + gains[at]
        spent[depth + 1] = spent[depth] + spends[at]
        size += signs[at]
        counts[codes[at]] += signs[at]
        depth += 1
        at += 1
        if (
            least <= size <= most
            and window[0] <= moved[depth] <= window[1]
            and gained[depth] > limits[0]
            and spent[depth] <= capacity
        ):
            fits = True
            for g in range(low.size):
                if counts[g] < low[g] or counts[g] > high[g]:
                    fits = False
            if fits:
                limits[0] = gained[depth]
                best[m] = depth
                for a in range(depth):
                    best[a] = stack[a]
    ints[DEPTH], ints[NEXT], ints[SIZE] = depth, at, size
    return visited, done


@njit(cache=True)
def _excess(total, spent, window, capacity):
    """Return how far a subset is from the band and over the capacity."""
    return max(0.0, window[0] - total, total - window[1]) + max(0.0, spent - capacity)


@njit(cache=True)
def _swappable(i, j, codes, low, high, counts):
    """Whether the groups allow j in place of i."""
    a, b = codes[i], codes[j]
    return a == b or (counts[a] > low[a] and counts[b] < high[b])


@njit(cache=True)
def repair(
    scores, losses, codes, costs, inside, outside, counts, low, high, window, capacity, totals,
    best, best_score, rng, pairs, work,
):  # fmt: skip
    """Swap towards the band, then for score within it; kick at every local optimum.

    Parameters
    ----------
    scores, losses, codes, costs
        (m,) per candidate; losses and costs in units of comparable size.
    inside, outside
        Candidates in and out of the subset, changed in place.
    counts, low, high
        Count per group, changed in place, and its range.
    window, capacity
        The sums of losses within the band, and the greatest sum of costs.
    totals
        (2,) sum of losses and of costs of the subset, changed in place.
    best, best_score
        The best subset within the band, changed in place, and its score.
    rng
        State of the generator.
    pairs
        Pairs looked at for one swap: all of them when there are no more.
    work
        Pairs to look at.

    Returns
    -------
    tuple
        The best score and the pairs looked at.
    """
    size, rest = inside.size, outside.size
    looked = 0
    while looked < work:
        score = 0.0
        for a in range(size):
            score += scores[inside[a]]
        while looked < work:
            excess = _excess(totals[0], totals[1], window, capacity)
            if excess <= 0.0 and score > best_score:
                best_score = score
                best[:] = inside
            near, most, take, put = excess, 0.0, -1, -1
            every = size * rest <= pairs
            trials = size * rest if every else pairs
            looked += trials
            for trial in range(trials):
                a = trial // rest if every else next_below(rng, size)
                b = trial % rest if every else next_below(rng, rest)
                i, j = inside[a], outside[b]
                after = _excess(
                    totals[0] + losses[j] - losses[i], totals[1] + costs[j] - costs[i],
                    window, capacity,
                )  # fmt: skip
                gain = scores[j] - scores[i]
                if after > near or (after == near and gain <= most):
                    continue
                if _swappable(i, j, codes, low, high, counts):
                    near, most, take, put = after, gain, a, b
            if take < 0:
                break
            score += most
            _swap(take, put, losses, codes, costs, inside, outside, counts, totals)
        for _ in range(3):
            a, b = next_below(rng, size), next_below(rng, rest)
            looked += 1
            if _swappable(inside[a], outside[b], codes, low, high, counts):
                _swap(a, b, losses, codes, costs, inside, outside, counts, totals)
    return best_score, looked


@njit(cache=True)
def _swap(a, b, losses, codes, costs, inside, outside, counts, totals):
    """Exchange two candidates."""
    i, j = inside[a], outside[b]
    inside[a], outside[b] = j, i
    totals[0] += losses[j] - losses[i]
    totals[1] += costs[j] - costs[i]
    counts[codes[i]] -= 1
    counts[codes[j]] += 1
