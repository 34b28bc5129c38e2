"""Branch and bound on the values farthest from the middle, bounded by intervals of sums.

After some of the farthest values are fixed in or out, the rest is a contiguous window of the
sorted pool, and prefix sums give the interval that its sums of a given size span. A target outside
that interval is nearest to the interval's end. Equal values are taken in order only, so that a
pool of few distinct values is enumerated by counts.

The search keeps its path in arrays that the caller holds: it can stop after any chunk of work.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.matching.bisection import nearest
from subsetopt.kernels.matching.interval import distance_outside, without_farthest
from subsetopt.kernels.matching.tree import record, set_node, start_record

__all__ = ["branch", "open_distance", "run_length"]


@uncounted
def _record_without(tree, distance, depth, a, b, x, y):
    """Keep the path and the window but for positions x and y, if they are better."""
    filled = start_record(tree, distance, depth)
    if filled >= 0:
        for p in range(a, b):
            if p != x and p != y:
                tree.best[filled] = p
                filled += 1


@uncounted
def _nearest_pair(values, a, b, wanted):
    """Return two positions in [a, b) whose sum is nearest to the wanted one."""
    i, j = a, b - 1
    best_i, best_j, distance = i, j, np.inf
    while i < j:
        off = values[i] + values[j] - wanted
        if abs(off) < distance:
            distance, best_i, best_j = abs(off), i, j
        if off < 0.0:
            i += 1
        else:
            j -= 1
    return best_i, best_j


@uncounted
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


@uncounted(forceinline=True)
def _children(values, a, b, center):
    """Return the position x to branch on, the window with x in, and the one with x out.

    Equal values go out together, so that they are taken in order only.
    """
    x, first, end = without_farthest(values, a, b, center)
    if x == a:
        return x, first, end, a + run_length(values, x, 1, b - a), b
    return x, first, end, a, b - run_length(values, x, -1, b - a)


@uncounted(forceinline=True)
def _is_settled(values, sums, tree, depth):
    """Look at a node; return whether it is cut, or its best subset is recorded.

    The children of a node that is not settled come next.
    """
    node, progress = tree.nodes[depth], tree.progress[0]
    a, b, k, t = node.first, node.end, node.size, node.target
    if distance_outside(sums, a, b, k, t) >= tree.distance[0] - progress.slack:
        return True
    low, high = sums[a + k] - sums[a], sums[b] - sums[b - k]
    others = sums[b] - sums[a] - t  # the sum that the values left out should have
    if t <= low:
        record(tree, low - t, depth, a, k)
    elif t >= high:
        record(tree, t - high, depth, b - k, k)
    elif k == 1:
        p = nearest(values, a, b, t)
        record(tree, abs(values[p] - t), depth, p, 1)
    elif k == b - a - 1:
        p = nearest(values, a, b, others)
        _record_without(tree, abs(values[p] - others), depth, a, b, p, p)
    elif k == 2:
        i, j = _nearest_pair(values, a, b, t)
        progress.work += b - a
        node.taken = i
        record(tree, abs(values[i] + values[j] - t), depth + 1, j, 1)
    elif k == b - a - 2:
        i, j = _nearest_pair(values, a, b, others)
        progress.work += b - a
        _record_without(tree, abs(values[i] + values[j] - others), depth, a, b, i, j)
    else:
        node.stage = 1
        return False
    return True


@uncounted(forceinline=True)
def _add_child(values, sums, tree, depth):
    """Set the next child of a node: first the one whose interval lies better around the target."""
    node, size, target = tree.nodes[depth], tree.nodes[depth].size, tree.nodes[depth].target
    x, in_first, in_end, out_first, out_end = _children(
        values, node.first, node.end, tree.progress[0].center
    )
    distance_in = _middle(sums, in_first, in_end, size - 1, target - values[x])
    distance_out = _middle(sums, out_first, out_end, size, target)
    include = (distance_in <= distance_out) == (node.stage == 1)
    node.stage += 1
    if include:
        node.taken = x
        set_node(tree, depth + 1, in_first, in_end, size - 1, target - values[x])
    else:
        node.taken = -1
        set_node(tree, depth + 1, out_first, out_end, size, target)


@uncounted
def branch(values, sums, tree, work):
    """Go on with the search for about ``work`` units; return whether it is finished.

    Parameters
    ----------
    values, sums
        Values of the pool, shape (m,), float64, ascending, and their cumulated sums from 0, shape
        (m + 1,).
    tree
        A :class:`Tree`, written to.
    work
        Nodes to look at, and values in leaves.
    """
    progress, depth = tree.progress[0], tree.progress[0].depth
    stop = progress.work + work
    while depth >= 0 and progress.work < stop:
        progress.work += 1
        node = tree.nodes[depth]
        if node.stage == 0 and _is_settled(values, sums, tree, depth):
            if tree.distance[0] <= progress.goal:
                progress.depth = depth
                return True
            depth -= 1
        elif node.stage > 2:
            depth -= 1
        else:
            _add_child(values, sums, tree, depth)
            depth += 1
    progress.depth = depth
    return depth < 0


@uncounted(forceinline=True)
def _middle(sums, a, b, k, t):
    """Return how far t is from the middle of the window's sums; infinity when there are none."""
    if k < 0 or k > b - a:
        return np.inf
    return abs(0.5 * (sums[a + k] - sums[a] + sums[b] - sums[b - k]) - t)


@uncounted
def open_distance(values, sums, tree):
    """Return a lower bound on the distance of every subset not yet looked at."""
    progress = tree.progress[0]
    bound = np.inf
    for d in range(progress.depth + 1):
        node = tree.nodes[d]
        a, b, k, t = node.first, node.end, node.size, node.target
        if node.stage == 0:
            bound = min(bound, distance_outside(sums, a, b, k, t))
        elif node.stage == 2:
            # The child that went second is still to be looked at.
            x, in_first, in_end, out_first, out_end = _children(values, a, b, progress.center)
            distance_in = _middle(sums, in_first, in_end, k - 1, t - values[x])
            if distance_in <= _middle(sums, out_first, out_end, k, t):
                bound = min(bound, distance_outside(sums, out_first, out_end, k, t))
            else:
                bound = min(bound, distance_outside(sums, in_first, in_end, k - 1, t - values[x]))
    return bound
