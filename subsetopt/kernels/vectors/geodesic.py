"""Greedy iterative geodesic ascent on the unit sphere."""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.vectors.integer_products import multiply
from subsetopt.kernels.vectors.products import LANES, any_below, least_of
from subsetopt.kernels.vectors.quantized import SCALE, code_vector, reach

__all__ = ["geodesic_steps", "start_products"]

_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}
# Atoms this near to the point reached, as a squared sine, are that point.
_SAME = 1e-6
# An angle whose sine is below this is rounding.
_FLAT = 1e-14


@njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _dot(a, b):
    total = 0.0
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@njit(cache=True)
def start_products(codes, target, products, ahead):
    """Write the cosines of all atoms with the target, as far as integers tell."""
    code = np.empty(codes.shape[1], dtype=np.int16)
    code_vector(target, 1.0, code)
    multiply(codes, code, products)
    for i in range(ahead.size):
        ahead[i] = np.float32(products[i]) / np.float32(SCALE * SCALE)


@njit(cache=True, fastmath=_FAST)
def _bounds(ahead, products, reached, off, keys):
    """Write minus what the squared cosine of every atom is at most, 0 for an obtuse angle.

    The angle is the one at y between the geodesics to the atom and to the target; the products of
    both with the atom may be ``off`` by that. Without branches, so that several are computed at a
    time.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    unit, far = np.float32(1.0 / SCALE**2), np.float32(reached)
    wide, slack = np.float32((1.0 + reached) * off + 1e-6), np.float32(2.0 * off + 1e-6)
    least = np.float32(_SAME)
    for i in range(keys.size):
        s = np.float32(products[i]) * unit
        forth = ahead[i] - far * s + wide
        forth = forth if forth > zero else zero
        left = one - s * s - slack * (s if s > zero else -s) - slack * slack
        left = left if left > least else least
        keys[i] = -forth * forth / left


@njit(cache=True)
def _cosine(row, norm, target, y, reached):
    """Return the cosine at y between the geodesics to an atom and the target; -1 for none."""
    along = _dot(row, y) / norm
    left = 1.0 - along * along
    if left <= _SAME:
        return -1.0
    return (_dot(row, target) / norm - reached * along) / np.sqrt(left)


@njit(cache=True)
def _furthest_along(vectors, norms, rows, target, y, reached, keys, lanes):
    """Return the atom whose direction from y is nearest to that of the target; -1 for none.

    Looks at atoms in the order of what their cosines may be at most, until no other can be larger.
    """
    pick, most, limit = -1, 0.0, np.float32(0.0)
    while any_below(keys, limit):
        _, top = least_of(keys, lanes)
        value = _cosine(vectors[rows[top]], norms[rows[top]], target, y, reached)
        if value > most or (value == most and pick > top):
            pick, most = top, value
            limit = np.float32(-most * most)
        keys[top] = np.float32(0.0)
    return pick


@njit(cache=True)
def geodesic_steps(vectors, norms, rows, codes, target, y, ahead, share, steps):
    """Make some steps of greedy iterative geodesic ascent; return how many.

    Parameters
    ----------
    vectors, norms, rows
        (n, d) all vectors, (n,) their norms, and (m,) which of them may be chosen.
    codes
        (m, width) int16, those divided by their norms, see ``quantized``.
    target
        (d,) the target's unit vector.
    y
        (d,) the unit vector reached so far, 0 at the beginning; moved on.
    ahead
        (m,) float32, the cosines of the atoms with the target, as far as integers tell.
    share
        (m,) the weights of the atoms that make y; moved on.
    """
    d, m = y.size, rows.size
    keys, lanes = np.empty(m, dtype=np.float32), np.empty(LANES, dtype=np.float32)
    products, code = np.zeros(m, dtype=np.int32), np.empty(codes.shape[1], dtype=np.int16)
    off = reach(d)
    for done in range(steps):
        reached = _dot(target, y)
        begun = _dot(y, y) > 0.0
        if 1.0 - reached <= _FLAT:
            return done
        if begun:
            code_vector(y, 1.0, code)
            multiply(codes, code, products)
        _bounds(ahead, products, reached, off, keys)
        pick = _furthest_along(vectors, norms, rows, target, y, reached, keys, lanes)
        if pick < 0:
            return done
        row = vectors[rows[pick]] / norms[rows[pick]]
        cosine, along = _dot(row, target), _dot(row, y)
        forth, back = cosine - reached * along, max(0.0, reached - cosine * along)
        if forth <= _FLAT:
            return done
        if not begun:
            forth, back = 1.0, 0.0
        for c in range(d):
            y[c] = back * y[c] + forth * row[c]
        size = np.sqrt(_dot(y, y))
        y /= size
        back, forth = back / size, forth / size
        share *= back
        share[pick] += forth
    return steps
