"""The flight of the cube method with equal inclusion probabilities, by simplex pivots.

Weights start at size/m and move along directions that keep their sum and the weighted sum of the
vectors, until all but d + 1 are 0 or 1 (Deville & Tillé, Biometrika 2004). Rounding those leaves a
subset whose sum is nearly the mean's.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.random_ import next_bits

__all__ = ["fly", "land"]

_FAST = {"contract", "reassoc", "nsz", "arcp"}
# An artificial column leaves the basis for a coefficient above this.
_PIVOT = 1e-7
_SMALL = 1e-9
_S11 = np.uint64(11)


@njit(cache=True, fastmath=_FAST)
def _coefficients(inverse, row, x):
    """Write ``inverse @ (1, row)`` to x."""
    for a in range(x.size):
        line = inverse[a]
        total = line[0]
        for c in range(row.size):
            total += line[c + 1] * row[c]
        x[a] = total


@njit(cache=True)
def _step(weights, basis, x, j, rng):
    """Move weight j up or down, at random without bias, until a weight is 0 or 1.

    The basic weights make up for it. Returns the row of the weight that ended; -1 for j itself.
    """
    up, down = 1.0 - weights[j], weights[j]
    row_up, row_down = -1, -1
    for a in range(x.size):
        if basis[a] < 0 or abs(x[a]) <= _SMALL:
            continue
        below, above = weights[basis[a]] / abs(x[a]), (1.0 - weights[basis[a]]) / abs(x[a])
        if x[a] < 0.0:
            below, above = above, below
        if below < up:
            up, row_up = below, a
        if above < down:
            down, row_down = above, a
    draw = np.float64(next_bits(rng) >> _S11) / 9007199254740992.0
    length, row = (up, row_up) if draw * (up + down) < down else (-down, row_down)
    for a in range(x.size):
        if basis[a] >= 0:
            b = basis[a]
            weights[b] = min(1.0, max(0.0, weights[b] - length * x[a]))
    weights[j] = min(1.0, max(0.0, weights[j] + length))
    ended = j if row < 0 else basis[row]
    weights[ended] = 1.0 if weights[ended] > 0.5 else 0.0
    return row


@njit(cache=True)
def _pivot(inverse, x, row):
    """Let the column with coefficients x take the place of a row's."""
    p = x.size
    scale = 1.0 / x[row]
    for c in range(p):
        inverse[row, c] *= scale
    for a in range(p):
        if a != row and x[a] != 0.0:
            factor = x[a]
            for c in range(p):
                inverse[a, c] -= factor * inverse[row, c]


@njit(cache=True)
def fly(points, weights, basis, inverse, first, last, rng):
    """Take points ``last - 1`` down to ``first`` on, the longest first.

    Parameters
    ----------
    points
        (m, d) in ascending order of their norms, so that the shortest remain.
    weights
        (m,) moved on in place.
    basis, inverse
        (d + 1,) the points with a weight between 0 and 1, -1 for none yet, and the inverse of
        their columns (1, point); the identity at the beginning.
    first, last
        Which points to take on.
    rng
        The generator's state.
    """
    x = np.empty(basis.size)
    for j in range(last - 1, first - 1, -1):
        _coefficients(inverse, points[j], x)
        row, largest = -1, _PIVOT
        for a in range(x.size):
            if basis[a] < 0 and abs(x[a]) > largest:
                row, largest = a, abs(x[a])
        if row < 0:
            row = _step(weights, basis, x, j, rng)
        if row >= 0:
            _pivot(inverse, x, row)
            basis[row] = j


@njit(cache=True)
def land(weights, size, sel):
    """Write the positions of the ``size`` largest weights to sel."""
    order = np.argsort(-weights)
    for a in range(size):
        sel[a] = order[a]
