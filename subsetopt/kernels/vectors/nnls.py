"""Nonnegative least squares with an active set, a step at a time.

Points are the rows of a matrix. The active set keeps an orthonormal basis of the span of its
points, and their coordinates in it (a QR factorization by columns); points join at the end and
leave anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.array_types import Floats, Ints, Singles
from subsetopt.kernels.arrays import copy
from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.vectors.integer_products import multiply
from subsetopt.kernels.vectors.quantized import ceilings, code_vector

__all__ = [
    "CLOSED", "CONVERGED", "FULL", "MOVED", "OPEN", "Active", "Basis", "Coded", "Points",
    "correlate", "steps",
]  # fmt: skip

# A step ends because a point joined, none lowers the residual, or one does but has no room.
MOVED, CONVERGED, FULL = 0, 1, 2

# A point may join, is active, is of no use until the next change, or may never join.
OPEN, _ACTIVE, _IDLE, CLOSED = 0, 1, 2, 3

# Terms are added in any order, so that several are added at a time; inf and nan keep their meaning.
_FAST = {"contract", "reassoc", "nsz", "arcp"}
# What a point adds to the span of the others is rounding where its square is below this share of
# the point's squared norm.
_DEPENDENT = 1e-13
# Where that square is below this share, the point is made orthogonal to the others once more.
_CANCELED = 0.01
# A gradient below this share of the largest possible is rounding.
_FLAT = 1e-14
# Keys are in single precision, and differ by less than this from what they stand for.
_SLACK = 1e-6
# The number of keys that are looked through at once.
_GROUP = 64


class Points(NamedTuple):
    """The n points, and what their weighted sum is fitted to.

    The scale of a point is 1 / norm where angles are compared and a constant where the inner
    products themselves are; a point of scale 0 is never chosen.
    """

    rows: Floats  #: (n, d) the points
    scales: Floats  #: (n,) what inner products are multiplied by before they are compared
    target: Floats  #: (d,) the vector to fit
    size: int  #: the largest number of points that may be active
    floor: float  #: a squared residual of at most this is taken for 0


class Coded(NamedTuple):
    """The points in 8 bits, see ``quantized``, and scratch; without rows the points are read."""

    codes: NDArray[np.int8]  #: (n, width) the codes of the points
    units: Singles  #: (n,) the unit of the product with each point's codes
    errors: Singles  #: (n,) how far that product may be off
    code: NDArray[np.int16]  #: (width,) the residual in 16 bits
    products: NDArray[np.int32]  #: (n,) the products of the residual's code with the codes
    keys: Singles  #: (n,) what the normalized score of each point is at most
    candidates: NDArray[np.int32]  #: (n,) the points that may be the best


class Active(NamedTuple):
    """Which points are active, and their weights; changed in place."""

    state: NDArray[np.int8]  #: (n,) what each point is: OPEN, _ACTIVE, _IDLE or CLOSED
    positions: Ints  #: (size + 1,) the active points
    weights: Floats  #: (size + 1,) the weights of the active points
    size: Ints  #: (1,) how many points are active
    idle: Ints  #: (n,) the points that are of no use until the next change
    idle_size: Ints  #: (1,) how many points are idle


class Basis(NamedTuple):
    """The factorization of the active points, the residual, and scratch; changed in place."""

    vectors: Floats  #: (size + 1, d) an orthonormal basis of the span of the active points
    columns: Floats  #: (size + 1, size + 1) the coordinates of each active point in it, by rows
    projection: Floats  #: (size + 1,) the coordinates of the target in it
    residual: Floats  #: (d,) the target less its projection
    solution: Floats  #: (size + 1,) scratch: the weights as if they might have any sign
    scores: Floats  #: (n,) scratch: the products of all points with the residual


@uncounted(fastmath=_FAST)
def _dot(a, b):
    total = 0.0
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@uncounted(fastmath=_FAST)
def correlate(points, x, out):
    """Write the inner product of every point with x to ``out``."""
    for i in range(points.shape[0]):
        total = points[i, 0] * x[0]
        for c in range(1, x.size):
            total += points[i, c] * x[c]
        out[i] = total


@uncounted(fastmath=_FAST)
def _project(basis, count, v, coordinates):
    """Take the span of the basis out of v; add what was taken to the coordinates.

    Four vectors are taken out at a time, so that the second pass over them finds them in the cache.
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


@uncounted(fastmath=_FAST)
def _square_and_product(v, r):
    """Return the squared norm of v and its inner product with r."""
    square = product = 0.0
    for c in range(v.size):
        square += v[c] * v[c]
        product += v[c] * r[c]
    return square, product


@uncounted(fastmath=_FAST)
def _extend(basis, count, point):
    """Add a point to the factorization; return False when it depends on those before it."""
    v, column, r = basis.vectors[count], basis.columns[count], basis.residual
    point_square = 0.0
    for c in range(v.size):
        v[c] = point[c]
        point_square += point[c] * point[c]
    column[:] = 0.0
    _project(basis.vectors, count, v, column)
    square, product = _square_and_product(v, r)
    if square <= _CANCELED * point_square:
        _project(basis.vectors, count, v, column)
        square, product = _square_and_product(v, r)
    if square <= _DEPENDENT * point_square:
        return False
    length = np.sqrt(square)
    inverse = 1.0 / length
    column[count] = length
    share = product * inverse
    basis.projection[count] = share
    for c in range(v.size):
        v[c] *= inverse
        r[c] -= share * v[c]
    return True


@uncounted
def _solve(basis, count):
    """Write the weights of the points that make up the coordinates of the target."""
    columns, z = basis.columns, basis.solution
    copy(basis.projection[:count], z[:count])
    for a in range(count - 1, -1, -1):
        column = columns[a]
        z[a] /= column[a]
        x = z[a]
        for c in range(a):
            z[c] -= column[c] * x


@uncounted
def _drop(basis, active, count, gone):
    """Take the point at position ``gone`` out of the active set, by rotations."""
    columns, projection, r = basis.columns, basis.projection, basis.residual
    last = count - 1
    for a in range(gone, last):
        active.positions[a] = active.positions[a + 1]
        active.weights[a] = active.weights[a + 1]
        copy(columns[a + 1, : a + 2], columns[a, : a + 2])
    for a in range(gone, last):
        x, y = columns[a, a], columns[a, a + 1]
        length = np.hypot(x, y)
        x, y = x / length, y / length
        for b in range(a, last):
            p, q = columns[b, a], columns[b, a + 1]
            columns[b, a], columns[b, a + 1] = x * p + y * q, x * q - y * p
        p, q = projection[a], projection[a + 1]
        projection[a], projection[a + 1] = x * p + y * q, x * q - y * p
        first, second = basis.vectors[a], basis.vectors[a + 1]
        for c in range(r.size):
            p, q = first[c], second[c]
            first[c], second[c] = x * p + y * q, x * q - y * p
    for c in range(r.size):
        r[c] += projection[last] * basis.vectors[last, c]


@uncounted
def _best(scores, scales, state):
    """Return the open point with the largest normalized score, and that score."""
    best, value = -1, -np.inf
    for i in range(scores.size):
        if state[i] == OPEN:
            score = scores[i] * scales[i]
            if score > value:
                best, value = i, score
    return best, value


@uncounted
def _any_at_least(keys, bound):
    """Return whether any key is at least a bound, which takes far less time than finding it."""
    count = np.int32(0)
    for i in range(keys.size):
        if keys[i] >= bound:
            count += np.int32(1)
    return count > 0


@uncounted
def _at_least(keys, bound, candidates):
    """Write where keys are at least a bound; return how many are, and where the largest is."""
    count, top, largest = 0, -1, np.float32(-np.inf)
    for first in range(0, keys.size, _GROUP):
        last = min(first + _GROUP, keys.size)
        if not _any_at_least(keys[first:last], bound):
            continue
        for i in range(first, last):
            if keys[i] >= bound:
                candidates[count] = i
                count += 1
                if keys[i] > largest:
                    top, largest = i, keys[i]
    return count, top


@uncounted
def _best_coded(points, coded, state, r, size):
    """Return what :func:`_best` does; only points that may be the best are read in full."""
    rows, scales, keys, candidates = points.rows, points.scales, coded.keys, coded.candidates
    code_vector(r, size, coded.code)
    multiply(coded.codes, coded.code, coded.products)
    bound = ceilings(coded.products, coded.units, coded.errors, state, keys)
    count, best = _at_least(keys, bound, candidates)
    if best < 0:
        return -1, -np.inf
    # The most promising point comes first, because few of the others can still be better then.
    value = _dot(rows[best], r) * scales[best]
    first, limit = best, value / size - _SLACK
    for a in range(count):
        i = candidates[a]
        if keys[i] >= limit and i != first:
            score = _dot(rows[i], r) * scales[i]
            if score > value or (score == value and i < best):
                best, value = i, score
                limit = value / size - _SLACK
    return best, value


@uncounted
def _any_above(points, r, bound, state):
    """Whether any open point has a normalized score above a bound."""
    for i in range(points.rows.shape[0]):
        if state[i] == OPEN and _dot(points.rows[i], r) * points.scales[i] > bound:
            return True
    return False


@uncounted
def _wake(active):
    """Let the points that were of no use join again, unless they are active by now."""
    for a in range(active.idle_size[0]):
        i = active.idle[a]
        if active.state[i] == _IDLE:
            active.state[i] = OPEN
    active.idle_size[0] = 0


@uncounted
def _rest(j, active):
    """Mark a point as of no use until the next change."""
    active.state[j] = _IDLE
    active.idle[active.idle_size[0]] = j
    active.idle_size[0] += 1


@uncounted
def _join(points, coded, active, basis, bound):
    """Let the point with the largest score above a bound join; return whether there is one."""
    state, r = active.state, basis.residual
    j, score = -1, 0.0
    exact = coded.codes.shape[0] == 0
    if exact:
        correlate(points.rows, r, basis.scores)
    else:
        j, score = _best_coded(points, coded, state, r, np.sqrt(_dot(r, r)))
    count = active.size[0]
    while True:
        if exact:
            j, score = _best(basis.scores, points.scales, state)
        if j < 0 or score <= bound:
            return False
        if _extend(basis, count, points.rows[j]):
            break
        _rest(j, active)
        if not exact:
            exact = True
            correlate(points.rows, r, basis.scores)
    active.positions[count], active.weights[count] = j, 0.0
    state[j] = _ACTIVE
    active.size[0] = count + 1
    return True


@uncounted
def _refit(active, basis):
    """Fit the weights anew; points whose weight would fall below 0 leave."""
    count, w, z = active.size[0], active.weights, basis.solution
    while count:
        _solve(basis, count)
        share, gone = 1.0, -1
        for a in range(count):
            if z[a] <= 0.0 and w[a] / (w[a] - z[a] + 1e-300) < share:
                share, gone = w[a] / (w[a] - z[a] + 1e-300), a
        if gone < 0:
            break
        for a in range(count):
            w[a] = max(0.0, w[a] + share * (z[a] - w[a]))
        _rest(active.positions[gone], active)
        _drop(basis, active, count, gone)
        count -= 1
    copy(z[:count], w[:count])
    active.size[0] = count


@uncounted
def _step(points, coded, active, basis):
    """Let one point join; return as :func:`steps` does."""
    r = basis.residual
    square = _dot(r, r)
    if square <= points.floor:
        return CONVERGED
    bound = _FLAT * np.sqrt(_dot(points.target, points.target))
    if active.size[0] >= points.size:
        return FULL if _any_above(points, r, bound, active.state) else CONVERGED
    if not _join(points, coded, active, basis, bound):
        return CONVERGED
    _refit(active, basis)
    if _dot(r, r) < square * (1.0 - 1e-13):
        # What was dropped or dependent may be of use again, the newcomer itself excepted.
        _wake(active)
    return MOVED


@uncounted
def steps(points, coded, active, basis, most):
    """Let points join, each the one with the largest score; refit with weights >= 0.

    A score is the inner product with the residual, scaled.

    Parameters
    ----------
    points, coded, active, basis
        The fields of Points, Coded, Active and Basis, as plain tuples: calls with named ones take
        longer.
    most
        The largest number of points that join.

    Returns
    -------
    outcome, done
        MOVED; CONVERGED when no point lowers the residual; FULL when one does, but has no room; and
        the number of points that joined.
    """
    points, coded = Points(*points), Coded(*coded)
    active, basis = Active(*active), Basis(*basis)
    for done in range(most):
        outcome = _step(points, coded, active, basis)
        if outcome != MOVED:
            return outcome, done
    return MOVED, most
