"""Nonnegative least squares with an active set, and geodesic ascent, a step at a time.

Points are the rows of a matrix. The active set keeps the Gram matrix of its points and the
Cholesky factor of it; points join at the end and leave anywhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["CONVERGED", "FULL", "MOVED", "correlate", "geodesic_steps", "step", "unit_rows"]

MOVED, CONVERGED, FULL = 0, 1, 2

# Sums in any order, so that they are done several at a time; inf and nan keep their meaning.
_FAST = {"contract", "reassoc", "nsz", "arcp"}
# Below this share of its squared norm, what a point adds to the span of the others is rounding.
_DEPENDENT = 1e-13
# Cosines below this are not to be told from 0 in single precision.
_SINGLE = 1e-4
# Atoms this near to the point reached, as a squared sine, are that point in single precision.
_SAME = 1e-6
# Below this share of the target's squared norm, a residual is worth a refinement.
_SMALL = 1e-6
# A gradient below this share of the largest possible is rounding.
_FLAT = 1e-14


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


@njit(cache=True)
def _factor(gram, chol, first, count):
    """Factor rows ``first`` to ``count - 1``; False when a row depends on those before it."""
    for a in range(first, count):
        for b in range(a + 1):
            total = gram[a, b] - _dot(chol[a, :b], chol[b, :b])
            if a > b:
                chol[a, b] = total / chol[b, b]
            else:
                if total <= _DEPENDENT * gram[a, a]:
                    return False
                chol[a, a] = np.sqrt(total)
    return True


@njit(cache=True)
def _solve(chol, b, count, z):
    """Write the solution of ``chol chol' z = b`` to z."""
    for a in range(count):
        z[a] = (b[a] - _dot(chol[a, :a], z[:a])) / chol[a, a]
    for a in range(count - 1, -1, -1):
        z[a] /= chol[a, a]
        for c in range(a):
            z[c] -= chol[a, c] * z[a]


@njit(cache=True)
def _residual(points, active, count, w, target, r):
    """Write ``target - sum of w times active points`` to r; return its squared norm."""
    r[:] = target
    for a in range(count):
        row = points[active[a]]
        for c in range(r.size):
            r[c] -= w[a] * row[c]
    return _dot(r, r)


@njit(cache=True)
def _refine(points, active, count, chol, target, r, z, fix):
    """Improve the solution z once: the Gram matrix squares the condition, this takes it back."""
    _residual(points, active, count, z, target, r)
    for a in range(count):
        fix[a] = _dot(points[active[a]], r)
    _solve(chol, fix[:count].copy(), count, fix)
    for a in range(count):
        z[a] += fix[a]


@njit(cache=True)
def _drop(gram, chol, active, b, w, count, gone):
    """Take the point at position ``gone`` out of the active set."""
    for a in range(gone, count - 1):
        active[a] = active[a + 1]
        b[a] = b[a + 1]
        w[a] = w[a + 1]
        for c in range(count):
            gram[a, c] = gram[a + 1, c]
    for c in range(gone, count - 1):
        for a in range(count - 1):
            gram[a, c] = gram[a, c + 1]
    _factor(gram, chol, gone, count - 1)


@njit(cache=True, fastmath=_FAST)
def _correlate_single(atoms, x, out):
    """Write the inner product of every atom with x to ``out``, summed in single precision."""
    for i in range(atoms.shape[0]):
        total = np.float32(0.0)
        for c in range(x.size):
            total += atoms[i, c] * x[c]
        out[i] = total


@njit(cache=True)
def _best(scores, inverse_norms, state):
    """Return the open point with the largest normalized score, and that score."""
    best, value = -1, -np.inf
    for i in range(scores.size):
        if state[i] == 0:
            score = scores[i] * inverse_norms[i]
            if score > value:
                best, value = i, score
    return best, value


@njit(cache=True)
def step(
    points, atoms, inverse_norms, target, size, floor, state, active, ints, w, r, scores, gram,
    chol, b,
):  # fmt: skip
    """Let the point nearest in angle to the residual join, and refit with weights at least 0.

    Parameters
    ----------
    points, inverse_norms
        (n, d), and 1 / norm of each; a point with 0 here is never chosen.
    atoms
        (n, d) float32, the points to choose by while single precision will do; empty for none.
    target
        (d,).
    size
        Most points the active set may hold.
    floor
        A squared residual at most this is taken for 0.
    state
        (n,) int8: 0 open, 1 active, 2 of no use until the next change, 3 never allowed.
    active, w, b, gram, chol
        The active set: positions, weights, inner products with the target, and the Gram matrix
        with its factor; room for size + 1.
    ints
        ints[0] is the size of the active set.
    r, scores
        (d,) the residual, kept up to date, and (n,) scratch.

    Returns
    -------
    int
        MOVED; CONVERGED when no point lowers the residual; FULL when one does, but has no room.
    """
    rr = _dot(r, r)
    if rr <= floor:
        return CONVERGED
    tt = _dot(target, target)
    choose = True
    if atoms.shape[0]:
        _correlate_single(atoms, (r / np.sqrt(rr)).astype(np.float32), scores)
        j, score = _best(scores, inverse_norms, state)
        choose = j < 0 or score <= _SINGLE
    if choose:
        correlate(points, r, scores)
    z = np.empty(size + 1)
    fix = np.empty(size + 1)
    while True:
        j, score = _best(scores, inverse_norms, state)
        if j < 0 or score <= _FLAT * np.sqrt(tt):
            return CONVERGED
        count = ints[0]
        if count >= size:
            return FULL
        for a in range(count + 1):
            other = points[j] if a == count else points[active[a]]
            gram[count, a] = gram[a, count] = _dot(points[j], other)
        if _factor(gram, chol, count, count + 1):
            break
        state[j] = 2
    active[count], b[count], w[count] = j, _dot(points[j], target), 0.0
    state[j] = 1
    count += 1
    while True:
        _solve(chol, b, count, z)
        if rr <= _SMALL * tt:
            _refine(points, active, count, chol, target, r, z, fix)
        share, gone = 1.0, -1
        for a in range(count):
            if z[a] <= 0.0 and w[a] / (w[a] - z[a] + 1e-300) < share:
                share, gone = w[a] / (w[a] - z[a] + 1e-300), a
        if gone < 0:
            break
        for a in range(count):
            w[a] = max(0.0, w[a] + share * (z[a] - w[a]))
        state[active[gone]] = 2
        _drop(gram, chol, active, b, w, count, gone)
        count -= 1
        if count == 0:
            break
    w[:count] = z[:count]
    ints[0] = count
    if _residual(points, active, count, w, target, r) < rr * (1.0 - 1e-13):
        # What was dropped or dependent may be of use again, the newcomer itself excepted.
        for i in range(state.size):
            if state[i] == 2:
                state[i] = 0
    return MOVED


@njit(cache=True)
def unit_rows(vectors, norms, rows, out):
    """Write some rows, divided by their norms, in single precision."""
    for a in range(rows.size):
        row = vectors[rows[a]]
        norm = norms[rows[a]]
        if norm > 1e-290:
            inverse = 1.0 / norm
            for c in range(row.size):
                out[a, c] = row[c] * inverse
        else:
            for c in range(row.size):
                out[a, c] = row[c] / norm


@njit(cache=True, fastmath=_FAST)
def _furthest_along(ahead, overlap, reached, keys):
    """Return the atom whose direction from y is nearest to that of the target; -1 for none.

    Squared cosines, without branches, so that they are computed several at a time.
    """
    for i in range(ahead.size):
        left = 1.0 - overlap[i] * overlap[i]
        s = max(0.0, ahead[i] - reached * overlap[i])
        keys[i] = s * s / left if left > _SAME else 0.0
    largest = 0.0
    for i in range(ahead.size):
        largest = max(largest, keys[i])
    if largest > 0.0:
        for i in range(ahead.size):
            if keys[i] == largest:
                return i
    return -1


@njit(cache=True)
def geodesic_steps(vectors, norms, rows, atoms, target, y, ahead, overlap, share, steps):
    """Make some steps of greedy iterative geodesic ascent; return how many.

    Parameters
    ----------
    vectors, norms, rows
        (n, d) all vectors, (n,) their norms, and (m,) which of them may be chosen.
    atoms
        (m, d) float32, those divided by their norms: the choice is made in single precision.
    target
        (d,) the target's unit vector.
    y
        (d,) the unit vector reached so far, 0 at the beginning; moved on.
    ahead, overlap
        (m,) the inner products of the atoms with the target and with y; the latter is kept up to
        date by one product with the atom chosen.
    share
        (m,) the weights of the atoms that make y; moved on.
    """
    gram = np.empty(rows.size)
    keys = np.empty(rows.size)
    d = y.size
    for done in range(steps):
        reached = _dot(target, y)
        begun = _dot(y, y) > 0.0
        if 1.0 - reached <= _FLAT:
            return done
        pick = _furthest_along(ahead, overlap, reached, keys)
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
        _correlate_single(atoms, atoms[pick], gram)
        for i in range(rows.size):
            overlap[i] = back * overlap[i] + forth * gram[i]
            share[i] *= back
        share[pick] += forth
    return steps
