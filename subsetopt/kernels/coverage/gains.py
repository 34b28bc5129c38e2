"""Gains of facility location and distances of k-center, in parallel over candidates or points."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from subsetopt.kernels.compiling import njit
from subsetopt.kernels.threads import cores, share

__all__ = ["add_gains", "add_losses", "add_rises", "compile_all", "farthest"]

# Operations that one core takes on at a time, which take some milliseconds: with fewer, threads
# cost more time than they save.
_SHARE = 4_000_000
# Under a time limit a core takes on this share of it.
_IN_TIME = 4
# Values that are added up in their own precision, before their sum is added in double precision.
_RUN = 512
# What the compiler may assume: the inputs are finite, and sums may be taken in any order.
_FAST = {"reassoc", "contract", "nsz", "nnan"}


@njit(cache=True, alone=True, fastmath=_FAST)
def _gain(row, current):
    """Return the sum of what a row exceeds the current values by.

    Short runs are added up in the values' own precision, several values at a time, and their sums
    in double precision.
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


@njit(cache=True, alone=True, fastmath=_FAST)
def _loss(row, low, high):
    """Return by how much the gain of a row falls when the best values rise from low to high."""
    total, zero = 0.0, row.dtype.type(0.0)
    for first in range(0, row.size, _RUN):
        last = first + _RUN
        part, floor, ceiling = row[first:last], low[first:last], high[first:last]
        run = zero
        for i in range(part.size):
            reached = part[i] if part[i] < ceiling[i] else ceiling[i]
            more = reached - floor[i]
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
        share(
            lambda part: _gains(rows, picks, current, gains, *part),
            _parts(gains.size, current.size),
        )


@njit(cache=True, nogil=True)
def _losses(rows, low, high, losses, first, last):
    for c in range(first, last):
        losses[c] += _loss(rows[c], low, high)


def add_losses(rows: Any, low: Any, high: Any, losses: Any) -> None:
    """Add to ``losses[c]`` what the gain of row c loses when the best values rise to ``high``.

    This is the sum over i of ``max(rows[c, i] - low[i], 0) - max(rows[c, i] - high[i], 0)``, where
    ``low`` is nowhere above ``high``.
    """
    if low.size:
        share(lambda part: _losses(rows, low, high, losses, *part), _parts(losses.size, low.size))


@njit(cache=True, alone=True, nogil=True, fastmath=_FAST)
def _rises(rows, clients, low, high, totals, first, last):
    """Add the rises of clients by candidates ``first`` to ``last - 1``, four clients at a time.

    Differences are exact where they matter, and are added in double precision.
    """
    sums, double, c = totals[first:last], np.float64, 0
    while c + 4 <= clients.size:
        i0, i1, i2, i3 = clients[c], clients[c + 1], clients[c + 2], clients[c + 3]
        r0, r1 = rows[i0, first:last], rows[i1, first:last]
        r2, r3 = rows[i2, first:last], rows[i3, first:last]
        low0, low1, low2, low3 = low[i0], low[i1], low[i2], low[i3]
        top0, top1, top2, top3 = high[i0], high[i1], high[i2], high[i3]
        for j in range(sums.size):
            a, b, e, f = r0[j], r1[j], r2[j], r3[j]
            a, b = a if a > low0 else low0, b if b > low1 else low1
            e, f = e if e > low2 else low2, f if f > low3 else low3
            a, b = a if a < top0 else top0, b if b < top1 else top1
            e, f = e if e < top2 else top2, f if f < top3 else top3
            near, far = double(a - low0) + double(b - low1), double(e - low2) + double(f - low3)
            sums[j] += near + far
        c += 4
    while c < clients.size:
        i0 = clients[c]
        r0, low0, top0 = rows[i0, first:last], low[i0], high[i0]
        for j in range(sums.size):
            a = r0[j] if r0[j] > low0 else low0
            sums[j] += double((a if a < top0 else top0) - low0)
        c += 1


def add_rises(
    rows: Any, clients: Any, low: Any, high: Any, totals: Any, *, shared: bool = True
) -> None:
    """Add to ``totals[j]`` the sum over clients i of ``max(min(rows[i, j], high[i]) - low[i], 0)``.

    ``rows`` (n, m) is C-contiguous, of the dtype of ``low`` and ``high`` (n,), where low is nowhere
    above high; ``totals`` is float64. All cores work where that pays and ``shared`` allows it.
    """
    m, count = totals.size, 1 + clients.size * totals.size // _SHARE
    if count == 1 or not shared:
        _rises(rows, clients, low, high, totals, 0, m)
        return
    # Few wide parts: a core reads its share of each row in one go.
    count = min(cores(), count)
    bounds = [m * part // count for part in range(count + 1)]
    parts = list(pairwise(bounds))
    share(lambda part: _rises(rows, clients, low, high, totals, *part), parts)


def _parts(size: int, operations: int) -> list[tuple[int, int]]:
    """Return where the results that one core takes on at a time begin and end.

    ``size`` is the number of all results, each of which takes so many operations.
    """
    width = max(1, _SHARE // max(operations, 1))
    return [(first, min(first + width, size)) for first in range(0, size, width)]


@njit(cache=True, fastmath=_FAST)
def _square(x, y):
    """Return the squared distance of two points."""
    total = 0.0
    for a in range(x.size):
        difference = x[a] - y[a]
        total += difference * difference
    return total


@njit(cache=True)
def _lower(points, centers, i, floor, squares, seen):
    """Lower a squared distance by the centers not seen yet, while it is not below ``floor``.

    The latest centers come first: they are why a point that was far no longer is.
    """
    square, c = squares[i], centers.size
    while c > seen[i] and square >= floor:
        c -= 1
        square = min(square, _square(points[i], points[centers[c]]))
    if c == seen[i]:
        seen[i] = centers.size
    squares[i] = square
    return square


@njit(cache=True, nogil=True)
def _farthest(points, centers, allowed, floor, first, last, squares, seen):
    """Return the one of some candidates that is farthest from the centers, the first of equals.

    Squared distances below ``floor`` need not be exact.
    """
    top = allowed[first]
    for c in range(first + 1, last):
        if squares[allowed[c]] > squares[top]:
            top = allowed[c]
    best = max(floor, _lower(points, centers, top, floor, squares, seen))
    for c in range(first, last):
        i = allowed[c]
        if squares[i] >= best:
            square = _lower(points, centers, i, best, squares, seen)
            if square > best or (square == best and (i < top or squares[top] < best)):
                top, best = i, square
    return top


def farthest(
    points: Any,
    centers: Any,
    allowed: Any,
    squares: Any,
    seen: Any,
    expired: Callable[[], bool] | None = None,
) -> int | None:
    """Return the allowed point that is farthest from the centers, the first of equals.

    Distances never grow, so that one which is known to some centers bounds the one to all: only
    points that may be the farthest look at the rest.

    Parameters
    ----------
    points
        Coordinates, shape (n, d), float64.
    centers
        Indices of points, in the order in which they became centers.
    allowed
        Indices of points, not empty.
    squares, seen
        The squared distance of each point to the nearest of the first ``seen[i]`` centers, infinite
        for none, shape (n,). Brought up to date where needed; for the point returned they are.
    expired
        Whether time is up, which ends the search; None for no limit.

    Returns
    -------
    int or None
        The point; None when time was up before it was found.
    """
    width = max(points.shape[1], 1)
    if expired is not None:
        width *= _IN_TIME * max(1, centers.size - int(seen[allowed].min()))
    tops: list[int] = []
    skipped: list[bool] = []

    def look(part: tuple[int, int]) -> None:
        if expired is not None and expired():
            skipped.append(True)
            return
        floor = max((squares[i] for i in tops), default=-1.0)
        tops.append(_farthest(points, centers, allowed, floor, *part, squares, seen))

    share(look, _parts(allowed.size, width))
    return None if skipped else int(min(tops, key=lambda i: (-squares[i], i)))


def compile_all() -> None:
    """Compile for both precisions."""
    for dtype in (np.float32, np.float64):
        rows, gains = np.zeros((1, 2), dtype=dtype), np.zeros(1)
        add_gains(rows, np.zeros(1, np.int64), rows[0], gains)
        add_losses(rows, rows[0], rows[0], gains)
        add_rises(rows, np.zeros(1, np.int64), rows[0], rows[0], np.zeros(2))
