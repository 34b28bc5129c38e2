"""Scored matching around a Lagrangian optimum: cheapest exchanges in order, and swap repair.

The helpers of the loops are inlined by force: a call that passes tuples of arrays copies all that
describes them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.array_types import Floats, Ints
from subsetopt.kernels.arrays import copy
from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.random_ import next_below

__all__ = [
    "PLACE",
    "Allowed",
    "Candidates",
    "Flips",
    "Pass",
    "Swapped",
    "enumerate_flips",
    "repair",
]


class Flips(NamedTuple):
    """The m candidates that may be put in or taken out, by ascending price."""

    prices: Floats  #: (m,) the price of each flip, at least 0
    moves: Floats  #: (m,) what each adds to the sum of losses
    gains: Floats  #: (m,) what each adds to the score
    signs: Ints  #: (m,) what each adds to the size, 1 or -1
    codes: Ints  #: (m,) the group of each candidate
    spends: Floats  #: (m,) what each adds to the cost
    first_in: Ints  #: (m + 1,) how many of the flips before a position put in
    first_out: Ints  #: (m + 1,) how many of the flips before a position take out
    price_in: Floats  #: cumulated prices of the flips that put in, from 0
    price_out: Floats  #: cumulated prices of the flips that take out, from 0
    up: Floats  #: (m,) how far per price the flips from a position on raise the sum at most
    down: Floats  #: (m,) how far per price they lower it at most


class Allowed(NamedTuple):
    """What a subset has to keep to."""

    window: Floats  #: (2,) the least and the greatest sum of losses
    capacity: float  #: the greatest sum of costs
    least: int  #: the least size
    most: int  #: the greatest size
    low: Ints  #: (g,) the least count of each group
    high: Ints  #: (g,) the greatest count of each group


# Where an enumeration stands: how many flips are set, the next one to try, the subset's size.
PLACE = np.dtype([("depth", np.int64), ("next", np.int64), ("size", np.int64)])


class Pass(NamedTuple):
    """The state of one enumeration, changed in place."""

    place: NDArray[np.void]  #: (1,) of type PLACE
    counts: Ints  #: (g,) the count of each group
    stack: Ints  #: (m + 1,) the flips that are set
    paid: Floats  #: (m + 1,) the total price at every depth
    moved: Floats  #: (m + 1,) the change of the sum of losses at every depth
    gained: Floats  #: (m + 1,) the change of the score at every depth
    spent: Floats  #: (m + 1,) the total cost at every depth
    best: Ints  #: (m + 1,) the best set of flips so far, its length last, -1 for none


class Candidates(NamedTuple):
    """All n candidates; losses and costs in units of comparable size."""

    scores: Floats  #: (n,) the score of each
    losses: Floats  #: (n,) the loss of each
    codes: Ints  #: (n,) the group of each
    costs: Floats  #: (n,) the cost of each


class Swapped(NamedTuple):
    """The subset that is repaired, changed in place."""

    inside: Ints  #: the candidates in the subset that may be taken out
    outside: Ints  #: the candidates out of it that may be put in
    counts: Ints  #: (g,) the count of each group
    totals: Floats  #: (2,) the sums of losses and of costs
    best: Ints  #: the inside of the best subset within the band


@uncounted(forceinline=True)
def _price_from(first, cumulated, start, count):
    """Return the least price of ``count`` flips of one kind from a position on; inf for none."""
    start = first[start]
    if start + count < cumulated.size:
        return cumulated[start + count] - cumulated[start]
    return np.inf


@uncounted(forceinline=True)
def _promising(at, depth, size, limit, flips, allowed, state):
    """Whether a set with the flip at a position next may stay below the limit and in the band."""
    paid, moved = state.paid[depth], state.moved[depth]
    total = paid + flips.prices[at]
    # What restoring the size costs at least, with flips from here on.
    if size < allowed.least:
        lacking = allowed.least - size
        total = max(total, paid + _price_from(flips.first_in, flips.price_in, at, lacking))
    elif size > allowed.most:
        excess = size - allowed.most
        total = max(total, paid + _price_from(flips.first_out, flips.price_out, at, excess))
    if total >= limit:
        return False
    # What the price that is left can move the sum by: is the band still within reach?
    rest = limit - paid
    short, over = allowed.window[0] - moved, moved - allowed.window[1]
    if short > 0.0:
        return short <= rest * flips.up[at]
    return over <= 0.0 or over <= rest * flips.down[at]


@uncounted(forceinline=True)
def _keeps(depth, size, allowed, state):
    """Whether the present set of flips is within the band and keeps to the constraints."""
    if not (
        allowed.least <= size <= allowed.most
        and allowed.window[0] <= state.moved[depth] <= allowed.window[1]
        and state.spent[depth] <= allowed.capacity
    ):
        return False
    for g in range(allowed.low.size):
        if state.counts[g] < allowed.low[g] or state.counts[g] > allowed.high[g]:
            return False
    return True


@uncounted(forceinline=True)
def _set_flip(at, depth, flips, state):
    """Add a flip to the present set, at the end."""
    state.stack[depth] = at
    state.paid[depth + 1] = state.paid[depth] + flips.prices[at]
    state.moved[depth + 1] = state.moved[depth] + flips.moves[at]
    state.gained[depth + 1] = state.gained[depth] + flips.gains[at]
    state.spent[depth + 1] = state.spent[depth] + flips.spends[at]
    state.counts[flips.codes[at]] += flips.signs[at]


@uncounted
def enumerate_flips(flips, allowed, state, value, price, top, work):
    """Visit sets of flips in depth-first order while their total price stays below a limit.

    Parameters
    ----------
    flips, allowed, state
        The fields of Flips, Allowed and Pass as plain tuples: calls with named ones take longer.
    value
        The best gain so far; a set has to exceed it.
    price
        What a set must stay below.
    top
        The most that a gain can be for price 0; it falls with the price.
    work
        Nodes to visit.

    Returns
    -------
    tuple
        Nodes visited, and whether the enumeration is complete.
    """
    flips, allowed = Flips(*flips), Allowed(*allowed)
    state = Pass(*state)
    place = state.place[0]
    m = flips.prices.size
    depth, at, size = place.depth, place.next, place.size
    visited, done = 0, False
    while visited < work:
        promising = False
        if at < m:
            visited += 1
            limit = min(price, top - value)
            promising = _promising(at, depth, size, limit, flips, allowed, state)
        if promising:
            _set_flip(at, depth, flips, state)
            size += flips.signs[at]
            depth += 1
            at += 1
            if state.gained[depth] > value and _keeps(depth, size, allowed, state):
                value = state.gained[depth]
                state.best[m] = depth
                copy(state.stack[:depth], state.best[:depth])
        elif depth > 0:
            depth -= 1
            at = state.stack[depth]
            size -= flips.signs[at]
            state.counts[flips.codes[at]] -= flips.signs[at]
            at += 1
        else:
            done = True
            break
    place.depth, place.next, place.size = depth, at, size
    return visited, done


@uncounted(forceinline=True)
def _excess(total, spent, allowed):
    """Return how far a subset is from the band and over the capacity."""
    outside = max(0.0, allowed.window[0] - total, total - allowed.window[1])
    return outside + max(0.0, spent - allowed.capacity)


@uncounted(forceinline=True)
def _swappable(i, j, codes, allowed, counts):
    """Whether the groups allow j in place of i."""
    a, b = codes[i], codes[j]
    return a == b or (counts[a] > allowed.low[a] and counts[b] < allowed.high[b])


@uncounted(forceinline=True)
def _best_swap(candidates, allowed, subset, excess, rng, pairs):
    """Return the swap that comes nearest the band, then gains most; and its gain, -1 for none.

    All pairs are looked at when there are no more than ``pairs``, else as many at random.
    """
    scores, losses, costs = candidates.scores, candidates.losses, candidates.costs
    size, rest, totals = subset.inside.size, subset.outside.size, subset.totals
    nearest, gain, leaving, entering = excess, 0.0, -1, -1
    every = size * rest <= pairs
    for trial in range(size * rest if every else pairs):
        a = trial // rest if every else next_below(rng, size)
        b = trial % rest if every else next_below(rng, rest)
        i, j = subset.inside[a], subset.outside[b]
        total, spent = totals[0] + losses[j] - losses[i], totals[1] + costs[j] - costs[i]
        after = _excess(total, spent, allowed)
        more = scores[j] - scores[i]
        if after > nearest or (after == nearest and more <= gain):
            continue
        if _swappable(i, j, candidates.codes, allowed, subset.counts):
            nearest, gain, leaving, entering = after, more, a, b
    return leaving, entering, gain


@uncounted
def _climb(candidates, allowed, subset, best_score, rng, pairs, work):
    """Swap until no swap is better, or the work is done; return the best score and the work."""
    score, looked = 0.0, 0
    for a in range(subset.inside.size):
        score += candidates.scores[subset.inside[a]]
    every = subset.inside.size * subset.outside.size
    while looked < work:
        excess = _excess(subset.totals[0], subset.totals[1], allowed)
        if excess <= 0.0 and score > best_score:
            best_score = score
            copy(subset.inside, subset.best)
        a, b, gain = _best_swap(candidates, allowed, subset, excess, rng, pairs)
        looked += min(every, pairs)
        if a < 0:
            break
        score += gain
        _swap(a, b, candidates, subset)
    return best_score, looked


@uncounted
def repair(candidates, allowed, subset, best_score, rng, pairs, work):
    """Swap towards the band, then for score within it; kick at every local optimum.

    Parameters
    ----------
    candidates, allowed, subset
        The fields of Candidates, Allowed and Swapped as plain tuples: calls with named ones take
        longer.
    best_score
        The score of the best subset within the band.
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
    candidates, allowed = Candidates(*candidates), Allowed(*allowed)
    subset = Swapped(*subset)
    size, rest = subset.inside.size, subset.outside.size
    looked = 0
    while looked < work:
        best_score, climbed = _climb(
            candidates, allowed, subset, best_score, rng, pairs, work - looked
        )
        looked += climbed
        for _ in range(3):
            a, b = next_below(rng, size), next_below(rng, rest)
            looked += 1
            i, j = subset.inside[a], subset.outside[b]
            if _swappable(i, j, candidates.codes, allowed, subset.counts):
                _swap(a, b, candidates, subset)
    return best_score, looked


@uncounted(forceinline=True)
def _swap(a, b, candidates, subset):
    """Exchange two candidates."""
    losses, costs, codes = candidates.losses, candidates.costs, candidates.codes
    i, j = subset.inside[a], subset.outside[b]
    subset.inside[a], subset.outside[b] = j, i
    subset.totals[0] += losses[j] - losses[i]
    subset.totals[1] += costs[j] - costs[i]
    subset.counts[codes[i]] -= 1
    subset.counts[codes[j]] += 1
