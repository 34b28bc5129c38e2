"""Gains of facility location and distances of k-center, in parallel over candidates or points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from subsetopt.kernels.threads import on_all_cores

__all__ = ["add_gains", "compile_all", "relax"]

# Below this many operations, some milliseconds, threads do not pay: on a busy machine to start and
# join them takes as long.
_PARALLEL = 4_000_000


# The inputs are finite, and sums may be taken in any order.
_FAST = {"reassoc", "contract", "nsz", "nnan"}


@njit(cache=True, fastmath=_FAST)
def _gain(row, current):
    """Return the sum of what a row exceeds the current values by, in double precision."""
    total = np.float64(0.0)
    for i in range(row.size):
        total += max(np.float64(row[i]) - np.float64(current[i]), 0.0)
    return total


# Two loops, not one function compiled twice: the cache on disk tells functions by their name.
@njit(cache=True, parallel=True)
def _gains_parallel(rows, picks, current, gains):
    for c in prange(picks.size):
        gains[c] += _gain(rows[picks[c]], current)


@njit(cache=True)
def _gains_serial(rows, picks, current, gains):
    for c in range(picks.size):
        gains[c] += _gain(rows[picks[c]], current)


def add_gains(rows: Any, picks: Any, current: Any, gains: Any) -> None:
    """Add to ``gains[c]`` the sum over i of ``max(rows[picks[c], i] - current[i], 0)``.

    ``rows`` (m, n) is C-contiguous, of the dtype of ``current`` (n,); ``gains`` is float64.
    """
    if current.size:
        many = picks.size * current.size > _PARALLEL
        on_all_cores(_gains_parallel, _gains_serial, rows, picks, current, gains, wanted=many)


@njit(cache=True, fastmath=_FAST)
def _square(x, y):
    """Return the squared distance of two points."""
    total = 0.0
    for a in range(x.size):
        difference = x[a] - y[a]
        total += difference * difference
    return total


@njit(cache=True, parallel=True)
def _relax_parallel(points, center, squares):
    for i in prange(squares.size):
        squares[i] = min(squares[i], _square(points[i], center))


@njit(cache=True)
def _relax_serial(points, center, squares):
    for i in range(squares.size):
        squares[i] = min(squares[i], _square(points[i], center))


def relax(points: Any, center: Any, squares: Any) -> None:
    """Lower ``squares[i]`` to the squared distance of point i from a center, where it is less."""
    on_all_cores(
        _relax_parallel, _relax_serial, points, center, squares, wanted=points.size > _PARALLEL
    )


def compile_all() -> None:
    """Compile the parallel kernels too, which only large problems use."""
    for dtype in (np.float32, np.float64):
        rows, gains = np.zeros((1, 2), dtype=dtype), np.zeros(1)
        on_all_cores(_gains_parallel, _gains_serial, rows, np.zeros(1, np.int64), rows[0], gains)
    points = np.zeros((1, 2))
    on_all_cores(_relax_parallel, _relax_serial, points, points[0], np.zeros(1))
