"""What the kernels of a swap search over vectors share: points, subset, products, state."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["POOL", "STATE", "First", "Points", "Pool", "Scratch", "Subset", "Table"]

# How many of the likeliest points to take out, and to put in, the first swaps are made among.
POOL = 8


class Points(NamedTuple):
    """The m vectors to choose from, in ascending order of their norms, and the sum to hit.

    Attributes
    ----------
    vectors
        (n, d) the vectors of all candidates.
    items
        (m,) the candidate of each point; -1 for a zero vector.
    inverse
        What a candidate's vector is multiplied by to give its point.
    columns
        (d, m) the points, one per column.
    norms
        (m,) the norms of the points.
    target
        (d,) the sum that the members should have, in the points' unit.
    """

    vectors: NDArray[np.float64]
    items: NDArray[np.int64]
    inverse: float
    columns: NDArray[np.float32]
    norms: NDArray[np.float64]
    target: NDArray[np.float64]


class Subset(NamedTuple):
    """The present subset and the best one so far, all changed in place.

    Attributes
    ----------
    members
        (size,) the points in the present subset.
    best
        (size,) the points in the best subset so far.
    residual
        (d,) the target less the sum of the members.
    penalty
        (m,) FAR for members, 0 for the other points.
    counts
        (g,) the number of members per group; empty without quotas.
    spent
        (1,) the total cost of the members.
    """

    members: NDArray[np.int64]
    best: NDArray[np.int64]
    residual: NDArray[np.float64]
    penalty: NDArray[np.float32]
    counts: NDArray[np.int64]
    spent: NDArray[np.float64]


class Table(NamedTuple):
    """Inner products that are kept from step to step.

    Attributes
    ----------
    rows
        (R, m) each row -2 times the products of all points with one point. R is 0 where none are
        kept, or above size + 1.
    slots
        (m,) the row of each point, -1 for none; empty where R is 0.
    holders
        (R,) the point of each row, -1 for none.
    products
        (m,) ``|v_j|^2 - 2 r.v_j`` of all points with the residual r.
    keys
        (m,) the same numbers in single precision, with the penalty of members added.
    factor
        (d,) scratch: what the points are multiplied by.
    """

    rows: NDArray[np.float32]
    slots: NDArray[np.int64]
    holders: NDArray[np.int64]
    products: NDArray[np.float64]
    keys: NDArray[np.float32]
    factor: NDArray[np.float32]


class Scratch(NamedTuple):
    """Arrays that a step writes and the next one forgets.

    Attributes
    ----------
    distances
        (m,) squared distances of some points.
    after
        (d,) the residual after a swap.
    center
        (d,) the residual without a member, whose nearest neighbor is looked for.
    lanes
        (LANES,) running minima.
    """

    distances: NDArray[np.float32]
    after: NDArray[np.float64]
    center: NDArray[np.float32]
    lanes: NDArray[np.float32]


class Pool(NamedTuple):
    """The likeliest points to take out, or to put in.

    Attributes
    ----------
    keys
        (c,) what each adds to the squared residual, ascending at first; FAR once it is swapped.
    places
        (c,) where the keys come from: positions of members, or points.
    rows
        (c, d) the points themselves.
    """

    keys: NDArray[np.float32]
    places: NDArray[np.int64]
    rows: NDArray[np.float32]


class First(NamedTuple):
    """Arrays that a round of the first swaps writes and the next one forgets.

    Attributes
    ----------
    members, member_keys
        (size,) the members before the round, and what taking each out adds to the squared residual.
    out_keys, out_places, out_rows
        Room for a :class:`Pool` of POOL points to take out.
    in_keys, in_places, in_rows
        Room for a :class:`Pool` of POOL points to put in.
    cross
        (POOL, POOL) products of the points of both pools.
    column
        (POOL,) a column of these.
    """

    members: NDArray[np.int64]
    member_keys: NDArray[np.float32]
    out_keys: NDArray[np.float32]
    out_places: NDArray[np.int64]
    out_rows: NDArray[np.float32]
    in_keys: NDArray[np.float32]
    in_places: NDArray[np.int64]
    in_rows: NDArray[np.float32]
    cross: NDArray[np.float32]
    column: NDArray[np.float32]

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
        # Squared norms of the residual: the one to reach, the smallest so far, the smallest since
        # the walk began, the one that the threshold refers to, and the present one.
        ("goal", np.float64),
        ("best", np.float64),
        ("walk_best", np.float64),
        ("reference", np.float64),
        ("now", np.float64),
        # A swap is accepted below this multiple of ``reference``.
        ("threshold", np.float64),
        # The mean number of points whose norm fits, below 0 before it is known.
        ("mean_width", np.float64),
        # Coordinates looked at so far, or what takes as long.
        ("work", np.int64),
        # Whether the search is to end at the first local optimum.
        ("descent", np.int64),
        # Points looked at in one step while there is much to gain.
        ("window", np.int64),
        # Whether the residual is known to point to where nothing can be proved.
        ("central", np.int64),
        # The phase: 0 before the first call, 1 for the first swaps, 2 for the walk.
        ("phase", np.int64),
        # Steps without a new smallest residual since ``reference`` was set.
        ("stale", np.int64),
        # The position of the member that came in last, -1 for none.
        ("last", np.int64),
        # Steps in a row that found no swap.
        ("misses", np.int64),
        # Whether distances are found by kept products, and whether these are up to date.
        ("by_products", np.int64),
        ("fresh", np.int64),
        # The row of the table to use next.
        ("next_row", np.int64),
        # Steps since ``walk_best`` was lowered, how many spans it may take, and how many walks
        # there were.
        ("since", np.int64),
        ("span", np.int64),
        ("turn", np.int64),
    ]
)
