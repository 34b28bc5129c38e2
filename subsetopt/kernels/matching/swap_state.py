"""What a swap search on a pool of values works on: the subset, the table of moves, the state."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.array_types import Floats, Ints
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
        ("work", np.int64),  # differences of two values looked at so far: the unit of work
        ("phase", np.int64),  # what comes next: one of the phases of the module ``swap``
        # How to start anew: after that many random swaps, or from a draw, STRATIFIED or UNIFORM.
        ("restart", np.int64),
        ("tries", np.int64),  # fruitless random swaps in a row, or single swaps, since a table
        ("tables", np.int64),  # tables built for subsets drawn so far
        ("moves", np.int64),  # moves in the table
        ("first_key", np.int64),  # the key of the table's first bucket
        ("asked", np.int64),  # questions asked of the table in this phase
        # The moves of the table that together come nearest to the target; -1 for none.
        ("first", np.int64),
        ("second", np.int64),
        ("third", np.int64),
        ("distance", np.float64),  # the distance from the target that these moves would leave
        ("target", np.float64),  # the sum to hit
        ("residual", np.float64),  # the target less the sum of the subset
        ("best_distance", np.float64),  # the distance of the best subset so far from the target
        ("goal", np.float64),  # the distance that is enough
        ("cost", np.float64),  # the total cost of the subset
        ("span", np.float64),  # the largest value less the smallest
        ("given", np.bool_),  # whether the subset is set already, so that none is to be drawn
        ("unsorted", np.bool_),  # whether the values are in no order: no strata, no pointers
    ],
    align=True,
)


class Subset(NamedTuple):
    """A subset of ``size`` of m positions, and the best one so far."""

    chosen: Ints  #: (size,) positions in the subset, in any order
    rest: Ints  #: (m - size,) the other positions, in any order
    mark: NDArray[np.uint8]  #: (m,) 1 at positions in the subset and 0 at the others
    counts: Ints  #: (groups,) members of the subset in each group; empty without quotas
    best: Ints  #: (size,) positions of the best subset so far


class Table(NamedTuple):
    """Moves of one subset, found by what they add to its sum.

    An infinite gain stands past the end, so that a question to an empty bucket needs no branch.
    """

    heads: NDArray[np.int16]  #: (BUCKETS,) one move of each bucket; MOVES in an empty bucket
    leaving: NDArray[np.int32]  #: (MOVES,) the position that each move takes out of the subset
    entering: NDArray[np.int32]  #: (MOVES,) the position that each move puts into the subset
    gains: Floats  #: (MOVES + 1,) what each move adds to the sum


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
    now.target, now.goal, now.span, now.cost = target, goal, span, cost
    now.restart, now.given, now.unsorted = restart, given, unsorted
