"""The flight phase of the cube method, one unit at a time on an updated inverse.

A *unit* is a candidate whose inclusion probability is not yet 0 or 1. The working units are a basis
of the columns ``a_i = x_i / pi_i``; for the next unit, ``c = E a_j`` writes its column in that
basis, so that ``u_j = 1, u_B = -c`` keeps every balance total, and moving along ``u`` until a
probability is 0 or 1 decides a unit. ``E`` is updated by a pivot, hence O(q^2) a unit. Rows that no
unit of the basis stands for (dependent balancing variables, too few units) stay free until a column
needs them.

The helpers are inlined by force: in code loaded from the cache, calls to them double the time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from subsetopt.inputs import DECIDED
from subsetopt.kernels.array_types import Floats, Ints
from subsetopt.kernels.compiling import njit, uncounted
from subsetopt.kernels.designs.systematic import shuffle, systematic
from subsetopt.kernels.random_ import next_bits

__all__ = ["I_QUEUED", "N_INTS", "State", "add_column", "draw", "fly", "land", "restart"]

# A column depends on the basis where it is this small beside the terms that it is the sum of.
_DEPENDENT = 1e-8
# A pivot below this would make the inverse imprecise.
_SMALLEST_PIVOT = 1e-3
# A null vector may miss a balance total by this share of the terms that the total is the sum of.
_RESIDUAL = 1e-12

N_INTS = 3
# The positions of the counts of a flight: units in the queue, pivots since the inverse was set up,
# and free rows.
I_QUEUED, I_PIVOTS, I_FREE = range(N_INTS)

_ALL = 1 << 62
_S11 = np.uint64(11)
_UNIT = 2.0**-53


class State(NamedTuple):
    """The state of a flight, changed in place; ``restart`` sets up all but the queue."""

    queue: Ints  #: (n,) units to look at, the last first: the first ``ints[I_QUEUED]`` of it
    inverse: Floats  #: (q, q) the inverse of the basis, transposed
    basis: Ints  #: (q,) the unit that stands for each row, -1 for none
    c: Floats  #: (q,) scratch: a column in the basis
    missed: Floats  #: (q,) scratch: what the column in the basis misses
    more: Floats  #: (q,) scratch: what is added to the column in the basis
    ints: Ints  #: (N_INTS,) counts, at the positions I_QUEUED, I_PIVOTS and I_FREE


@njit(cache=True)
def add_column(balance, j, units, pi, columns, rows, distances):
    """Write ``x_i / pi_i`` per unit, shifted and scaled to spread 1, to column number ``rows``.

    Shifts by multiples of the first column leave the problem as it is, and make a variable that
    is nearly proportional to the probabilities as precise as any other.

    Parameters
    ----------
    balance, j
        Balancing variables, shape (n, p), and the number of the one to add.
    units
        Undecided candidates, shape (m,).
    pi
        Their inclusion probabilities, shape (m,).
    columns
        The columns, shape (m, q), of which the first ``rows`` are written; the first of all is 1.
    distances
        The squared distance of each unit's columns from typical ones, shape (m,), to which that of
        the new column is added.

    Returns
    -------
    bool
        Whether the column was added: it is not where all ratios are equal.
    """
    m = units.size
    largest = 0.0
    for i in range(m):
        largest = max(largest, abs(balance[units[i], j]))
    if largest == 0.0:
        return False
    total = sum_x = sum_size = 0.0
    for i in range(m):
        x = balance[units[i], j] / largest
        columns[i, rows] = x
        total += pi[i]
        sum_x += x
        sum_size += abs(x)
    spread = 0.0
    for i in range(m):
        columns[i, rows] = columns[i, rows] / pi[i] - sum_x / total
        spread += pi[i] * abs(columns[i, rows])
    if not spread > DECIDED * sum_size:
        return False
    for i in range(m):
        columns[i, rows] *= total / spread
        distances[i] += columns[i, rows] ** 2
    return True


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


@njit(cache=True, forceinline=True)
def _times(inverse, vector, rows, out):
    """Write ``E vector``; E is stored transposed, so that the inner loop adds multiples of rows."""
    for i in range(rows):
        out[i] = 0.0
    for k in range(rows):
        value = vector[k]
        for i in range(rows):
            out[i] += value * inverse[k, i]


@njit(cache=True, forceinline=True)
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


@njit(cache=True, forceinline=True)
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


@njit(cache=True, forceinline=True)
def _missed(unit, columns, rows, c, basis, missed):
    """Write ``a_unit - sum_r c_r a_basis[r]`` and return its largest entry."""
    for k in range(rows):
        missed[k] = columns[unit, k]
    for r in range(rows):
        b = basis[r]
        if b >= 0:
            for k in range(rows):
                missed[k] -= c[r] * columns[b, k]
    worst = 0.0
    for k in range(rows):
        worst = max(worst, abs(missed[k]))
    return worst


@njit(cache=True, forceinline=True)
def _is_rounding(unit, columns, rows, c, basis, missed):
    """Whether what a null vector misses is small beside the terms that were summed."""
    for k in range(rows):
        terms = abs(columns[unit, k])
        for r in range(rows):
            if basis[r] >= 0:
                terms += abs(c[r] * columns[basis[r], k])
        if abs(missed[k]) > _RESIDUAL * terms:
            return False
    return True


@njit(cache=True, forceinline=True)
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


@njit(cache=True, forceinline=True)
def _snapped(value):
    if value < DECIDED:
        return 0.0
    return 1.0 if value > 1.0 - DECIDED else value


@njit(cache=True, forceinline=True)
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
    if largest > _SMALLEST_PIVOT:
        _pivot(unit, row, c, rows, inverse, basis, ints)
        ints[I_FREE] -= 1
    else:
        queue[ints[I_QUEUED]] = unit
        ints[I_QUEUED] += 1


@njit(cache=True, forceinline=True)
def _refined(unit, columns, rows, inverse, basis, c, missed, more):
    """Refine the unit's column in the basis where it is imprecise; return whether it is precise."""
    for _ in range(3):
        if _missed(unit, columns, rows, c, basis, missed) <= _RESIDUAL:
            return True
        if _is_rounding(unit, columns, rows, c, basis, missed):
            return True
        _times(inverse, missed, rows, more)
        for r in range(rows):
            c[r] += more[r]
    return False


@njit(cache=True, forceinline=True)
def _enter(unit, columns, pi, rows, state, rng):
    """Take one unit into the basis, or move along the null vector it makes with the basis."""
    queue, inverse, basis, c, missed, more, ints = state
    for k in range(rows):
        missed[k] = columns[unit, k]
    _times(inverse, missed, rows, c)
    if ints[I_FREE] > 0:
        row = _free_row(missed, c, rows, inverse, basis)
        if row >= 0:
            _pivot(unit, row, c, rows, inverse, basis, ints)
            ints[I_FREE] -= 1
            return
    precise = _refined(unit, columns, rows, inverse, basis, c, missed, more)
    if not precise and ints[I_PIVOTS] > 2 * rows:
        # The inverse has lost its precision: begin again with the units that it had.
        queue[ints[I_QUEUED]] = unit
        ints[I_QUEUED] += 1
        _requeue(rows, queue, basis, ints)
        restart(rows, inverse, basis, ints)
        return
    _move(unit, pi, rows, c, basis, rng)
    _release(unit, pi, rows, c, queue, inverse, basis, ints)


@njit(cache=True, forceinline=True)
def _requeue(rows, queue, basis, ints):
    """Put the units of the basis back into the queue."""
    for r in range(rows):
        if basis[r] >= 0:
            queue[ints[I_QUEUED]] = basis[r]
            ints[I_QUEUED] += 1


@uncounted
def fly(columns, pi, rows, state, rng, limit):
    """Decide units until every one was looked at, or a number of them.

    Parameters
    ----------
    columns
        ``x_i / pi_i`` per unit, shape (n, q); the first is 1, for the size.
    pi
        Current probabilities (n,), changed in place.
    rows
        How many of the q balancing variables to keep.
    state
        The fields of State as a plain tuple: calls with a named one take longer.
    rng
        State of the generator.
    limit
        The largest number of units to look at.

    Returns
    -------
    int
        The number of units looked at.
    """
    state = State(*state)
    done, queue, ints = 0, state.queue, state.ints
    while done < limit and ints[I_QUEUED] > 0:
        ints[I_QUEUED] -= 1
        unit = queue[ints[I_QUEUED]]
        _enter(unit, columns, pi, rows, state, rng)
        done += 1
    return done


@njit(cache=True)
def land(columns, pi, rows, state, rng, size):
    """Decide the units that the flight left, keeping ever fewer balancing variables.

    The last variable is dropped first and the size, the first of them, never: ``size`` candidates
    have probability 1 in the end. The other parameters are those of ``fly``.
    """
    queue, inverse, basis, _, _, _, ints = state
    ints[I_QUEUED] = 0
    _requeue(rows, queue, basis, ints)
    for fewer in range(rows - 1, 0, -1):
        if ints[I_QUEUED] > fewer:
            restart(fewer, inverse, basis, ints)
            fly(columns, pi, fewer, state, rng, _ALL)
            _requeue(fewer, queue, basis, ints)
    undecided = ints[I_QUEUED]
    # At most one unit is still undecided, and its probability is 0 or 1 but for rounding.
    for i in range(undecided):
        pi[queue[i]] = 0.0
    chosen = 0
    for i in range(pi.size):
        chosen += pi[i] == 1.0
    for i in range(undecided):
        if chosen < size:
            pi[queue[i]] = 1.0
            chosen += 1


@njit(cache=True)
def draw(inclusion, balance, size, closest_last, limit, rng, taken):
    """Draw a sample in one call, for problems that are too small to look at the clock.

    The sample is written to an array of the caller's: an array that compiled code returns is made
    by calls of Python, which can end the process while an interrupt is pending.

    Parameters
    ----------
    inclusion
        Inclusion probabilities, shape (n,); those within ``DECIDED`` of 0 or 1 count as 0 or 1.
    balance
        Balancing variables, shape (n, p).
    size
        Size of the sample.
    closest_last
        Whether units with typical columns are looked at last; otherwise the order is random.
    limit
        The largest number of units to look at; a systematic draw decides those that are left.
    rng
        State of the generator.
    taken
        Written: whether each candidate is in the sample, shape (n,), bool.

    Returns
    -------
    tuple
        The number of units looked at, and whether the flight ended.
    """
    n, m, certain = inclusion.size, 0, 0
    units = np.empty(n, dtype=np.int64)
    for i in range(n):
        if DECIDED < inclusion[i] < 1.0 - DECIDED:
            units[m] = i
            m += 1
        taken[i] = inclusion[i] >= 1.0 - DECIDED
        certain += taken[i]
    units = units[:m]
    pi = inclusion[units]
    most = np.ones((m, 1 + balance.shape[1]))
    distances, rows = np.zeros(m), 1
    for j in range(balance.shape[1]):
        rows += add_column(balance, j, units, pi, most, rows, distances)
    columns = most[:, :rows].copy()
    order = np.arange(m)
    shuffle(order, rng)
    queue = order[np.argsort(distances[order], kind="mergesort")] if closest_last else order.copy()
    inverse, basis = np.empty((rows, rows)), np.empty(rows, dtype=np.int64)
    ints = np.zeros(N_INTS, dtype=np.int64)
    state = (queue, inverse, basis, np.empty(rows), np.empty(rows), np.empty(rows), ints)
    ints[I_QUEUED] = m
    restart(rows, inverse, basis, ints)
    wanted = size - certain
    done = fly(columns, pi, rows, state, rng, limit)
    ended = ints[I_QUEUED] == 0
    chosen = np.empty(m, dtype=np.bool_)
    if ended:
        land(columns, pi, rows, state, rng, wanted)
        for i in range(m):
            chosen[i] = pi[i] == 1.0
    else:
        systematic(pi, order, wanted, rng, chosen)
    for i in range(m):
        taken[units[i]] = chosen[i]
    return done, ended
