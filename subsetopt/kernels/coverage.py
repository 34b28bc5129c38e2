"""Gains of facility location and distances of k-center, in parallel over candidates or points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from subsetopt.kernels.threads import share

__all__ = ["add_gains", "add_losses", "compile_all", "relax"]

# Operations that one core takes on at a time, some milliseconds: with fewer, threads do not pay.
_SHARE = 4_000_000
# Values added up in their own precision.
_RUN = 512
# The inputs are finite, and sums may be taken in any order.
_FAST = {"reassoc", "contract", "nsz", "nnan"}


@njit(cache=True, fastmath=_FAST)
def _gain(row, current):
    """Return the sum of what a row exceeds the current values by.

    In the values' own precision over short runs, which are done several at a time, and in double
    precision over these.
    """
    total, zero = 0.0, row.dtype.type(0.0)
    for first in range(0, row.size, _RUN):
        part, best = row[first : first + _RUN], current[first : first + _RUN]
        run = zero
        for i in range(part.size):
            more = part[i] - best[i]
            run += more if more > zero else zero
        total += run
    return total


@njit(cache=True, fastmath=_FAST)
def _loss(row, before, now):
    """Return by how much the gain of a row has fallen since its best values were ``before``."""
    total, zero = 0.0, row.dtype.type(0.0)
    for first in range(0, row.size, _RUN):
        last = first + _RUN
        part, low, high = row[first:last], before[first:last], now[first:last]
        run = zero
        for i in range(part.size):
            reached = part[i] if part[i] < high[i] else high[i]
            more = reached - low[i]
            run += more if more > zero else zero
        total += run
    return total


@njit(cache=True, nogil=True)
def _gains(rows, picks, current, gains, first, last):
    for c in range(first, last):
        gains[c] += _gain(rows[picks[c]], current)


def add_gains(rows: Any, picks: Any, current: Any, gains: Any) -> None:
    """Add to ``gains[c]`` the sum over i of ``max(rows[picks[c], i] - current[i], 0)``.

    ``rows`` (m, n) is C-contiguous, of the dtype of ``current`` (n,); ``gains`` is float64.
    """
    if current.size:
        share(lambda part: _gains(rows, picks, current, gains, *part), _parts(gains, current))


@njit(cache=True, nogil=True)
def _losses(rows, before, now, losses, first, last):
    for c in range(first, last):
        losses[c] += _loss(rows[c], before, now)


def add_losses(rows: Any, before: Any, now: Any, losses: Any) -> None:
    """Add to ``losses[c]`` what the gain of row c lost when the best values rose.

    The sum over i of ``max(rows[c, i] - before[i], 0) - max(rows[c, i] - now[i], 0)``, where
    ``now`` is nowhere below ``before``.
    """
    if before.size:
        share(lambda part: _losses(rows, before, now, losses, *part), _parts(losses, before))


def _parts(results: Any, row: Any) -> list[tuple[int, int]]:
    """Return first and last of the results that one core takes on at a time."""
    width = max(1, _SHARE // row.size)
    return [(first, min(first + width, results.size)) for first in range(0, results.size, width)]


@njit(cache=True, fastmath=_FAST)
def _square(x, y):
    """Return the squared distance of two points."""
    total = 0.0
    for a in range(x.size):
        difference = x[a] - y[a]
        total += difference * difference
    return total


@njit(cache=True, nogil=True)
def _relax(points, center, squares, first, last):
    for i in range(first, last):
        squares[i] = min(squares[i], _square(points[i], center))


def relax(points: Any, center: Any, squares: Any) -> None:
    """Lower ``squares[i]`` to the squared distance of point i from a center, where it is less."""
    share(lambda part: _relax(points, center, squares, *part), _parts(squares, center))


def compile_all() -> None:
    """Compile for both precisions."""
    for dtype in (np.float32, np.float64):
        rows, gains = np.zeros((1, 2), dtype=dtype), np.zeros(1)
        add_gains(rows, np.zeros(1, np.int64), rows[0], gains)
        add_losses(rows, rows[0], rows[0], gains)
