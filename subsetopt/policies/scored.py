"""Policies that are a top-k: each gives every candidate a score, and the k largest are chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from subsetopt.objectives import TopScores
from subsetopt.policies.arrays import Array, to_host
from subsetopt.policies.base import Signals, StatelessPolicy, signal
from subsetopt.problem import Problem

__all__ = ["ScoredPolicy", "SignalPolicy"]


class ScoredPolicy(StatelessPolicy, ABC):
    """A policy without memory that chooses the k largest of n scores.

    A subclass declares ``requires`` and writes ``scores``: one number per candidate, larger for
    more wanted. Policies that combine others, such as ``adaselection``, take any of these.
    """

    @abstractmethod
    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return a score per candidate, larger for more wanted.

        Parameters
        ----------
        signals
            At least the signals that ``requires`` names.
        k
            The number that will be chosen; few scores depend on it.
        rng
            The only source of randomness.

        Returns
        -------
        Array
            Shape (n,), any real dtype, of the kind of the signals and on their device. Where a
            signal is not finite the score is not either: the problem then says what is wrong.
        """

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return a top-k of the scores."""
        return Problem(TopScores(to_host(self.scores(signals, k, rng))), k)


class SignalPolicy(ScoredPolicy):
    """A policy that chooses the k largest values of one signal, the only one it requires.

    A subclass declares ``name``, for messages, and ``requires``.
    """

    name: ClassVar[str]

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return the signal."""
        (required,) = self.requires
        return signal(signals, required, self.name)
