"""The nearest chosen point of every point, in float64 and in pieces that stay in the cache.

Pieces are so small that BLAS works on each with one thread; pieces are shared among threads that
sleep while they wait. Threads of BLAS wait for each other busily, which takes up to a hundred times
as long where other processes keep the cores busy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.threads import cores, share

__all__ = [
    "PIECE",
    "farthest_square",
    "largest_products",
    "mend",
    "nearest_squares",
    "sampled",
    "seconds_for_all",
    "sum_of_parts",
]

# Multiplications of a product: OpenBLAS takes on as many with one thread.
PIECE = 1 << 18
# Multiplications of one thread's part, which take about two milliseconds.
_PART = 1 << 25
# Multiplications that the time of an evaluation is measured with, and those from which on it is.
_SAMPLE, _QUICK = 1 << 20, 1 << 22
# What further threads add to the speed of one, each.
_SPEEDUP = 0.6
# The time kept for an evaluation is longer than the measured one by this factor.
_CAUTION = 1.25
# Rows that are looked at first, to know of most others soon that they are not the farthest.
_SAMPLED = 64
# Rows that are looked at together, and the chosen points that they are compared with at first; the
# next time these are twice as many.
_ROWS, _FIRST = 2048, 16
# Relative rounding in double precision.
_ROUNDING = float(np.finfo(np.float64).eps)


def sampled(n: int, count: int) -> NDArray[np.int64]:
    """Return up to ``count`` of n positions, evenly spread."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, count)).astype(np.int64))


def sum_of_parts(evaluate: Callable[[slice], float], n: int, work: int) -> float:
    """Return the sum over parts of n rows, computed on all cores.

    Parameters
    ----------
    evaluate
        Returns the sum over some rows.
    n
        Number of rows.
    work
        Multiplications that each row takes.
    """
    size = max(1, _PART // max(work, 1))
    parts = [slice(first, min(first + size, n)) for first in range(0, n, size)]
    sums = np.zeros(len(parts))

    def run(number: int) -> None:
        sums[number] = evaluate(parts[number])

    share(run, range(len(parts)))
    return float(sums.sum())


def seconds_for_all(
    evaluate: Callable[[slice], float],
    n: int,
    work: int,
    clock: Callable[[], float],
    rows: int | None = None,
) -> float:
    """Return about how many seconds the evaluation of n rows takes, by the time of a few.

    Parameters
    ----------
    evaluate, n, work
        The arguments of :func:`sum_of_parts`.
    clock
        Monotonic clock in seconds.
    rows
        How many rows to take the time of; None for about a million multiplications.
    """
    if n * work < _QUICK:
        return 0.0
    count = min(n, max(1, _SAMPLE // work) if rows is None else rows)
    evaluate(slice(0, count))  # The first call takes longer.
    start = clock()
    evaluate(slice(0, count))
    seconds = (clock() - start) * n / count
    if n * work > _PART:
        seconds /= 1.0 + _SPEEDUP * (cores() - 1)
    return _CAUTION * seconds


def largest_products(
    rows: NDArray[np.float64],
    chosen: NDArray[np.float64],
    offsets: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the largest product of every row with a chosen point, each plus its offset.

    Minus infinity without any chosen point.
    """
    largest = np.full(rows.shape[0], -np.inf)
    room = max(1, PIECE // max(rows.shape[1], 1))
    width = max(1, min(math.isqrt(room), chosen.shape[0]))
    height = room // width
    for start in range(0, rows.shape[0], height):
        part = rows[start : start + height].T
        best = largest[start : start + height]
        for first in range(0, chosen.shape[0], width):
            products = chosen[first : first + width] @ part
            if offsets is not None:
                products += offsets[first : first + width, None]
            np.maximum(best, products.max(axis=0), out=best)
    return largest


def nearest_squares(
    rows: NDArray[np.float64], chosen: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the squared distance of every row to its nearest chosen point, and its magnitude.

    The distance is made from products, which is fast, but rounds relative to the magnitude: the sum
    of the squared norms of the row and of the longest chosen point. Infinity without any.
    """
    squares, chosen_squares = (np.einsum("ij,ij->i", x, x) for x in (rows, chosen))
    nearest: NDArray[np.float64] = squares - 2.0 * largest_products(
        rows, chosen, -0.5 * chosen_squares
    )
    return nearest, squares + chosen_squares.max(initial=0.0)


def farthest_square(points: NDArray[np.float64], chosen: NDArray[np.float64]) -> float:
    """Return the largest squared distance of a point to its nearest chosen one, by differences.

    Most points are soon known to be nearer than the farthest of those looked at before. Products
    tell so, up to their rounding; what decides is computed by differences.
    """
    few = points[sampled(points.shape[0], _SAMPLED)]
    nearest, magnitudes = nearest_squares(few, chosen)
    least = float((nearest - _rounding(points) * magnitudes).max(initial=0.0))
    worst = [0.0]

    def look(first: int) -> None:
        rows = _suspects(points[first : first + _ROWS], chosen, max(least, worst[-1]))
        square = float(_squares_by_differences(rows, chosen).max(initial=0.0))
        if square > worst[-1]:
            worst.append(square)

    share(look, range(0, points.shape[0], _ROWS))
    return max(worst)


def _rounding(points: NDArray[np.float64]) -> float:
    """Return by which share of their magnitude squared distances from products are off at most."""
    return float(8.0 * (points.shape[1] + 4) * _ROUNDING)


def _suspects(
    rows: NDArray[np.float64], chosen: NDArray[np.float64], least: float
) -> NDArray[np.float64]:
    """Return the rows that may be the farthest, at a squared distance of ``least`` or more."""
    rounding = _rounding(rows)
    nearest, slack = np.full(rows.shape[0], np.inf), np.zeros(rows.shape[0])
    first, count = 0, _FIRST
    while first < chosen.shape[0] and rows.size:
        squares, magnitudes = nearest_squares(rows, chosen[first : first + count])
        np.minimum(nearest, squares, out=nearest)
        np.maximum(slack, rounding * magnitudes, out=slack)
        first, count = first + count, 2 * count
        far = nearest + slack >= least
        rows, nearest, slack = rows[far], nearest[far], slack[far]
    suspects: NDArray[np.float64] = rows[nearest + slack >= (nearest - slack).max(initial=0.0)]
    return suspects


def _squares_by_differences(
    rows: NDArray[np.float64], chosen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the squared distance of every row to its nearest chosen point."""
    nearest = np.full(rows.shape[0], np.inf)
    if rows.shape[0] < chosen.shape[0]:
        for i in range(rows.shape[0]):
            difference = chosen - rows[i]
            nearest[i] = np.einsum("ij,ij->i", difference, difference).min()
    elif rows.size:
        for point in chosen:
            difference = rows - point
            squares = np.einsum("ij,ij->i", difference, difference)
            np.minimum(nearest, squares, out=nearest)
    return nearest


def mend(
    squares: NDArray[np.float64],
    cancelled: NDArray[np.bool_],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
) -> None:
    """Compute squared distances of near points anew, by differences.

    Parameters
    ----------
    squares
        Squared distances of rows and columns, shape (r, c), changed in place.
    cancelled
        Which of them lost their digits, shape (r, c).
    rows, columns
        The points, shapes (r, d) and (c, d).
    """
    for i in np.flatnonzero(cancelled.any(axis=1)):
        near = np.flatnonzero(cancelled[i])
        difference = columns[near] - rows[i]
        squares[i, near] = np.einsum("ij,ij->i", difference, difference)
