"""Swap search on many pools at once, in parallel over the pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from subsetopt.kernels.limits import Limits
from subsetopt.kernels.matching.interval import plain_distance
from subsetopt.kernels.matching.swap import REACHED, UNFINISHED, search
from subsetopt.kernels.matching.swap_state import BUCKETS, MOVES, STATE, Subset, Table, reset
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
    v = values[order]
    m = v.size
    state = np.zeros(1, STATE)
    span = v.max() - v.min()
    reset(state, target, share * tolerance, span, 0.0, restart, False, unsorted)
    rng = np.empty(1, dtype=np.uint64)
    rng[0] = entropy
    none = np.empty(0, dtype=np.int64)
    limits = Limits(none, none, none, np.empty(0), np.inf)
    subset = Subset(
        np.empty(size, dtype=np.int64), np.empty(m - size, dtype=np.int64),
        np.empty(m, dtype=np.uint8), none, best,
    )  # fmt: skip
    table = Table(
        np.empty(BUCKETS, dtype=np.int16), np.empty(MOVES, dtype=np.int32),
        np.empty(MOVES, dtype=np.int32), np.empty(MOVES + 1),
    )  # fmt: skip
    now = state[0]
    bound = -1.0
    work = chunk
    outcome = UNFINISHED
    while outcome == UNFINISHED and work > 0:
        outcome = search(v, subset, limits, table, state, rng, work)
        if outcome == UNFINISHED and bound < 0.0 and not unsorted:
            bound = plain_distance(v, v.view(np.int64), size, target, 0.01 * tolerance)
            now.goal = bound + share * tolerance
            if now.best_distance <= now.goal:
                outcome = REACHED
        work = min(chunk, limit - now.work)
    return outcome == REACHED, max(0.0, bound), now.work


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
