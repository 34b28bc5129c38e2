"""The interval bound: how far a target lies from the sums that are within reach.

The sums of ``size`` values lie between those of the smallest and of the largest. With an outlier in
the pool the target lies inside that interval and yet out of reach; so the farthest values are fixed
in and out, as branch and bound does, for a few hundred nodes. If every node then leaves the target
outside its interval, the least distance is the optimum.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.matching.lattice import ROUNDING, lattice_distance
from subsetopt.kernels.matching.windows import DEPTH, push

__all__ = [
    "MOST_NODES",
    "branching_distance",
    "distance_outside",
    "interval_distance",
    "plain_distance",
    "without_farthest",
]

# The largest number of nodes that a bound looks at.
MOST_NODES = 200


@uncounted
def interval_distance(values, size, target):
    """Return how far the target lies outside the sums of ``size`` ascending values."""
    low, high, magnitude = 0.0, 0.0, abs(target)
    for p in range(size):
        low += values[p]
        high += values[values.size - 1 - p]
        magnitude += abs(values[p]) + abs(values[values.size - 1 - p])
    return max(0.0, max(low - target, target - high) - ROUNDING * magnitude)


@uncounted(forceinline=True)
def without_farthest(values, first, end, center):
    """Return the position of the window's value farthest from the center, and the other window."""
    if center - values[first] >= values[end - 1] - center:
        return first, first + 1, end
    return end - 1, first, end - 1


@uncounted(forceinline=True)
def distance_outside(sums, a, b, k, t):
    """Return how far t lies outside the sums of k values of a window; infinity when none."""
    if k < 0 or k > b - a:
        return np.inf
    return max(sums[a + k] - sums[a] - t, t - (sums[b] - sums[b - k]), 0.0)


@uncounted
def branching_distance(values, size, target, scratch):
    """Return the least distance over the nodes of a small tree; 0 when it proves nothing.

    Parameters
    ----------
    values
        Values to choose from, shape (m,), float64, ascending.
    size, target
        How many to choose, and the sum to hit.
    scratch
        A :class:`Scratch` for m values, written to.
    """
    m, prefix, nodes = values.size, scratch.numbers, scratch.windows
    prefix[0] = 0.0
    magnitude = abs(target)
    for p in range(m):
        prefix[p + 1] = prefix[p] + values[p]
        magnitude += abs(values[p])
    center = values[m // 2]
    waiting = push(nodes, 0, 0, m, size, target)
    bound = np.inf
    for _ in range(MOST_NODES):
        waiting -= 1
        node = nodes[waiting]
        a, b, k, t = node.first, node.end, node.size, node.target
        distance = distance_outside(prefix, a, b, k, t)
        if distance > 0.0:
            bound = min(bound, distance)
        elif k == 0 or k == b - a or waiting + 2 > DEPTH:
            return 0.0
        else:
            x, first, end = without_farthest(values, a, b, center)
            waiting = push(nodes, waiting, first, end, k, t)
            waiting = push(nodes, waiting, first, end, k - 1, t - values[x])
        if waiting == 0:
            return max(0.0, bound - ROUNDING * magnitude)
    return 0.0


@uncounted
def plain_distance(values, bits, size, target, useful_above, scratch):
    """Return the larger of the lattice bound and the branching interval bound.

    The parameters are those of ``lattice_distance``.
    """
    lattice = lattice_distance(values, bits, size, target, useful_above, scratch)
    return max(lattice, branching_distance(values, size, target, scratch))
