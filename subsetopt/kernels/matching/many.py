"""Swap search on many pools at once, in parallel over the pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from subsetopt.kernels.matching.interval import plain_distance
from subsetopt.kernels.matching.swap import (
    BUCKETS,
    F_BEST,
    F_CAPACITY,
    F_GOAL,
    F_SPAN,
    F_TARGET,
    I_KICK,
    I_UNSORTED,
    I_WORK,
    N_FLOATS,
    N_INTS,
    PAIRS,
    REACHED,
    UNFINISHED,
    search,
)
from subsetopt.kernels.threads import on_all_cores

__all__ = ["search_many"]


@njit(cache=True)
def _search_one(
    values, order, size, target, tolerance, entropy, limit, best, chunk, share, restart, unsorted
):
    """Search one pool as a plain search of its own would: chunk, bound, chunks to the limit.

    An unsorted pool without the bound.

    Returns whether the goal was reached, the lower bound, and the work done.
    """
    v = np.empty(values.size)
    least, most = np.inf, -np.inf
    for p in range(v.size):
        v[p] = values[order[p]]
        least, most = min(least, v[p]), max(most, v[p])
    none = np.empty(0, dtype=np.int64)
    ints = np.zeros(N_INTS, dtype=np.int64)
    ints[I_KICK] = restart
    ints[I_UNSORTED] = 1 if unsorted else 0
    floats = np.zeros(N_FLOATS)
    floats[F_BEST] = np.inf
    floats[F_GOAL] = share * tolerance
    floats[F_TARGET] = target
    floats[F_CAPACITY] = np.inf
    floats[F_SPAN] = most - least
    rng = np.empty(1, dtype=np.uint64)
    rng[0] = entropy
    sel = np.empty(size, dtype=np.int64)
    out = np.empty(v.size - size, dtype=np.int64)
    mark = np.empty(v.size, dtype=np.uint8)
    head = np.empty(BUCKETS, dtype=np.int16)
    pa = np.empty(PAIRS, dtype=np.int32)
    pb = np.empty(PAIRS, dtype=np.int32)
    pd = np.empty(PAIRS + 1)
    bound = -1.0
    work = chunk
    outcome = UNFINISHED
    while outcome == UNFINISHED and work > 0:
        outcome = search(
            v, sel, out, mark, best, head, pa, pb, pd, ints, floats, rng,
            none, none, none, none, np.empty(0), work,
        )  # fmt: skip
        if outcome == UNFINISHED and bound < 0.0 and not unsorted:
            bound = plain_distance(v, v.view(np.int64), size, target, 0.01 * tolerance)
            floats[F_GOAL] = bound + share * tolerance
            if floats[F_BEST] <= floats[F_GOAL]:
                outcome = REACHED
        work = min(chunk, limit - ints[I_WORK])
    return outcome == REACHED, max(0.0, bound), ints[I_WORK]


# Two loops, not one function compiled twice: the cache on disk tells functions by their name.
@njit(cache=True, parallel=True)
def _parallel(
    values, order, starts, sizes, places, targets, tolerances, entropies, limits, best, reached,
    bounds, spent, chunk, share, restarts, unsorted,
):  # fmt: skip
    for i in prange(sizes.size):
        reached[i], bounds[i], spent[i] = _search_one(
            values[starts[i] : starts[i + 1]], order[starts[i] : starts[i + 1]], sizes[i],
            targets[i], tolerances[i], entropies[i], limits[i], best[places[i] : places[i + 1]],
            chunk, share, restarts[i], unsorted[i],
        )  # fmt: skip


@njit(cache=True)
def _serial(
    values, order, starts, sizes, places, targets, tolerances, entropies, limits, best, reached,
    bounds, spent, chunk, share, restarts, unsorted,
):  # fmt: skip
    for i in range(sizes.size):
        reached[i], bounds[i], spent[i] = _search_one(
            values[starts[i] : starts[i + 1]], order[starts[i] : starts[i + 1]], sizes[i],
            targets[i], tolerances[i], entropies[i], limits[i], best[places[i] : places[i + 1]],
            chunk, share, restarts[i], unsorted[i],
        )  # fmt: skip


def search_many(*arguments: Any, parallel: bool = True) -> None:
    """Search every pool; on all cores, or serially on request and in forked children.

    Pool i is ``values[starts[i]:starts[i + 1]]``, made ascending by the same part of ``order``
    (left as it is where ``unsorted[i]``). Its chosen positions in that order go to
    ``best[places[i]:places[i + 1]]``, whether it reached its goal to ``reached[i]``, its lower
    bound to ``bounds[i]``, and its work to ``spent[i]``.
    """
    on_all_cores(_parallel, _serial, *arguments, wanted=parallel)
