"""What branch and bound on a pool works on: the path of nodes, and the best subset so far."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.array_types import Floats, Ints
from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.matching.windows import NODE as WINDOW

__all__ = ["NODE", "PROGRESS", "Tree", "record", "set_node", "start_record"]

#: A node: a window of ascending values, what is to be chosen from it, and how far it has come.
NODE = np.dtype(
    [
        *WINDOW.descr,
        ("stage", np.int64),  # 0: not looked at yet; 1, 2: that child comes next; 3: both are done
        ("taken", np.int64),  # the position that the present child has in; -1 for none
        ("include_first", np.bool_),  # whether the child that has it comes first; under limits
        ("cost", np.float64),  # the total cost of the positions that are in; under limits
    ],
    align=True,
)

#: How far a search has come, and when a branch is given up.
PROGRESS = np.dtype(
    [
        ("depth", np.int64),  # the depth of the present node; -1 once the tree is exhausted
        ("work", np.int64),  # nodes and values looked at so far
        ("center", np.float64),  # the value from which the farthest are branched on first
        ("goal", np.float64),  # a distance that ends the search
        ("slack", np.float64),  # branches that promise no more than this improvement are cut
    ]
)


class Tree(NamedTuple):
    """The path from the root to the present node, and the best subset so far."""

    nodes: NDArray[Any]  #: (m + 2,) a ``NODE`` for each depth; the root is set by the caller
    progress: NDArray[Any]  #: (1,) of type ``PROGRESS``
    best: Ints  #: (size,) positions of the best subset so far
    distance: Floats  #: (1,) its distance from the target
    counts: Ints  #: (groups,) how many of each group are in; empty without quotas
    spans: NDArray[Any]  #: (groups,) scratch for ``quota_span``: a ``SPAN`` for each group


@uncounted(forceinline=True)
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
