"""Nonnegative least squares with an active set, a step at a time.

Points are the rows of a matrix. The active set keeps an orthonormal basis of the span of its
points, and their coordinates in it (a QR factorization by columns); points join at the end and
leave anywhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.vectors.integer_products import multiply
from subsetopt.kernels.vectors.quantized import ceilings, code_vector

__all__ = ["CONVERGED", "FULL", "MOVED", "correlate", "steps"]

MOVED, CONVERGED, FULL = 0, 1, 2

# What a point is: it may join, is active, is of no use until the next change, may never join.
_OPEN, _ACTIVE, _IDLE = 0, 1, 2

# Sums in any order, so that they are done several at a time; inf and nan keep their meaning.
_FAST = {"contract", "reassoc", "nsz", "arcp"}
# Below this share of its squared norm, what a point adds to the span of the others is rounding.
_DEPENDENT = 1e-13
# Below this share, it is made orthogonal once more.
_CANCELED = 0.01
# A gradient below this share of the largest possible is rounding.
_FLAT = 1e-14
# Keys are in single precision, and lie this near to what they stand for.
_SLACK = 1e-6
# Keys looked through at once.
_GROUP = 64


@njit(cache=True, fastmath=_FAST)
def _dot(a, b):
    total = 0.0
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@njit(cache=True, fastmath=_FAST)
def correlate(points, x, out):
    """Write the inner product of every point with x to ``out``."""
    for i in range(points.shape[0]):
        total = points[i, 0] * x[0]
        for c in range(1, x.size):
            total += points[i, c] * x[c]
        out[i] = total


@njit(cache=True, fastmath=_FAST)
def _project(basis, count, v, coordinates):
    """Take the span of the basis out of v; add what was taken to the coordinates.

    Four vectors at a time: both passes over them are made while they lie in the cache.
    """
    a = 0
    while a + 4 <= count:
        q0, q1, q2, q3 = basis[a], basis[a + 1], basis[a + 2], basis[a + 3]
        t0 = t1 = t2 = t3 = 0.0
        for c in range(v.size):
            t0 += q0[c] * v[c]
            t1 += q1[c] * v[c]
            t2 += q2[c] * v[c]
            t3 += q3[c] * v[c]
        for c in range(v.size):
            v[c] -= (t0 * q0[c] + t1 * q1[c]) + (t2 * q2[c] + t3 * q3[c])
        coordinates[a] += t0
        coordinates[a + 1] += t1
        coordinates[a + 2] += t2
        coordinates[a + 3] += t3
        a += 4
    while a < count:
        q0 = basis[a]
        t0 = _dot(q0, v)
        for c in range(v.size):
            v[c] -= t0 * q0[c]
        coordinates[a] += t0
        a += 1


@njit(cache=True, fastmath=_FAST)
def _left(v, r):
    """Return the squared norm of v and its inner product with r."""
    square = product = 0.0
    for c in range(v.size):
        square += v[c] * v[c]
        product += v[c] * r[c]
    return square, product


@njit(cache=True, fastmath=_FAST)
def _extend(basis, columns, count, point, half, r):
    """Let a point into the factorization; False when it depends on those before it.

    ``half`` are the coordinates of the target, r what is left of it.
    """
    v, column = basis[count], columns[count]
    whole = 0.0
    for c in range(v.size):
        v[c] = point[c]
        whole += point[c] * point[c]
    column[:] = 0.0
    _project(basis, count, v, column)
    left, along = _left(v, r)
    if left <= _CANCELED * whole:
        _project(basis, count, v, column)
        left, along = _left(v, r)
    if left <= _DEPENDENT * whole:
        return False
    length = np.sqrt(left)
    inverse = 1.0 / length
    column[count] = length
    half[count] = along * inverse
    share = half[count]
    for c in range(v.size):
        v[c] *= inverse
        r[c] -= share * v[c]
    return True


@njit(cache=True)
def _solve(columns, half, count, z):
    """Write the weights of the points that make up the coordinates of the target to z."""
    z[:count] = half[:count]
    for a in range(count - 1, -1, -1):
        column = columns[a]
        z[a] /= column[a]
        x = z[a]
        for c in range(a):
            z[c] -= column[c] * x


@njit(cache=True)
def _drop(basis, columns, active, half, w, r, count, gone):
    """Take the point at position ``gone`` out of the active set, by rotations."""
    last = count - 1
    for a in range(gone, last):
        active[a], w[a] = active[a + 1], w[a + 1]
        columns[a, : a + 2] = columns[a + 1, : a + 2]
    for a in range(gone, last):
        x, y = columns[a, a], columns[a, a + 1]
        length = np.hypot(x, y)
        x, y = x / length, y / length
        for b in range(a, last):
            p, q = columns[b, a], columns[b, a + 1]
            columns[b, a], columns[b, a + 1] = x * p + y * q, x * q - y * p
        p, q = half[a], half[a + 1]
        half[a], half[a + 1] = x * p + y * q, x * q - y * p
        first, second = basis[a], basis[a + 1]
        for c in range(r.size):
            p, q = first[c], second[c]
            first[c], second[c] = x * p + y * q, x * q - y * p
    for c in range(r.size):
        r[c] += half[last] * basis[last, c]


@njit(cache=True)
def _best(scores, scales, state):
    """Return the open point with the largest normalized score, and that score."""
    best, value = -1, -np.inf
    for i in range(scores.size):
        if state[i] == _OPEN:
            score = scores[i] * scales[i]
            if score > value:
                best, value = i, score
    return best, value


@njit(cache=True)
def _any_at_least(keys, least):
    """Whether any key is at least that: much cheaper than which."""
    found = np.int32(0)
    for i in range(keys.size):
        if keys[i] >= least:
            found += np.int32(1)
    return found > 0


@njit(cache=True)
def _at_least(keys, least, found):
    """Write where keys are at least that; return how many are, and the one with the largest."""
    count, top, most = 0, -1, np.float32(-np.inf)
    for first in range(0, keys.size, _GROUP):
        last = min(first + _GROUP, keys.size)
        if not _any_at_least(keys[first:last], least):
            continue
        for i in range(first, last):
            if keys[i] >= least:
                found[count] = i
                count += 1
                if keys[i] > most:
                    top, most = i, keys[i]
    return count, top


@njit(cache=True)
def _best_coded(points, scales, coded, state, r, size):
    """Return what :func:`_best` does, looking at those in double precision that may be the best."""
    codes, units, errors, code, products, keys, found = coded
    code_vector(r, size, code)
    multiply(codes, code, products)
    least = ceilings(products, units, errors, state, keys)
    count, best = _at_least(keys, least, found)
    if best < 0:
        return -1, -np.inf
    # The most promising one first: few of the others can still be better.
    value = _dot(points[best], r) * scales[best]
    first, limit = best, value / size - _SLACK
    for a in range(count):
        i = found[a]
        if keys[i] >= limit and i != first:
            score = _dot(points[i], r) * scales[i]
            if score > value or (score == value and i < best):
                best, value = i, score
                limit = value / size - _SLACK
    return best, value


@njit(cache=True)
def _some(points, scales, r, least, state):
    """Whether any open point has a normalized score above a least one."""
    for i in range(points.shape[0]):
        if state[i] == _OPEN and _dot(points[i], r) * scales[i] > least:
            return True
    return False


@njit(cache=True)
def _wake(state, idle, ints):
    """Let the points that were of no use join again, but for the active ones."""
    for a in range(ints[1]):
        if state[idle[a]] == _IDLE:
            state[idle[a]] = _OPEN
    ints[1] = 0


@njit(cache=True)
def _rest(j, state, idle, ints):
    """Mark a point as of no use until the next change."""
    state[j] = _IDLE
    idle[ints[1]] = j
    ints[1] += 1


@njit(cache=True)
def _step(
    points, coded, scales, target, size, floor, state, active, idle, ints, w, r, scores,
    basis, columns, half, z,
):  # fmt: skip
    """Let one point join; return as :func:`steps` does."""
    rr = _dot(r, r)
    if rr <= floor:
        return CONVERGED
    tt = _dot(target, target)
    if ints[0] >= size:
        return FULL if _some(points, scales, r, _FLAT * np.sqrt(tt), state) else CONVERGED
    j, score = -1, 0.0
    exact = coded[0].shape[0] == 0
    if exact:
        correlate(points, r, scores)
    else:
        j, score = _best_coded(points, scales, coded, state, r, np.sqrt(rr))
    while True:
        if exact:
            j, score = _best(scores, scales, state)
        if j < 0 or score <= _FLAT * np.sqrt(tt):
            return CONVERGED
        count = ints[0]
        if _extend(basis, columns, count, points[j], half, r):
            break
        _rest(j, state, idle, ints)
        if not exact:
            exact = True
            correlate(points, r, scores)
    active[count], w[count] = j, 0.0
    state[j] = _ACTIVE
    count += 1
    while True:
        _solve(columns, half, count, z)
        share, gone = 1.0, -1
        for a in range(count):
            if z[a] <= 0.0 and w[a] / (w[a] - z[a] + 1e-300) < share:
                share, gone = w[a] / (w[a] - z[a] + 1e-300), a
        if gone < 0:
            break
        for a in range(count):
            w[a] = max(0.0, w[a] + share * (z[a] - w[a]))
        _rest(active[gone], state, idle, ints)
        _drop(basis, columns, active, half, w, r, count, gone)
        count -= 1
        if count == 0:
            break
    w[:count] = z[:count]
    ints[0] = count
    if _dot(r, r) < rr * (1.0 - 1e-13):
        # What was dropped or dependent may be of use again, the newcomer itself excepted.
        _wake(state, idle, ints)
    return MOVED


@njit(cache=True)
def steps(
    points, coded, scales, target, size, floor, state, active, idle, ints, w, r, scores,
    basis, columns, half, z, most,
):  # fmt: skip
    """Let points join, each the one with the largest score; refit with weights >= 0.

    A score is the inner product with the residual, scaled.

    Parameters
    ----------
    points, scales
        (n, d), and what their inner products are multiplied by before they are compared: 1 / norm
        for angles, a constant for the products themselves; a point with 0 here is never chosen.
    coded
        The points in 8 bits, their units and errors, see ``quantized``, and
        scratch: (width,) int16, (n,) int32, (n,) float32 and (n,) int32. Without rows the points
        themselves are read.
    target
        (d,).
    size
        Most points the active set may hold.
    floor
        A squared residual at most this is taken for 0.
    state
        (n,) int8: 0 open, 1 active, 2 of no use until the next change, 3 never allowed.
    active, w, basis, columns, half
        The active set: positions, weights, orthonormal basis (size + 1, d), the coordinates of
        each point in it, by rows, and those of the target; room for size + 1.
    idle, ints
        (n,) the points in state 2; ints[0] is the size of the active set, ints[1] the number of
        these.
    r, scores, z
        (d,) the residual, kept up to date, and scratch: (n,) and (size + 1,).
    most
        Largest number of points that join.

    Returns
    -------
    outcome, done
        MOVED; CONVERGED when no point lowers the residual; FULL when one does, but has no room. And
        how many joined.
    """
    for done in range(most):
        outcome = _step(
            points, coded, scales, target, size, floor, state, active, idle, ints, w, r,
            scores, basis, columns, half, z,
        )  # fmt: skip
        if outcome != MOVED:
            return outcome, done
    return MOVED, most
