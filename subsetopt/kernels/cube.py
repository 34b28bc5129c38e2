"""The flight phase of the cube method, one unit at a time on an updated inverse.

A *unit* is a candidate whose inclusion probability is not yet 0 or 1. The working units are a basis
of the columns ``a_i = x_i / pi_i``; for the next unit, ``c = E a_j`` writes its column in that
basis, so that ``u_j = 1, u_B = -c`` keeps every balance total, and moving along ``u`` until a
probability is 0 or 1 decides a unit. ``E`` is updated by a pivot, hence O(q^2) a unit. Rows that no
unit of the basis stands for (dependent balancing variables, too few units) stay free until a column
needs them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.random_ import next_bits

__all__ = ["DECIDED", "N_INTS", "fly", "land"]

# A probability this near 0 or 1 counts as that.
DECIDED = 1e-12
# A column this small beside the terms that it is the sum of is none.
_DEPENDENT = 1e-8
# A null vector may miss a balance total by this, relative to its largest entry.
_RESIDUAL = 1e-12

N_INTS = 3
I_QUEUED, I_PIVOTS, I_FREE = range(N_INTS)
# Rows of the scratch matrix.
_COLUMN, _MISSED, _MORE = range(3)

_S11 = np.uint64(11)
_UNIT = 2.0**-53


@njit(cache=True)
def restart(rows, inverse, basis, ints):
    """Empty the basis."""
    for r in range(rows):
        for i in range(rows):
            inverse[r, i] = 0.0
        inverse[r, r] = 1.0
        basis[r] = -1
    ints[I_PIVOTS] = 0
    ints[I_FREE] = rows


@njit(cache=True)
def _times(inverse, vector, rows, out):
    """Write ``E vector``; the inverse is stored transposed, so that the inner loop is an axpy."""
    for i in range(rows):
        out[i] = 0.0
    for k in range(rows):
        value = vector[k]
        for i in range(rows):
            out[i] += value * inverse[k, i]


@njit(cache=True)
def _pivot(unit, row, c, rows, inverse, basis, ints):
    """Let a unit with column ``c`` (in the basis) stand for a row."""
    pivot = c[row]
    for k in range(rows):
        t = inverse[k, row] / pivot
        for i in range(rows):
            inverse[k, i] -= c[i] * t
        inverse[k, row] = t
    basis[row] = unit
    ints[I_PIVOTS] += 1


@njit(cache=True)
def _free_row(column, c, rows, inverse, basis):
    """Return the free row where a column is largest, or -1 when it is dependent in all of them."""
    best, row = 0.0, -1
    for r in range(rows):
        if basis[r] >= 0 or abs(c[r]) <= best:
            continue
        size = 0.0
        for k in range(rows):
            size += abs(inverse[k, r] * column[k])
        if abs(c[r]) > _DEPENDENT * size:
            best, row = abs(c[r]), r
    return row


@njit(cache=True)
def _missed(unit, columns, rows, c, basis, out):
    """Write ``a_unit - sum_r c_r a_basis[r]``; return its size relative to the largest entry."""
    largest = 1.0
    for k in range(rows):
        out[k] = columns[unit, k]
        largest = max(largest, abs(out[k]))
    for r in range(rows):
        b = basis[r]
        if b >= 0:
            value = c[r]
            largest = max(largest, abs(value))
            for k in range(rows):
                out[k] -= value * columns[b, k]
    worst = 0.0
    for k in range(rows):
        worst = max(worst, abs(out[k]))
    return worst / largest


@njit(cache=True)
def _move(unit, pi, rows, c, basis, rng):
    """Move along the null vector, up or down at random so that no expectation changes."""
    up, down = 1.0 - pi[unit], pi[unit]
    for r in range(rows):
        b = basis[r]
        if b >= 0 and c[r] != 0.0:
            here, there = pi[b] / abs(c[r]), (1.0 - pi[b]) / abs(c[r])
            if c[r] < 0.0:
                here, there = there, here
            up, down = min(up, here), min(down, there)
    draw = np.float64(next_bits(rng) >> _S11) * _UNIT
    step = up if draw * (up + down) < down else -down
    pi[unit] = _snapped(pi[unit] + step)
    for r in range(rows):
        b = basis[r]
        if b >= 0:
            pi[b] = _snapped(pi[b] - step * c[r])


@njit(cache=True)
def _snapped(value):
    if value < DECIDED:
        return 0.0
    return 1.0 if value > 1.0 - DECIDED else value


@njit(cache=True)
def _release(unit, pi, rows, c, queue, inverse, basis, ints):
    """Let decided units leave the basis, and the unit take the place of one if it is undecided."""
    largest, row = 0.0, -1
    for r in range(rows):
        b = basis[r]
        if b >= 0 and (pi[b] == 0.0 or pi[b] == 1.0):
            basis[r] = -1
            ints[I_FREE] += 1
            if abs(c[r]) > largest:
                largest, row = abs(c[r]), r
    if pi[unit] == 0.0 or pi[unit] == 1.0:
        return
    if largest > 1e-3:
        _pivot(unit, row, c, rows, inverse, basis, ints)
        ints[I_FREE] -= 1
    else:
        # A pivot this small would spoil the inverse: look at the column anew.
        queue[ints[I_QUEUED]] = unit
        ints[I_QUEUED] += 1


@njit(cache=True)
def _enter(unit, columns, pi, rows, queue, inverse, basis, scratch, ints, rng):
    """Take one unit into the basis, or move along the null vector it makes with the basis."""
    c, missed, more = scratch[_COLUMN], scratch[_MISSED], scratch[_MORE]
    _times(inverse, columns[unit], rows, c)
    if ints[I_FREE] > 0:
        row = _free_row(columns[unit], c, rows, inverse, basis)
        if row >= 0:
            _pivot(unit, row, c, rows, inverse, basis, ints)
            ints[I_FREE] -= 1
            return
    for _ in range(3):
        if _missed(unit, columns, rows, c, basis, missed) <= _RESIDUAL:
            break
        _times(inverse, missed, rows, more)
        for r in range(rows):
            c[r] += more[r]
    else:
        if ints[I_PIVOTS] > 2 * rows:
            # The inverse has lost its precision: begin again with the units it had.
            for r in range(-1, rows):
                b = unit if r < 0 else basis[r]
                if b >= 0:
                    queue[ints[I_QUEUED]] = b
                    ints[I_QUEUED] += 1
            restart(rows, inverse, basis, ints)
            return
    _move(unit, pi, rows, c, basis, rng)
    _release(unit, pi, rows, c, queue, inverse, basis, ints)


@njit(cache=True)
def fly(columns, pi, rows, queue, inverse, basis, scratch, ints, rng, limit):
    """Decide units until every one was looked at, or a number of them.

    Parameters
    ----------
    columns
        ``x_i / pi_i`` per unit, shape (n, q); the first is 1, for the size.
    pi
        Current probabilities (n,), changed in place.
    rows
        How many of the q balancing variables to keep.
    queue
        Units to look at, shape (n,), the last first; the first ``ints[I_QUEUED]`` of it.
    inverse, basis, scratch, ints
        State, of shapes (q, q), (q,), (3, q) and (N_INTS,); ``restart`` sets it up.
    rng
        State of the generator.
    limit
        Most units to look at.

    Returns
    -------
    int
        Units looked at.
    """
    done = 0
    while done < limit and ints[I_QUEUED] > 0:
        ints[I_QUEUED] -= 1
        unit = queue[ints[I_QUEUED]]
        _enter(unit, columns, pi, rows, queue, inverse, basis, scratch, ints, rng)
        done += 1
    return done


@njit(cache=True)
def land(columns, pi, rows, queue, inverse, basis, scratch, ints, rng, size):
    """Decide the units that the flight left, keeping ever fewer balancing variables.

    The last variable is dropped first and the size, the first of them, never: ``size`` candidates
    have probability 1 in the end.
    """
    left = 0
    for r in range(rows):
        if basis[r] >= 0:
            queue[left] = basis[r]
            left += 1
    for fewer in range(rows - 1, 0, -1):
        if left > fewer:
            ints[I_QUEUED] = left
            restart(fewer, inverse, basis, ints)
            fly(columns, pi, fewer, queue, inverse, basis, scratch, ints, rng, 1 << 62)
            left = 0
            for r in range(fewer):
                if basis[r] >= 0:
                    queue[left] = basis[r]
                    left += 1
    # What is left is one unit, whose probability is 0 or 1 but for rounding.
    for i in range(left):
        pi[queue[i]] = 0.0
    chosen = 0
    for i in range(pi.size):
        chosen += pi[i] == 1.0
    for i in range(left):
        if chosen < size:
            pi[queue[i]] = 1.0
            chosen += 1
