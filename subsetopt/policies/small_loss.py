"""Small loss: the k smallest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from subsetopt.policies.arrays import Array, as_float64
from subsetopt.policies.base import Signals, signal
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["SmallLoss"]


@dataclass(frozen=True)
class SmallLoss(ScoredPolicy):
    """Choose the k samples with the smallest losses (min-k).

    It is robust to outliers, and slow: it keeps training on what the model already knows.

    References
    ----------
    Shah, Wu & Sanghavi, Choosing the Sample with Lowest Loss makes SGD Robust, AISTATS 2020.

    Examples
    --------
    >>> import numpy as np
    >>> SmallLoss().scores({"losses": np.array([0.1, 3.0, 2.0])}, 2, np.random.default_rng(0))
    array([-0.1, -3. , -2. ])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return the negated losses."""
        # The conversion comes first, since negating an unsigned integer wraps around.
        return -as_float64(signal(signals, "losses", "small-loss"))
