"""Policies that are a top-k: each gives every candidate a score, and the k largest are chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from subsetopt.objectives import TopScores
from subsetopt.policies.arrays import Array, to_host
from subsetopt.policies.base import Signals, StatelessPolicy
from subsetopt.problem import Problem

__all__ = ["ScoredPolicy"]


class ScoredPolicy(StatelessPolicy, ABC):
    """A policy without memory that chooses the k largest of n scores.

    A subclass declares ``requires`` and writes ``scores``. Policies that combine others take any
    of these as a part, for what they share is one number per candidate, larger for more wanted.
    """

    @abstractmethod
    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return a score per candidate, larger for more wanted.

        Parameters
        ----------
        signals
            At least those in ``requires``.
        k
            How many will be chosen; few scores depend on it.
        rng
            The only source of randomness.

        Returns
        -------
        Array
            Shape (n,), any real dtype, of the kind of the signals and where they are. Not finite
            where the signal is not: the problem then says what is wrong, and where.
        """

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return a top-k of the scores."""
        return Problem(TopScores(to_host(self.scores(signals, k, rng))), k)
