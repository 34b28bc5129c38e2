"""What vectors are divided by, so that their squares neither overflow nor vanish."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline, OutOfTimeError
from subsetopt.objectives import VectorMatching

__all__ = ["divided", "pieces", "unit_of"]

# Numbers that are written between two looks at the clock, in some milliseconds where memory is new.
_NUMBERS = 1 << 20
# Seconds that a number takes at least.
_SECONDS = 3e-10


def unit_of(objective: VectorMatching, beyond: float) -> float:
    """Return the mean norm, or the largest entry of a target that lies far beyond the vectors.

    Parameters
    ----------
    objective
        The vectors and their target.
    beyond
        How many mean norms an entry of the target may be long before it sets the unit.
    """
    unit = objective.scale if objective.scale > sys.float_info.min else 1.0
    furthest = float(np.abs(objective.target).max(initial=0.0))
    # Not a product, which may overflow.
    return furthest if furthest / beyond > unit else unit


def pieces(shape: tuple[int, ...], deadline: Deadline) -> Iterator[slice]:
    """Yield parts of a matrix's rows; raises OutOfTimeError where time is up before one.

    Time that cannot be enough for all counts as none.
    """
    n, d = shape
    if deadline.remaining() < _SECONDS * n * d:
        raise OutOfTimeError
    step = max(1, _NUMBERS // max(d, 1)) if deadline.limited else max(n, 1)
    for first in range(0, n, step):
        deadline.check()
        yield slice(first, min(first + step, n))


def divided(vectors: NDArray[np.float64], unit: float, deadline: Deadline) -> NDArray[np.float64]:
    """Return vectors over a number; raises OutOfTimeError where time is up before all are."""
    quotients = np.empty(vectors.shape)
    for part in pieces(vectors.shape, deadline):
        np.divide(vectors[part], unit, out=quotients[part])
    return quotients
