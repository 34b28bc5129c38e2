"""Swap search on a pool: reach a target sum with the fewest swaps from a random start.

A subset S of ``size`` positions of the vector ``v``, as a rule ascending, is moved towards
``sum(v[S]) == target`` by replacing one, two or three of its members. Let ``r = target -
sum(v[S])``. A move ``(i, j)`` (i out of S, j into it) changes the sum by ``d = v[j] - v[i]``:

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
from numba import njit, types
from numba.extending import intrinsic

from subsetopt.kernels.matching.draws import stratified_start, uniform_start
from subsetopt.kernels.matching.swap_moves import (
    PATIENCE,
    fits,
    remember,
    residual,
    shuffle,
    swap_positions,
    walk,
)
from subsetopt.kernels.matching.swap_state import (
    F_BEST,
    F_CAPACITY,
    F_COST,
    F_ERROR,
    F_GOAL,
    F_RESIDUAL,
    F_SPAN,
    F_TARGET,
    I_CURSOR,
    I_EXPONENT,
    I_GIVEN,
    I_KICK,
    I_MOVE,
    I_PAIRS,
    I_PHASE,
    I_ROUNDS,
    I_SECOND,
    I_THIRD,
    I_TRIES,
    I_UNSORTED,
    I_WORK,
    N_FLOATS,
    N_INTS,
)
from subsetopt.kernels.random_ import next_below, next_bits

__all__ = [
    "BUCKETS",
    "F_BEST",
    "F_CAPACITY",
    "F_COST",
    "F_GOAL",
    "F_SPAN",
    "F_TARGET",
    "I_GIVEN",
    "I_KICK",
    "I_UNSORTED",
    "I_WORK",
    "N_FLOATS",
    "N_INTS",
    "PAIRS",
    "REACHED",
    "STRATIFIED",
    "STUCK",
    "UNFINISHED",
    "UNIFORM",
    "best_single_swap",
    "search",
]

# Differences in the table. More of them answer a question with more subsets, but cost more to
# build; at n=128, k=13 all 1,495 fit.
PAIRS = 2048
_OCTAVES = 12
_MANTISSA_BITS = 8
_HALF = _OCTAVES << _MANTISSA_BITS
BUCKETS = 2 * _HALF
_FAR = 0.1  # residuals above this part of the values' range are brought down by one swap first
_DOUBLES = 4  # one in so many moves is asked for a second one: each pair stands in four places
_ROUND = 24_000  # questions of three moves asked of one table before starting anew
_COVERAGE = 16  # ... but no more than this fraction of all pairs: they repeat themselves

# What search() returns.
UNFINISHED, REACHED, STUCK = 0, 1, 2

STRATIFIED, UNIFORM = 0, -1

_START, _SINGLE, _TABLE, _DOUBLE, _TRIPLE, _END = range(6)
_LOW32 = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)


@intrinsic
def _bits(typingctx, x):
    """Reinterpret a float64 as an int64."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@njit(cache=True, inline="always")
def _bucket(d, exp0):
    """Return the bucket of a difference: its sign, exponent and first mantissa bits."""
    bits = _bits(d)
    key = ((bits & 0x7FFFFFFFFFFFFFFF) >> (52 - _MANTISSA_BITS)) - exp0
    if key < 0:
        key = 0
    elif key >= _HALF:
        key = _HALF - 1
    return key + _HALF if bits < 0 else key


@njit(cache=True)
def best_single_swap(v, mark, r, enough):
    """Return positions (i, j) of the swap whose ``v[j] - v[i]`` is nearest to r, and the work.

    Two pointers over the sorted pool: as i ascends, so does the value wanted for j. Ends early at
    a swap within ``enough`` of r. Returns (-1, -1, work) when there is nothing to swap.
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
        wanted = v[i] + r
        while j < m and (mark[j] == 1 or v[j] < wanted):
            if mark[j] == 0:
                below = j
            j += 1
            work += 1
        work += 1
        if j < m:
            err = v[j] - wanted
            if err < best:
                best, best_i, best_j = err, i, j
        if below >= 0:
            err = wanted - v[below]
            if err < best:
                best, best_i, best_j = err, i, below
        if best <= enough:
            break
    return best_i, best_j, work


@njit(cache=True)
def _shuffle_front(array, front, rng):
    """Bring a random sample of the array, in random order, to its front."""
    for t in range(front):
        s = t + next_below(rng, array.size - t)
        array[t], array[s] = array[s], array[t]


@njit(cache=True)
def _build_table(v, sel, out, mark, codes, low, high, count, rng, pa, pb, pd, head, r, width, span):
    """List the moves and key them by the leading bits of their differences.

    With a ``width``, the moves by at most so many places in the sorted pool: they keep a
    stratified subset nearly stratified. With width 0 all moves. A random part of them when there
    are more than PAIRS. Returns their number, the work, the index of the move nearest to r, the
    exponent offset of the keys, and the sum of the absolute differences.
    """
    m, size, rest = v.size, sel.size, out.size
    rows, columns = size, rest
    if width > 0:
        rows = min(size, max(1, PAIRS // (2 * width)))
        if rows < size:
            _shuffle_front(sel, rows, rng)
    elif size * rest > PAIRS:
        rows = min(size, max(32, PAIRS // rest))
        columns = min(rest, PAIRS // rows)
        _shuffle_front(sel, rows, rng)
        _shuffle_front(out, columns, rng)
    # No difference exceeds the range of the values.
    exp0 = (_bits(span) >> (52 - _MANTISSA_BITS)) - _HALF + 1
    # The difference of an empty bucket is infinite, so that a question needs no branch.
    pd[PAIRS] = np.inf
    for h in range(BUCKETS):
        head[h] = PAIRS
    grouped = codes.size > 0
    n_pairs = 0
    work = BUCKETS // 8
    nearest = -1
    err = np.inf
    total = 0.0
    for a in range(rows):
        i = sel[a]
        low_value = v[i]
        first, last = 0, columns
        if width > 0:
            first, last = max(0, i - width), min(m, i + width + 1)
        work += last - first
        for b in range(first, last):
            j = b
            if width > 0:
                if mark[j] == 1:
                    continue
            else:
                j = out[b]
            if grouped:
                g, h = codes[i], codes[j]
                if g != h and (count[g] - 1 < low[g] or count[h] + 1 > high[h]):
                    continue
            if n_pairs == PAIRS:
                break
            d = v[j] - low_value
            pa[n_pairs] = i
            pb[n_pairs] = j
            pd[n_pairs] = d
            head[_bucket(d, exp0)] = n_pairs  # one move a bucket: the last
            total += abs(d)
            e = abs(r - d)
            if e < err:
                err = e
                nearest = n_pairs
            n_pairs += 1
    return n_pairs, work, nearest, exp0, total


@njit(cache=True)
def search(
    v,
    sel,
    out,
    mark,
    best,
    head,
    pa,
    pb,
    pd,
    ints,
    floats,
    rng,
    codes,
    low,
    high,
    count,
    costs,
    work,
):
    """Go on with the search for about ``work`` units.

    Returns REACHED when the best subset is within ``floats[F_GOAL]`` of the target sum, STUCK
    when there is no move at all, UNFINISHED otherwise.
    """
    stop = ints[I_WORK] + work
    constrained = codes.size > 0 or costs.size > 0
    walking = constrained or ints[I_UNSORTED] == 1
    size, m, span = sel.size, v.size, floats[F_SPAN]
    while ints[I_WORK] < stop:
        phase = ints[I_PHASE]
        goal = floats[F_GOAL]
        if phase == _START:
            if ints[I_GIVEN] == 1:
                ints[I_GIVEN] = 0
            elif ints[I_KICK] > 0:
                steps = ints[I_KICK]
                shuffle(sel, out, mark, floats, codes, low, high, count, costs, rng, steps)
                ints[I_WORK] += steps
            else:
                if ints[I_KICK] == STRATIFIED:
                    stratified_start(size, m, rng, sel, out, mark)
                else:
                    uniform_start(size, m, rng, sel, out, mark)
                ints[I_WORK] += m // 4
            ints[I_WORK] += size
            floats[F_RESIDUAL] = residual(v, sel, floats[F_TARGET])
            remember(sel, best, floats)
            if floats[F_BEST] <= goal:
                return REACHED
            ints[I_TRIES] = 0
            ints[I_PHASE] = _SINGLE
        elif phase == _SINGLE:
            # A table of few moves has them all, so that two pointers are of use only far away.
            every = size * (m - size) <= PAIRS
            if walking and not every and ints[I_TRIES] < PATIENCE and size < m and size > 0:
                ints[I_TRIES], spent = walk(
                    v, sel, out, mark, floats, codes, low, high, count, costs, rng, ints[I_TRIES],
                    stop - ints[I_WORK],
                )  # fmt: skip
                ints[I_WORK] += spent
                if ints[I_TRIES] < PATIENCE:
                    continue
                floats[F_RESIDUAL] = residual(v, sel, floats[F_TARGET])
                ints[I_WORK] += size
                remember(sel, best, floats)
                if floats[F_BEST] <= goal:
                    return REACHED
            if walking or (every and abs(floats[F_RESIDUAL]) < _FAR * span):
                ints[I_PHASE] = _TABLE
                continue
            i, j, spent = best_single_swap(v, mark, floats[F_RESIDUAL], goal)
            ints[I_WORK] += spent
            improves = i >= 0 and abs(floats[F_RESIDUAL] - (v[j] - v[i])) < abs(floats[F_RESIDUAL])
            ints[I_TRIES] += 1
            if improves:
                ints[I_WORK] += swap_positions(i, j, sel, out, mark, floats, codes, count, costs)
                floats[F_RESIDUAL] = residual(v, sel, floats[F_TARGET])
                remember(sel, best, floats)
                if floats[F_BEST] <= goal:
                    return REACHED
            if not improves or ints[I_TRIES] >= 4 or abs(floats[F_RESIDUAL]) < span:
                ints[I_PHASE] = _TABLE
        elif phase == _TABLE:
            # Short moves first; they leave the subset nearly as it was drawn. Far from the target,
            # and every other time, all moves.
            near = abs(floats[F_RESIDUAL]) < span and ints[I_UNSORTED] == 0
            width = (3 * m) // (2 * size) + 1 if near and ints[I_ROUNDS] % 2 == 0 else 0
            ints[I_ROUNDS] += 1
            n_pairs, spent, nearest, ints[I_EXPONENT], total = _build_table(
                v, sel, out, mark, codes, low, high, count, rng, pa, pb, pd, head,
                floats[F_RESIDUAL], width, span,
            )  # fmt: skip
            ints[I_WORK] += spent
            if n_pairs == 0:
                if width > 0:
                    continue
                return STUCK
            ints[I_PAIRS] = n_pairs
            floats[F_ERROR] = abs(floats[F_RESIDUAL])
            ints[I_MOVE] = -1
            ints[I_SECOND] = -1
            ints[I_THIRD] = -1
            err = abs(floats[F_RESIDUAL] - pd[nearest])
            if err < floats[F_ERROR] and fits(
                nearest, -1, floats, codes, low, high, count, costs, pa, pb, -1
            ):
                floats[F_ERROR] = err
                ints[I_MOVE] = nearest
            # Moves much shorter than the residual cannot make it up: first bring it down.
            if floats[F_ERROR] <= goal or (
                width > 0
                and floats[F_ERROR] < abs(floats[F_RESIDUAL])
                and abs(floats[F_RESIDUAL]) * n_pairs > total
            ):
                ints[I_ROUNDS] -= 1
                ints[I_PHASE] = _END
                continue
            ints[I_CURSOR] = 0
            ints[I_PHASE] = _DOUBLE
        elif phase == _DOUBLE or phase == _TRIPLE:
            n_pairs, exp0, r = ints[I_PAIRS], ints[I_EXPONENT], floats[F_RESIDUAL]
            double = phase == _DOUBLE
            cursor = ints[I_CURSOR]
            last = n_pairs * n_pairs // _COVERAGE + 1
            last = min(last, n_pairs // _DOUBLES + 1 if double else _ROUND)
            end = min(last, cursor + stop - ints[I_WORK])
            err = floats[F_ERROR]
            asked = cursor
            q = 0
            while asked < end:
                if double:
                    p = asked
                    q = -1
                    need = r - pd[p]
                else:
                    bits = next_bits(rng)
                    p = np.int64(((bits & _LOW32) * np.uint64(n_pairs)) >> _S32)
                    q = np.int64(((bits >> _S32) * np.uint64(n_pairs)) >> _S32)
                    need = r - pd[p] - pd[q]
                asked += 1
                t = np.int64(head[_bucket(need, exp0)])
                e = abs(need - pd[t])
                if e < err:
                    if double:
                        good = fits(p, t, floats, codes, low, high, count, costs, pa, pb, -1)
                    else:
                        good = fits(p, q, floats, codes, low, high, count, costs, pa, pb, t)
                    if good:
                        err = e
                        ints[I_MOVE] = p
                        ints[I_SECOND] = t
                        ints[I_THIRD] = q
                if err <= goal:
                    break
            ints[I_WORK] += asked - cursor + 1
            ints[I_CURSOR] = asked
            floats[F_ERROR] = err
            if err <= goal:
                ints[I_PHASE] = _END
            elif asked >= last:
                ints[I_CURSOR] = 0
                ints[I_PHASE] = _TRIPLE if double else _END
        else:
            improved = ints[I_MOVE] >= 0
            for slot in (I_MOVE, I_SECOND, I_THIRD):
                p = ints[slot]
                if p >= 0:
                    ints[I_WORK] += swap_positions(
                        pa[p], pb[p], sel, out, mark, floats, codes, count, costs
                    )
            if improved:
                floats[F_RESIDUAL] = residual(v, sel, floats[F_TARGET])
                remember(sel, best, floats)
                ints[I_WORK] += size
                if floats[F_BEST] <= goal:
                    return REACHED
            ints[I_PHASE] = _SINGLE if improved else _START
    return UNFINISHED
