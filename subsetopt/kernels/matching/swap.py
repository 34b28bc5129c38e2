"""Swap search on a pool: reach a target sum with the fewest swaps from a random start.

A subset of ``size`` positions of the vector ``v``, as a rule ascending, is moved towards a target
sum by replacing one, two or three of its members. Let ``r`` be the target less the sum of the
subset. A move ``(i, j)`` (i leaves the subset, j enters it) changes the sum by ``d = v[j] - v[i]``:

* one move: the best of all by two pointers, in one pass over the pool; under constraints, or where
  the values are in no order, random moves that bring the sum nearer;
* two moves: a table of the differences, keyed by their leading bits, is asked for ``r - d``;
* three moves: the same table, asked for ``r - d - d'`` with random pairs ``(d, d')``.

The table is built once for a subset and asked thousands of times, a few nanoseconds each; every
question stands for as many subsets as the table has entries.

The search is a state machine over arrays that the caller holds, so that it can stop after any
chunk of work and go on later with the same outcome as if it had not stopped. Unit of work: one
difference looked at.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.limits import Limits
from subsetopt.kernels.matching.draws import stratified_start, uniform_start
from subsetopt.kernels.matching.swap_moves import (
    NONE,
    PATIENCE,
    goes_together,
    is_reached,
    shuffle,
    swap_positions,
    walk,
)
from subsetopt.kernels.matching.swap_state import BUCKETS, MANTISSA_BITS, MOVES, Subset, Table
from subsetopt.kernels.random_ import next_below, next_bits

__all__ = [
    "REACHED",
    "STRATIFIED",
    "STUCK",
    "UNFINISHED",
    "UNIFORM",
    "best_single_swap",
    "search",
]

# Share of the values' range above which a residual is brought down by one swap first.
_FAR = 0.1
# Moves per move that is asked for a second one: each pair stands in four places of the table.
_DOUBLES = 4
# Questions of three moves that are asked of one table before the search starts anew ...
_ROUND = 24_000
# ... but no more than the pairs of moves divided by this: random pairs repeat themselves.
_COVERAGE = 16

# What search() returns.
UNFINISHED, REACHED, STUCK = 0, 1, 2

# How a search draws a subset to start anew from, see ``STATE["restart"]``.
STRATIFIED, UNIFORM = 0, -1

# The phases of a search: draw a subset; bring it near by single moves; build the table of moves;
# ask it for pairs, then for triples; make the best moves.
_START, _SINGLE, _TABLE, _DOUBLE, _TRIPLE, _END = range(6)
_KEYS = BUCKETS // 2
_LOW32 = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)


@intrinsic
def _bits(typingctx, x):
    """Reinterpret a float64 as an int64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@uncounted(forceinline=True)
def _bucket(gain, first_key):
    """Return the bucket of a gain: by its sign, exponent and first mantissa bits."""
    bits = _bits(gain)
    key = ((bits & 0x7FFFFFFFFFFFFFFF) >> (52 - MANTISSA_BITS)) - first_key
    if key < 0:
        key = 0
    elif key >= _KEYS:
        key = _KEYS - 1
    return key + _KEYS if bits < 0 else key


@uncounted
def best_single_swap(v, mark, residual, enough):
    """Return the swap (i, j) whose ``v[j] - v[i]`` is nearest to the residual, and the work.

    Two pointers over the sorted values ``v``: as i ascends, so does the value wanted for j. Ends
    early at a swap within ``enough`` of the residual. Returns (-1, -1, work) when there is nothing
    to swap.
    """
    m = v.size
    best = np.inf
    best_i = -1
    best_j = -1
    j = 0
    below = -1  # the last position outside the subset whose value is below the wanted one
    work = 0
    for i in range(m):
        if mark[i] == 0:
            continue
        wanted = v[i] + residual
        while j < m and (mark[j] == 1 or v[j] < wanted):
            if mark[j] == 0:
                below = j
            j += 1
            work += 1
        work += 1
        if j < m:
            distance = v[j] - wanted
            if distance < best:
                best, best_i, best_j = distance, i, j
        if below >= 0:
            distance = wanted - v[below]
            if distance < best:
                best, best_i, best_j = distance, i, below
        if best <= enough:
            break
    return best_i, best_j, work


@uncounted
def _shuffle_front(array, front, rng):
    """Bring a random sample of the array, in random order, to its front."""
    for t in range(front):
        s = t + next_below(rng, array.size - t)
        array[t], array[s] = array[s], array[t]


@uncounted
def _sample(subset, rng, width):
    """Bring the members and others whose moves fit into a table to the front; return how many.

    With a ``width``, members have about two moves per place; with width 0, one to each other.
    """
    size, others = subset.chosen.size, subset.rest.size
    rows, columns = size, others
    if width > 0:
        rows = min(size, max(1, MOVES // (2 * width)))
        if rows < size:
            _shuffle_front(subset.chosen, rows, rng)
    elif size * others > MOVES:
        rows = min(size, max(32, MOVES // others))
        columns = min(others, MOVES // rows)
        _shuffle_front(subset.chosen, rows, rng)
        _shuffle_front(subset.rest, columns, rng)
    return rows, columns


@uncounted
def _build_table(values, subset, limits, table, now, rng, width):
    """List the moves and key them by the leading bits of their gains.

    With a ``width``, the moves by at most that many places in the sorted pool: they keep a
    stratified subset nearly stratified. With width 0 all moves. A random part of them when there
    are more than MOVES. Returns the index of the move nearest to the residual and the sum of the
    absolute gains.
    """
    rows, columns = _sample(subset, rng, width)
    codes, low, high, counts = limits.codes, limits.low, limits.high, subset.counts
    heads, gains = table.heads, table.gains
    residual = now.residual
    # No gain exceeds the range of the values.
    first_key = (_bits(now.span) >> (52 - MANTISSA_BITS)) - _KEYS + 1
    gains[MOVES] = np.inf
    for h in range(BUCKETS):
        heads[h] = MOVES
    grouped = codes.size > 0
    moves = 0
    work = BUCKETS // 8
    nearest = -1
    distance = np.inf
    total = 0.0
    for a in range(rows):
        i = subset.chosen[a]
        first, last = 0, columns
        if width > 0:
            first, last = max(0, i - width), min(values.size, i + width + 1)
        work += last - first
        for b in range(first, last):
            j = b
            if width > 0:
                if subset.mark[j] == 1:
                    continue
            else:
                j = subset.rest[b]
            if grouped:
                g, h = codes[i], codes[j]
                if g != h and (counts[g] - 1 < low[g] or counts[h] + 1 > high[h]):
                    continue
            if moves == MOVES:
                break
            gain = values[j] - values[i]
            table.leaving[moves] = i
            table.entering[moves] = j
            gains[moves] = gain
            heads[_bucket(gain, first_key)] = moves  # the last move of a bucket stands for all
            total += abs(gain)
            if abs(residual - gain) < distance:
                distance = abs(residual - gain)
                nearest = moves
            moves += 1
    now.moves, now.first_key = moves, first_key
    now.work += work
    return nearest, total


@uncounted
def _start(values, subset, limits, now, rng):
    """Draw a subset, or shake the present one; return whether it is within the goal already."""
    size, m = subset.chosen.size, values.size
    if now.given:
        now.given = False
    elif now.restart > 0:
        shuffle(subset, limits, now, rng, now.restart)
        now.work += now.restart
    else:
        if now.restart == STRATIFIED:
            stratified_start(size, m, rng, subset.chosen, subset.rest, subset.mark)
        else:
            uniform_start(size, m, rng, subset.chosen, subset.rest, subset.mark)
        now.work += m // 4
    now.work += size
    now.tries = 0
    now.phase = _SINGLE
    return is_reached(values, subset, now)


@uncounted
def _near_by_single_moves(values, subset, limits, now, rng, stop):
    """Bring the sum near the target, one move at a time; return whether it is within the goal."""
    size, m = subset.chosen.size, values.size
    walking = limits.codes.size > 0 or limits.costs.size > 0 or now.unsorted
    # A table of few moves has them all, so that two pointers are of use only far away.
    all_fit = size * (m - size) <= MOVES
    if walking and not all_fit and now.tries < PATIENCE and 0 < size < m:
        walk(values, subset, limits, now, rng, stop - now.work)
        if now.tries < PATIENCE:
            return False
        now.work += size
        if is_reached(values, subset, now):
            return True
    if walking or (all_fit and abs(now.residual) < _FAR * now.span):
        now.phase = _TABLE
        return False
    i, j, work = best_single_swap(values, subset.mark, now.residual, now.goal)
    now.work += work
    now.tries += 1
    improves = i >= 0 and abs(now.residual - (values[j] - values[i])) < abs(now.residual)
    if improves:
        swap_positions(i, j, subset, limits, now)
        if is_reached(values, subset, now):
            return True
    if not improves or now.tries >= 4 or abs(now.residual) < now.span:
        now.phase = _TABLE
    return False


@uncounted
def _tabulate(values, subset, limits, table, now, rng):
    """Build the table and look for the best of its moves; return whether it has any.

    Short moves first; they leave the subset nearly as it was drawn. Far from the target, and every
    other time, all moves.
    """
    far = abs(now.residual)
    near = far < now.span and not now.unsorted
    width = 0
    if near and now.tables % 2 == 0:
        width = (3 * values.size) // (2 * subset.chosen.size) + 1
    now.tables += 1
    nearest, total = _build_table(values, subset, limits, table, now, rng, width)
    if now.moves == 0:
        return width > 0  # then the next table has all moves
    now.distance = far
    now.first = now.second = now.third = -1
    distance = abs(now.residual - table.gains[nearest])
    if distance < far and goes_together(table, subset, limits, now, (nearest, NONE, NONE)):
        now.distance = distance
        now.first = nearest
    # Moves much shorter than the residual cannot make it up: first bring it down.
    too_short = width > 0 and now.distance < far and far * now.moves > total
    if now.distance <= now.goal or too_short:
        now.tables -= 1
        now.phase = _END
    else:
        now.asked = 0
        now.phase = _DOUBLE
    return True


@uncounted
def _ask(subset, limits, table, now, rng, stop):
    """Ask the table for the moves that complete one move, or a random pair, to the residual."""
    heads, gains = table.heads, table.gains
    moves, first_key, residual, goal = now.moves, now.first_key, now.residual, now.goal
    double = now.phase == _DOUBLE
    last = moves * moves // _COVERAGE + 1
    last = min(last, moves // _DOUBLES + 1 if double else _ROUND)
    end = min(last, now.asked + stop - now.work)
    distance = now.distance
    asked = now.asked
    q = NONE
    while asked < end:
        if double:
            p = asked
            wanted = residual - gains[p]
        else:
            bits = next_bits(rng)
            p = np.int64(((bits & _LOW32) * np.uint64(moves)) >> _S32)
            q = np.int64(((bits >> _S32) * np.uint64(moves)) >> _S32)
            wanted = residual - gains[p] - gains[q]
        asked += 1
        t = np.int64(heads[_bucket(wanted, first_key)])
        if abs(wanted - gains[t]) < distance:
            if goes_together(table, subset, limits, now, (p, t, q)):
                distance = abs(wanted - gains[t])
                now.first, now.second, now.third = p, t, q
        if distance <= goal:
            break
    now.work += asked - now.asked + 1
    now.asked = asked
    now.distance = distance
    if distance <= goal:
        now.phase = _END
    elif asked >= last:
        now.asked = 0
        now.phase = _TRIPLE if double else _END


@uncounted
def _make_moves(values, subset, limits, table, now):
    """Make the best moves that were found; return whether the subset is within the goal."""
    if now.first < 0:
        now.phase = _START
        return False
    for move in (now.first, now.second, now.third):
        if move >= 0:
            i, j = np.int64(table.leaving[move]), np.int64(table.entering[move])
            swap_positions(i, j, subset, limits, now)
    now.work += subset.chosen.size
    now.phase = _SINGLE
    return is_reached(values, subset, now)


@uncounted
def search(values, subset, limits, table, state, rng, work):
    """Go on with the search for about ``work`` units.

    Parameters
    ----------
    values
        Values of the pool, shape (m,), float64, ascending unless ``unsorted`` of the state is set.
    subset, limits, table
        The fields of a :class:`Subset`, :class:`Limits` and :class:`Table`, best as plain tuples:
        calls with named ones take longer. The subset and the table are written to.
    state
        Array of one ``STATE``, written to.
    rng
        Array of one uint64, the state of the random generator.
    work
        Differences to look at, about.

    Returns
    -------
    int
        REACHED when the best subset is within the goal of the target, STUCK when there is no move
        at all, UNFINISHED otherwise.
    """
    subset, limits, table = Subset(*subset), Limits(*limits), Table(*table)
    now = state[0]
    stop = now.work + work
    while now.work < stop:
        phase = now.phase
        reached = False
        if phase == _START:
            reached = _start(values, subset, limits, now, rng)
        elif phase == _SINGLE:
            reached = _near_by_single_moves(values, subset, limits, now, rng, stop)
        elif phase == _TABLE:
            if not _tabulate(values, subset, limits, table, now, rng):
                return STUCK
        elif phase == _END:
            reached = _make_moves(values, subset, limits, table, now)
        else:
            _ask(subset, limits, table, now, rng, stop)
        if reached:
            return REACHED
    return UNFINISHED
