"""What vectors are divided by, so that their squares neither overflow nor vanish."""

from __future__ import annotations

import sys

import numpy as np

from subsetopt.objectives import VectorMatching

__all__ = ["unit_of"]


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
