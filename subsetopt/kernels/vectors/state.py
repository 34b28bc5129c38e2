"""What the kernels of a swap search over vectors share: points, subset, products, state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from subsetopt.kernels.array_types import Floats, Ints, Singles

__all__ = ["POOL", "STATE", "First", "Points", "Pool", "Scratch", "Subset", "Table"]

# The first swaps are made among this many of the likeliest points to take out, and to put in.
POOL = 8


class Points(NamedTuple):
    """The m vectors to choose from, in ascending order of their norms, and the sum to hit."""

    vectors: Floats  #: (n, d) the vectors of all candidates
    items: Ints  #: (m,) the candidate of each point; -1 for a zero vector
    inverse: float  #: what a candidate's vector is multiplied by to give its point
    columns: Singles  #: (d, m) the points, one per column
    norms: Floats  #: (m,) the norms of the points
    target: Floats  #: (d,) the sum that the members should have, in the points' unit


class Subset(NamedTuple):
    """The present subset and the best one so far, all changed in place."""

    members: Ints  #: (size,) the points in the present subset
    best: Ints  #: (size,) the points in the best subset so far
    residual: Floats  #: (d,) the target less the sum of the members
    penalty: Singles  #: (m,) FAR for members, 0 for the other points
    counts: Ints  #: (g,) the number of members per group; empty without quotas
    spent: Floats  #: (1,) the total cost of the members


class Table(NamedTuple):
    """Inner products that are kept from step to step.

    There are no rows where none are kept, and above size + 1 where they are.
    """

    rows: Singles  #: (R, m) each row -2 times the products of all points with one point
    slots: Ints  #: (m,) the row of each point, -1 for none; empty where R is 0
    holders: Ints  #: (R,) the point of each row, -1 for none
    products: Floats  #: (m,) ``|v_j|^2 - 2 r.v_j`` of every point j, with the residual r
    keys: Singles  #: (m,) the products in single precision, plus the penalty of members
    factor: Singles  #: (d,) scratch: what the points are multiplied by


class Scratch(NamedTuple):
    """Arrays that a step writes and the next one forgets."""

    distances: Singles  #: (m,) squared distances of some points
    after: Floats  #: (d,) the residual after a swap
    center: Singles  #: (d,) the residual without a member, whose nearest neighbor is wanted
    lanes: Singles  #: (LANES,) running minima


class Pool(NamedTuple):
    """The likeliest points to take out, or to put in; the key of a swapped one is FAR."""

    keys: Singles  #: (c,) what each adds to the squared residual, ascending at first
    places: Ints  #: (c,) where each comes from: a position among the members, or a point
    rows: Singles  #: (c, d) the points themselves


class First(NamedTuple):
    """Arrays that a round of the first swaps writes and the next one forgets."""

    members: Ints  #: (size,) the members before the round
    member_keys: Singles  #: (size,) what taking each out adds to the squared residual
    out_keys: Singles  #: (POOL,) the keys of a :class:`Pool` of points to take out
    out_places: Ints  #: (POOL,) its places
    out_rows: Singles  #: (POOL, d) its rows
    in_keys: Singles  #: (POOL,) the keys of a :class:`Pool` of points to put in
    in_places: Ints  #: (POOL,) its places
    in_rows: Singles  #: (POOL, d) its rows
    cross: Singles  #: (POOL, POOL) products of the points of both pools
    column: Singles  #: (POOL,) one column of ``cross``

    @classmethod
    def of(cls, size: int, d: int) -> First:
        """Return the arrays for a subset of some size of points of d coordinates."""
        keys, places, rows = (
            np.empty((2, POOL), dtype=np.float32),
            np.empty((2, POOL), dtype=np.int64),
            np.empty((2, POOL, d), dtype=np.float32),
        )
        return cls(
            np.empty(size, dtype=np.int64), np.empty(size, dtype=np.float32),
            keys[0], places[0], rows[0], keys[1], places[1], rows[1],
            np.empty((POOL, POOL), dtype=np.float32), np.empty(POOL, dtype=np.float32),
        )  # fmt: skip


# The numbers that change during a search. The caller sets goal, threshold, mean_width, descent and
# window, and leaves the others 0.
STATE = np.dtype(
    [
        ("goal", np.float64),  # the squared norm of the residual to reach
        ("best", np.float64),  # the smallest one so far
        ("walk_best", np.float64),  # the smallest one since the walk began
        ("reference", np.float64),  # the one that the threshold refers to
        ("now", np.float64),  # the present one
        ("threshold", np.float64),  # a swap is accepted below this multiple of ``reference``
        ("mean_width", np.float64),  # the mean number of points whose norm fits; below 0: unknown
        ("work", np.int64),  # coordinates looked at so far, or what takes as long
        ("descent", np.int64),  # whether the search ends at the first local optimum
        ("window", np.int64),  # points looked at in one step while there is much to gain
        ("central", np.int64),  # whether the residual points to where nothing can be proved
        ("phase", np.int64),  # 0 before the first call, 1 for the first swaps, 2 for the walk
        ("stale", np.int64),  # steps without a new smallest residual since ``reference`` was set
        ("last", np.int64),  # the position of the member that came in last, -1 for none
        ("misses", np.int64),  # steps in a row that found no swap
        ("by_products", np.int64),  # whether distances are found by kept products
        ("fresh", np.int64),  # whether the kept products are up to date
        ("next_row", np.int64),  # the row of the table to use next
        ("since", np.int64),  # steps since ``walk_best`` was lowered
        ("span", np.int64),  # how many spans of steps this walk may take for it
        ("turn", np.int64),  # where the sequence of these spans stands
    ]
)
