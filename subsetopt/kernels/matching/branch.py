"""Branch and bound on the values farthest from the middle, bounded by intervals of sums.

After some of the farthest values are fixed in or out, the rest is a contiguous window of the
sorted pool, and prefix sums give the interval that its sums of a given size span. A target outside
that interval is nearest to the interval's end. Equal values are taken in order only, so that a
pool of few distinct values is enumerated by counts.

The search keeps its stack in arrays that the caller holds: it can stop after any chunk of work.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = [
    "B_DEPTH",
    "B_WORK",
    "branch",
    "nearest",
    "open_distance",
    "record",
    "run_length",
]

B_DEPTH, B_WORK = 0, 1


@njit(cache=True)
def record(best, value, best_value, take, depth, first, count):
    """Keep the path's values and ``count`` positions from ``first`` on as the best subset."""
    if value >= best_value[0]:
        return
    best_value[0] = value
    filled = 0
    for d in range(depth):
        if take[d] >= 0:
            best[filled] = take[d]
            filled += 1
    for p in range(first, first + count):
        best[filled] = p
        filled += 1


@njit(cache=True)
def _record_without(best, value, best_value, take, depth, a, b, x, y):
    """Keep the path's values and the window but for positions x and y as the best subset."""
    if value >= best_value[0]:
        return
    best_value[0] = value
    filled = 0
    for d in range(depth):
        if take[d] >= 0:
            best[filled] = take[d]
            filled += 1
    for p in range(a, b):
        if p != x and p != y:
            best[filled] = p
            filled += 1


@njit(cache=True)
def nearest(v, a, b, wanted):
    """Return the position in [a, b) whose value is nearest to the wanted one."""
    low, high = a, b
    while low < high:
        middle = (low + high) // 2
        if v[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    if low == b or (low > a and wanted - v[low - 1] <= v[low] - wanted):
        return low - 1
    return low


@njit(cache=True)
def _nearest_pair(v, a, b, wanted):
    """Return two positions in [a, b) whose sum is nearest to the wanted one."""
    i, j = a, b - 1
    best_i, best_j, err = i, j, np.inf
    while i < j:
        off = v[i] + v[j] - wanted
        if abs(off) < err:
            err, best_i, best_j = abs(off), i, j
        if off < 0.0:
            i += 1
        else:
            j -= 1
    return best_i, best_j


@njit(cache=True)
def _outside(prefix, a, b, k, t):
    """Return how far t lies outside the sums of k values of the window; infinity when none."""
    if k < 0 or k > b - a:
        return np.inf
    return max(prefix[a + k] - prefix[a] - t, t - (prefix[b] - prefix[b - k]), 0.0)


@njit(cache=True)
def run_length(keys, x, step, most):
    """Return how many of x, x + step, ... (step 1 or -1), at most ``most``, have the key of x.

    Equal keys lie side by side: strides that double, then halve.
    """
    reach = 1
    while reach < most and keys[x + step * reach] == keys[x]:
        reach <<= 1
    inside, outside = reach >> 1, min(reach, most)
    while inside + 1 < outside:
        middle = (inside + outside) >> 1
        if keys[x + step * middle] == keys[x]:
            inside = middle
        else:
            outside = middle
    return outside


@njit(cache=True)
def _children(v, a, b, center):
    """Return the windows, sizes and targets of both children, include first: flat."""
    if center - v[a] >= v[b - 1] - center:
        x, inc_a, inc_b = a, a + 1, b
        exc_a, exc_b = a + run_length(v, a, 1, b - a), b
    else:
        x, inc_a, inc_b = b - 1, a, b - 1
        exc_a, exc_b = a, b - run_length(v, b - 1, -1, b - a)
    return x, inc_a, inc_b, exc_a, exc_b


@njit(cache=True)
def branch(v, prefix, center, best, best_value, goal, slack, win, target, stage, take, ints, work):
    """Go on with the search for about ``work`` units; return whether it is finished.

    Parameters
    ----------
    v, prefix
        Ascending values (m,), and their prefix sums (m + 1,), starting with 0.
    center
        The value from which the farthest are branched on first.
    best, best_value
        The best subset's positions and (1,) its distance, changed in place.
    goal
        A distance that ends the search.
    slack
        Branches that promise no more than this much improvement are cut.
    win, target, stage, take
        The stack: window and size (m + 2, 3), target (m + 2,), stage and taken position (m + 2,).
        The root is set by the caller.
    ints
        Depth and work done.
    work
        Nodes, and values looked at in leaves.
    """
    stop = ints[B_WORK] + work
    depth = ints[B_DEPTH]
    while depth >= 0:
        if ints[B_WORK] >= stop:
            ints[B_DEPTH] = depth
            return False
        ints[B_WORK] += 1
        a, b, k, t = win[depth, 0], win[depth, 1], win[depth, 2], target[depth]
        if stage[depth] == 0:
            distance = _outside(prefix, a, b, k, t)
            if distance >= best_value[0] - slack:
                depth -= 1
                continue
            low, high = prefix[a + k] - prefix[a], prefix[b] - prefix[b - k]
            if t <= low:
                record(best, low - t, best_value, take, depth, a, k)
            elif t >= high:
                record(best, t - high, best_value, take, depth, b - k, k)
            elif k == 1:
                p = nearest(v, a, b, t)
                record(best, abs(v[p] - t), best_value, take, depth, p, 1)
            elif k == b - a - 1:
                left = prefix[b] - prefix[a] - t
                p = nearest(v, a, b, left)
                _record_without(best, abs(v[p] - left), best_value, take, depth, a, b, p, p)
            elif k == 2:
                i, j = _nearest_pair(v, a, b, t)
                ints[B_WORK] += b - a
                value = abs(v[i] + v[j] - t)
                if value < best_value[0]:
                    take[depth] = i
                    record(best, value, best_value, take, depth + 1, j, 1)
            elif k == b - a - 2:
                left = prefix[b] - prefix[a] - t
                i, j = _nearest_pair(v, a, b, left)
                ints[B_WORK] += b - a
                value = abs(v[i] + v[j] - left)
                _record_without(best, value, best_value, take, depth, a, b, i, j)
            else:
                stage[depth] = 1
            if best_value[0] <= goal:
                ints[B_DEPTH] = depth
                return True
            if stage[depth] == 0:
                depth -= 1
                continue
        if stage[depth] > 2:
            depth -= 1
            continue
        x, inc_a, inc_b, exc_a, exc_b = _children(v, a, b, center)
        # The child whose interval lies better around the target first.
        inc = _middle(prefix, inc_a, inc_b, k - 1, t - v[x])
        exc = _middle(prefix, exc_a, exc_b, k, t)
        include = (inc <= exc) == (stage[depth] == 1)
        stage[depth] += 1
        take[depth] = x if include else -1
        depth += 1
        stage[depth] = 0
        if include:
            win[depth, 0], win[depth, 1], win[depth, 2] = inc_a, inc_b, k - 1
            target[depth] = t - v[x]
        else:
            win[depth, 0], win[depth, 1], win[depth, 2] = exc_a, exc_b, k
            target[depth] = t
    ints[B_DEPTH] = -1
    return True


@njit(cache=True)
def _middle(prefix, a, b, k, t):
    """Return how far t is from the middle of the window's sums; infinity when there are none."""
    if k < 0 or k > b - a:
        return np.inf
    return abs(0.5 * (prefix[a + k] - prefix[a] + prefix[b] - prefix[b - k]) - t)


@njit(cache=True)
def open_distance(v, prefix, center, win, target, stage, ints):
    """Return a lower bound on the distance of every subset not yet looked at."""
    depth = ints[B_DEPTH]
    bound = np.inf
    for d in range(depth + 1):
        a, b, k, t = win[d, 0], win[d, 1], win[d, 2], target[d]
        if stage[d] == 0:
            bound = min(bound, _outside(prefix, a, b, k, t))
        elif stage[d] == 2:
            # The child that went second is still to be looked at.
            x, inc_a, inc_b, exc_a, exc_b = _children(v, a, b, center)
            inc = _middle(prefix, inc_a, inc_b, k - 1, t - v[x])
            exc = _middle(prefix, exc_a, exc_b, k, t)
            if inc <= exc:
                bound = min(bound, _outside(prefix, exc_a, exc_b, k, t))
            else:
                bound = min(bound, _outside(prefix, inc_a, inc_b, k - 1, t - v[x]))
    return bound
