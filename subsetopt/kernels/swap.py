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

from subsetopt.kernels.draws import stratified_start, uniform_start
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
_FAR_READ = 4  # work of a random swap: of many candidates, none lies in the cache
_PATIENCE = 32  # random swaps in a row that bring the target no nearer: then it is near

# What search() returns.
UNFINISHED, REACHED, STUCK = 0, 1, 2

STRATIFIED, UNIFORM = 0, -1

# Slots of the integer state. GIVEN: the subset is set, do not draw a start. KICK: restart by that
# many random swaps of the current subset; STRATIFIED or UNIFORM draws a new one. UNSORTED: the
# values are in no order, so that neither strata nor pointers are of use.
I_WORK, I_GIVEN, I_KICK, _PHASE, _CURSOR, _N_PAIRS, _EXP0, _M1, _M2, _M3 = range(10)
_TRIES, _ROUNDS, I_UNSORTED = 10, 11, 12
N_INTS = 13
# Slots of the float state; SPAN is the largest value less the smallest.
_R, F_BEST, F_GOAL, F_TARGET, F_COST, F_CAPACITY, _ERR, F_SPAN = range(8)
N_FLOATS = 8

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
def _residual(v, sel, target):
    """Return target minus the sum of the chosen values, by compensated summation (Neumaier)."""
    total = 0.0
    lost = 0.0
    for a in range(sel.size):
        x = v[sel[a]]
        t = total + x
        if abs(total) >= abs(x):
            lost += (total - t) + x
        else:
            lost += (x - t) + total
        total = t
    return (target - total) - lost


@njit(cache=True)
def _remember(sel, best, floats):
    """Keep the current subset when it is the best so far."""
    if abs(floats[_R]) < floats[F_BEST]:
        floats[F_BEST] = abs(floats[_R])
        for a in range(sel.size):
            best[a] = sel[a]


@njit(cache=True)
def _fits(p, q, floats, codes, low, high, count, costs, pa, pb, third):
    """Whether the moves p, q, third (indices into the pair list, -1: none) go together."""
    moves = (np.int64(p), np.int64(q), np.int64(third))
    a1, b1 = pa[p], pb[p]
    if q >= 0:
        if pa[q] == a1 or pb[q] == b1:
            return False
        if third >= 0 and (
            pa[third] == a1 or pb[third] == b1 or pa[third] == pa[q] or pb[third] == pb[q]
        ):
            return False
    if costs.size:
        cost = floats[F_COST]
        for t in moves:
            if t >= 0:
                cost += costs[pb[t]] - costs[pa[t]]
        if cost > floats[F_CAPACITY]:
            return False
    if codes.size:
        for t in moves:
            if t >= 0:
                count[codes[pa[t]]] -= 1
                count[codes[pb[t]]] += 1
        good = True
        for t in moves:
            if t >= 0:
                g, h = codes[pa[t]], codes[pb[t]]
                if count[g] < low[g] or count[h] > high[h]:
                    good = False
        for t in moves:
            if t >= 0:
                count[codes[pa[t]]] += 1
                count[codes[pb[t]]] -= 1
        return good
    return True


@njit(cache=True)
def _apply(a, b, sel, out, mark, floats, codes, count, costs):
    """Swap member a of the subset with member b of the rest."""
    i, j = sel[a], out[b]
    sel[a] = j
    out[b] = i
    mark[i] = 0
    mark[j] = 1
    if costs.size:
        floats[F_COST] += costs[j] - costs[i]
    if codes.size:
        count[codes[i]] -= 1
        count[codes[j]] += 1


@njit(cache=True)
def _shuffle(sel, out, mark, floats, codes, low, high, count, costs, rng, steps):
    """Make random feasible swaps: the restart of a constrained search."""
    for _ in range(steps):
        a = next_below(rng, sel.size)
        b = next_below(rng, out.size)
        i, j = sel[a], out[b]
        if costs.size and floats[F_COST] + costs[j] - costs[i] > floats[F_CAPACITY]:
            continue
        if codes.size:
            g, h = codes[i], codes[j]
            if g != h and (count[g] - 1 < low[g] or count[h] + 1 > high[h]):
                continue
        _apply(a, b, sel, out, mark, floats, codes, count, costs)


@njit(cache=True)
def _walk(v, sel, out, mark, floats, codes, low, high, count, costs, rng, failures, steps):
    """Make random feasible swaps that bring the sum nearer to the target, until few do.

    The residual of a random subset is that of many moves, and a table holds three. Returns the
    failures in a row and the work, about ``steps``; the residual is up to date but for rounding.
    """
    done = 0
    while done < steps and failures < _PATIENCE:
        done += _FAR_READ
        failures += 1
        a = next_below(rng, sel.size)
        b = next_below(rng, out.size)
        i, j = sel[a], out[b]
        rest = floats[_R] - (v[j] - v[i])
        if abs(rest) >= abs(floats[_R]):
            continue
        if costs.size and floats[F_COST] + costs[j] - costs[i] > floats[F_CAPACITY]:
            continue
        if codes.size:
            g, h = codes[i], codes[j]
            if g != h and (count[g] - 1 < low[g] or count[h] + 1 > high[h]):
                continue
        _apply(a, b, sel, out, mark, floats, codes, count, costs)
        floats[_R] = rest
        failures = 0
    return failures, done


@njit(cache=True)
def _swap_positions(i, j, sel, out, mark, floats, codes, count, costs):
    """Swap position i of the subset with position j of the rest."""
    a = 0
    while sel[a] != i:
        a += 1
    b = 0
    while out[b] != j:
        b += 1
    _apply(a, b, sel, out, mark, floats, codes, count, costs)
    return a + b


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
        phase = ints[_PHASE]
        goal = floats[F_GOAL]
        if phase == _START:
            if ints[I_GIVEN] == 1:
                ints[I_GIVEN] = 0
            elif ints[I_KICK] > 0:
                steps = ints[I_KICK]
                _shuffle(sel, out, mark, floats, codes, low, high, count, costs, rng, steps)
                ints[I_WORK] += steps
            else:
                if ints[I_KICK] == STRATIFIED:
                    stratified_start(size, m, rng, sel, out, mark)
                else:
                    uniform_start(size, m, rng, sel, out, mark)
                ints[I_WORK] += m // 4
            ints[I_WORK] += size
            floats[_R] = _residual(v, sel, floats[F_TARGET])
            _remember(sel, best, floats)
            if floats[F_BEST] <= goal:
                return REACHED
            ints[_TRIES] = 0
            ints[_PHASE] = _SINGLE
        elif phase == _SINGLE:
            # A table of few moves has them all, so that two pointers are of use only far away.
            every = size * (m - size) <= PAIRS
            if walking and not every and ints[_TRIES] < _PATIENCE and size < m and size > 0:
                ints[_TRIES], spent = _walk(
                    v, sel, out, mark, floats, codes, low, high, count, costs, rng, ints[_TRIES],
                    stop - ints[I_WORK],
                )  # fmt: skip
                ints[I_WORK] += spent
                if ints[_TRIES] < _PATIENCE:
                    continue
                floats[_R] = _residual(v, sel, floats[F_TARGET])
                ints[I_WORK] += size
                _remember(sel, best, floats)
                if floats[F_BEST] <= goal:
                    return REACHED
            if walking or (every and abs(floats[_R]) < _FAR * span):
                ints[_PHASE] = _TABLE
                continue
            i, j, spent = best_single_swap(v, mark, floats[_R], goal)
            ints[I_WORK] += spent
            improves = i >= 0 and abs(floats[_R] - (v[j] - v[i])) < abs(floats[_R])
            ints[_TRIES] += 1
            if improves:
                ints[I_WORK] += _swap_positions(i, j, sel, out, mark, floats, codes, count, costs)
                floats[_R] = _residual(v, sel, floats[F_TARGET])
                _remember(sel, best, floats)
                if floats[F_BEST] <= goal:
                    return REACHED
            if not improves or ints[_TRIES] >= 4 or abs(floats[_R]) < span:
                ints[_PHASE] = _TABLE
        elif phase == _TABLE:
            # Short moves first; they leave the subset nearly as it was drawn. Far from the target,
            # and every other time, all moves.
            near = abs(floats[_R]) < span and ints[I_UNSORTED] == 0
            width = (3 * m) // (2 * size) + 1 if near and ints[_ROUNDS] % 2 == 0 else 0
            ints[_ROUNDS] += 1
            n_pairs, spent, nearest, ints[_EXP0], total = _build_table(
                v, sel, out, mark, codes, low, high, count, rng, pa, pb, pd, head, floats[_R],
                width, span,
            )  # fmt: skip
            ints[I_WORK] += spent
            if n_pairs == 0:
                if width > 0:
                    continue
                return STUCK
            ints[_N_PAIRS] = n_pairs
            floats[_ERR] = abs(floats[_R])
            ints[_M1] = -1
            ints[_M2] = -1
            ints[_M3] = -1
            err = abs(floats[_R] - pd[nearest])
            if err < floats[_ERR] and _fits(
                nearest, -1, floats, codes, low, high, count, costs, pa, pb, -1
            ):
                floats[_ERR] = err
                ints[_M1] = nearest
            # Moves much shorter than the residual cannot make it up: first bring it down.
            if floats[_ERR] <= goal or (
                width > 0 and floats[_ERR] < abs(floats[_R]) and abs(floats[_R]) * n_pairs > total
            ):
                ints[_ROUNDS] -= 1
                ints[_PHASE] = _END
                continue
            ints[_CURSOR] = 0
            ints[_PHASE] = _DOUBLE
        elif phase == _DOUBLE or phase == _TRIPLE:
            n_pairs, exp0, r = ints[_N_PAIRS], ints[_EXP0], floats[_R]
            double = phase == _DOUBLE
            cursor = ints[_CURSOR]
            last = n_pairs * n_pairs // _COVERAGE + 1
            last = min(last, n_pairs // _DOUBLES + 1 if double else _ROUND)
            end = min(last, cursor + stop - ints[I_WORK])
            err = floats[_ERR]
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
                        good = _fits(p, t, floats, codes, low, high, count, costs, pa, pb, -1)
                    else:
                        good = _fits(p, q, floats, codes, low, high, count, costs, pa, pb, t)
                    if good:
                        err = e
                        ints[_M1] = p
                        ints[_M2] = t
                        ints[_M3] = q
                if err <= goal:
                    break
            ints[I_WORK] += asked - cursor + 1
            ints[_CURSOR] = asked
            floats[_ERR] = err
            if err <= goal:
                ints[_PHASE] = _END
            elif asked >= last:
                ints[_CURSOR] = 0
                ints[_PHASE] = _TRIPLE if double else _END
        else:
            improved = ints[_M1] >= 0
            for slot in (_M1, _M2, _M3):
                p = ints[slot]
                if p >= 0:
                    ints[I_WORK] += _swap_positions(
                        pa[p], pb[p], sel, out, mark, floats, codes, count, costs
                    )
            if improved:
                floats[_R] = _residual(v, sel, floats[F_TARGET])
                _remember(sel, best, floats)
                ints[I_WORK] += size
                if floats[F_BEST] <= goal:
                    return REACHED
            ints[_PHASE] = _SINGLE if improved else _START
    return UNFINISHED
