"""What a swap search on a pool of values works on: the subset, the table of moves, the state."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.compiling import uncounted

__all__ = ["BUCKETS", "MANTISSA_BITS", "MOVES", "STATE", "Subset", "Table", "reset"]

# Moves in the table. More of them answer a question with more subsets, but cost more to build; at
# n = 128, k = 13 all 1,495 fit.
MOVES = 2048
# Buckets of the table: leading bits of the mantissa, binary orders of magnitude, two signs.
MANTISSA_BITS = 8
_OCTAVES = 12
BUCKETS = 2 * (_OCTAVES << MANTISSA_BITS)

#: The scalars of one search, as a record that compiled functions read and write by field name.
STATE = np.dtype(
    [
        # Differences of two values looked at so far: the unit of work.
        ("work", np.int64),
        # What the search does next; one of the phases of the module ``swap``.
        ("phase", np.int64),
        # How to start anew: after that many random swaps, or from a draw, STRATIFIED or UNIFORM.
        ("restart", np.int64),
        # Fruitless random swaps in a row, or single swaps made, since the last table.
        ("tries", np.int64),
        # Tables built for subsets drawn so far.
        ("tables", np.int64),
        # Moves in the table, and the key of its first bucket.
        ("moves", np.int64),
        ("first_key", np.int64),
        # Questions asked of the table in this phase.
        ("asked", np.int64),
        # Moves of the table that together come nearest to the target; -1 for none.
        ("first", np.int64),
        ("second", np.int64),
        ("third", np.int64),
        # Distance from the target that these moves would leave.
        ("distance", np.float64),
        # The sum to hit.
        ("target", np.float64),
        # Target less the sum of the subset.
        ("residual", np.float64),
        # Distance of the best subset so far from the target, and the distance that is enough.
        ("best_distance", np.float64),
        ("goal", np.float64),
        # Total cost of the subset.
        ("cost", np.float64),
        # The largest value less the smallest.
        ("span", np.float64),
        # Whether the subset is set already, so that none is to be drawn.
        ("given", np.bool_),
        # Whether the values are in no order: neither strata nor pointers are of use then.
        ("unsorted", np.bool_),
    ],
    align=True,
)


class Subset(NamedTuple):
    """A subset of ``size`` of m positions, and the best one so far.

    Attributes
    ----------
    chosen, rest
        Positions in the subset, shape (size,), and the others, shape (m - size,), int64; in any
        order.
    mark
        1 at positions in the subset and 0 at the others, shape (m,), uint8.
    counts
        Members of the subset in each group, shape (groups,), int64; empty without quotas.
    best
        Positions of the best subset so far, shape (size,), int64.
    """

    chosen: NDArray[np.int64]
    rest: NDArray[np.int64]
    mark: NDArray[np.uint8]
    counts: NDArray[np.int64]
    best: NDArray[np.int64]


class Table(NamedTuple):
    """Moves of one subset, found by what they add to its sum.

    Attributes
    ----------
    heads
        One move of each bucket, shape (BUCKETS,), int16; MOVES in an empty bucket.
    leaving, entering
        Positions that each move takes out of the subset and into it, shape (MOVES,), int32.
    gains
        What each move adds to the sum, shape (MOVES + 1,), float64; infinite for the one past the
        end, so that a question to an empty bucket needs no branch.
    """

    heads: NDArray[np.int16]
    leaving: NDArray[np.int32]
    entering: NDArray[np.int32]
    gains: NDArray[np.float64]


@uncounted
def reset(
    state: NDArray[Any],
    target: float,
    goal: float,
    span: float,
    cost: float,
    restart: int,
    given: bool,
    unsorted: bool,
) -> None:
    """Set the state of a search to its beginning; the arguments are fields of ``STATE``."""
    now = state[0]
    now.work = now.phase = now.tries = now.tables = 0
    now.moves = now.first_key = now.asked = 0
    now.first = now.second = now.third = -1
    now.distance = now.best_distance = np.inf
    now.residual = 0.0
    now.target = target
    now.goal = goal
    now.span = span
    now.cost = cost
    now.restart = restart
    now.given = given
    now.unsorted = unsorted
