"""Swap search on many pools at once, in parallel over the pools."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from subsetopt.kernels.compiling import njit
from subsetopt.kernels.limits import Limits
from subsetopt.kernels.matching.interval import plain_distance
from subsetopt.kernels.matching.swap import REACHED, UNFINISHED, search
from subsetopt.kernels.matching.swap_state import BUCKETS, MOVES, STATE, Subset, Table, reset
from subsetopt.kernels.matching.windows import DEPTH, NODE, Scratch
from subsetopt.kernels.threads import on_all_cores

__all__ = ["ROW", "search_many"]

#: One pool: where it lies in the arrays that all share, what is asked, and what came of it.
ROW = np.dtype(
    [
        ("first", np.int64),  # where its values begin, and their order
        ("end", np.int64),  # where they end, exclusive
        ("size", np.int64),  # how many values to choose
        ("place", np.int64),  # where the chosen positions begin
        ("target", np.float64),  # the sum to hit
        ("tolerance", np.float64),  # the distance from the sum that counts as none
        ("entropy", np.uint64),  # the seed of its random generator
        ("restart", np.int64),  # how to start anew, STRATIFIED or UNIFORM
        ("limit", np.int64),  # the most differences to look at
        ("work", np.int64),  # how many differences were looked at
        ("bound", np.float64),  # the lower bound on the distance; 0 where it is not proved
        ("unsorted", np.bool_),  # whether the values are left as they are, in no order
        ("reached", np.bool_),  # whether the distance reached its goal
    ],
    align=True,
)


@njit(cache=True)
def _search_one(values, order, row, best, chunk, share):
    """Search one pool as a plain search of its own would: chunk, bound, chunks to the limit.

    An unsorted pool without the bound.
    """
    v = values[row.first : row.end][order[row.first : row.end]]
    m, size, goal = v.size, row.size, share * row.tolerance
    state = np.empty(1, STATE)
    reset(state, row.target, goal, v.max() - v.min(), 0.0, row.restart, False, row.unsorted)
    rng = np.empty(1, dtype=np.uint64)
    rng[0] = row.entropy
    none = np.empty(0, dtype=np.int64)
    limits = Limits(none, none, none, np.empty(0), np.inf)
    subset = Subset(
        np.empty(size, dtype=np.int64), np.empty(m - size, dtype=np.int64),
        np.empty(m, dtype=np.uint8), none, best[row.place : row.place + size],
    )  # fmt: skip
    table = Table(
        np.empty(BUCKETS, dtype=np.int16), np.empty(MOVES, dtype=np.int32),
        np.empty(MOVES, dtype=np.int32), np.empty(MOVES + 1),
    )  # fmt: skip
    now = state[0]
    bounded = row.unsorted
    work = chunk
    outcome = UNFINISHED
    while outcome == UNFINISHED and work > 0:
        outcome = search(v, subset, limits, table, state, rng, work)
        if outcome == UNFINISHED and not bounded:
            bounded = True
            scratch = Scratch(np.empty(m + 1), np.empty(DEPTH, NODE))
            row.bound = plain_distance(
                v, v.view(np.int64), size, row.target, 0.01 * row.tolerance, scratch
            )
            now.goal = row.bound + goal
            if now.best_distance <= now.goal:
                outcome = REACHED
        work = min(chunk, row.limit - now.work)
    row.reached, row.work = outcome == REACHED, now.work


# Two loops, not one function compiled twice: the cache on disk tells functions by their name.
@njit(cache=True, parallel=True)
def _parallel(values, order, rows, best, chunk, share):
    for i in prange(rows.size):
        _search_one(values, order, rows[i], best, chunk, share)


@njit(cache=True)
def _serial(values, order, rows, best, chunk, share):
    for i in range(rows.size):
        _search_one(values, order, rows[i], best, chunk, share)


def search_many(
    values: NDArray[np.float64],
    order: NDArray[np.int64],
    rows: NDArray[Any],
    best: NDArray[np.int64],
    chunk: int,
    share: float,
    *,
    parallel: bool,
) -> None:
    """Search every pool; on all cores, or serially on request and in forked children.

    Parameters
    ----------
    values, order
        The values of all pools, one pool after the other, and the order within each, counted from
        its first value, that makes them ascending; as given where a pool is unsorted.
    rows
        A ``ROW`` for each pool, of which ``bound`` is 0; ``work``, ``bound`` and ``reached`` are
        written.
    best
        The chosen positions in the order of each pool, written.
    chunk
        Work after which a pool's bound is due.
    share
        The share of the tolerance that a search aims at.
    parallel
        Whether to use all cores.
    """
    on_all_cores(_parallel, _serial, values, order, rows, best, chunk, share, wanted=parallel)
