"""Uniform: every subset of size k is equally likely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subsetopt.objectives import TopScores
from subsetopt.policies.base import Signals, StatelessPolicy, candidate_count
from subsetopt.problem import Problem

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform(StatelessPolicy):
    """Choose k samples uniformly at random, without replacement.

    The k largest of n independent uniform keys. It reads no signal and wants no scoring pass, so
    as a baseline it costs what a smaller batch costs.

    Examples
    --------
    >>> import numpy as np
    >>> Uniform().propose({"positions": np.arange(5)}, 2, np.random.default_rng(0))
    Problem(TopScores(n=5), k=2)
    """

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return a top-k of random keys."""
        return Problem(TopScores(rng.random(candidate_count(signals))), k)
