"""Uniform: every subset of size k is equally likely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.policies.arrays import Array
from subsetopt.policies.base import Signals, candidate_count
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform(ScoredPolicy):
    """Choose k samples uniformly at random, without replacement.

    The k largest of n independent uniform keys. It reads no signal and wants no scoring pass, so
    as a baseline it costs what a smaller batch costs.

    Examples
    --------
    >>> import numpy as np
    >>> Uniform().propose({"positions": np.arange(5)}, 2, np.random.default_rng(0))
    Problem(TopScores(n=5), k=2)
    """

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return n independent uniform keys, a NumPy array."""
        return rng.random(candidate_count(signals))

    def epoch_order(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the ids 0 to n-1 in random order: a pass over a data set, batch after batch."""
        return rng.permutation(n)
