"""What branch and bound on a pool works on: the path of nodes, and the best subset so far."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.compiling import njit, uncounted

__all__ = ["NODE", "PROGRESS", "Tree", "record", "set_node", "start_record"]

#: A node: a window of ascending values, what is to be chosen from it, and how far it has come.
NODE = np.dtype(
    [
        # The window of positions, ``end`` exclusive.
        ("first", np.int64),
        ("end", np.int64),
        # How many of the window to choose, and the sum to hit.
        ("size", np.int64),
        ("target", np.float64),
        # 0: not looked at yet; 1 and 2: the first or the second child comes next; 3: both are done.
        ("stage", np.int64),
        # The position that the present child has in; -1 for none.
        ("taken", np.int64),
        # Whether the child that has a position in comes first; used under limits only.
        ("include_first", np.bool_),
        # Total cost of the positions that are in; used under limits only.
        ("cost", np.float64),
    ],
    align=True,
)

#: How far a search has come, and when a branch is given up.
PROGRESS = np.dtype(
    [
        # Depth of the present node; -1 once the tree is exhausted.
        ("depth", np.int64),
        # Nodes and values looked at so far.
        ("work", np.int64),
        # The value from which the farthest are branched on first.
        ("center", np.float64),
        # A distance that ends the search.
        ("goal", np.float64),
        # Branches that promise no more than this much improvement are cut.
        ("slack", np.float64),
    ]
)


class Tree(NamedTuple):
    """The path from the root to the present node, and the best subset so far.

    Attributes
    ----------
    nodes
        A ``NODE`` for each depth, shape (m + 2,); the root is set by the caller.
    progress
        Array of one ``PROGRESS``.
    best
        Positions of the best subset so far, shape (size,), int64.
    distance
        Its distance from the target, shape (1,), float64.
    counts
        How many of each group are in, shape (groups,), int64; empty without quotas.
    spans
        Scratch for ``quota_span``: a ``SPAN`` for each group, shape (groups,).
    """

    nodes: NDArray[Any]
    progress: NDArray[Any]
    best: NDArray[np.int64]
    distance: NDArray[np.float64]
    counts: NDArray[np.int64]
    spans: NDArray[Any]


@njit(cache=True, inline="always")
def set_node(tree, depth, first, end, size, target):
    """Set the node at a depth to a window that is not looked at yet."""
    node = tree.nodes[depth]
    node.first, node.end, node.size, node.target = first, end, size, target
    node.stage = 0
    node.taken = -1


@uncounted
def start_record(tree, distance, depth):
    """Begin a best subset with what the nodes above a depth have in; return how many they are.

    Returns -1 and changes nothing where the subset is not better than the best so far.
    """
    if distance >= tree.distance[0]:
        return -1
    tree.distance[0] = distance
    filled = 0
    for d in range(depth):
        if tree.nodes[d].taken >= 0:
            tree.best[filled] = tree.nodes[d].taken
            filled += 1
    return filled


@uncounted
def record(tree, distance, depth, first, count):
    """Keep the path above a depth and ``count`` positions from ``first`` on, if they are better."""
    filled = start_record(tree, distance, depth)
    if filled >= 0:
        for p in range(first, first + count):
            tree.best[filled] = p
            filled += 1
