"""OBTF: the subset whose mean loss is the batch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from subsetopt.inputs import checked_choice, checked_integer
from subsetopt.objectives import MeanMatching
from subsetopt.policies.arrays import to_host
from subsetopt.policies.base import Signals, StatelessPolicy, signal
from subsetopt.policies.members import SolverChoice
from subsetopt.problem import Cardinality, Problem

__all__ = ["Obtf"]


@dataclass(frozen=True)
class Obtf(StatelessPolicy):
    """Choose k samples whose mean loss matches the mean loss of the batch.

    Parameters
    ----------
    cardinality
        ``"exact"``: exactly k, for fixed shapes downstream (the default); ``"at_most"``: k or
        fewer, as the paper has it, with divisor k all the same.
    choices
        The number of matching subsets, at least 1, of which the one with the least sum of squared
        losses is taken. A match may rest on one hard sample among trivial ones, and one such batch
        can undo many steps.

    Raises
    ------
    OptionError
        If an option is none of these.

    References
    ----------
    Dong et al., One Backward from Ten Forward, eq. 5.

    Examples
    --------
    >>> import numpy as np
    >>> losses = np.array([1.0, 2.0, 3.0, 6.0])
    >>> Obtf().propose({"losses": losses}, 2, np.random.default_rng(0))
    Problem(MeanMatching(n=4, target=3.0), k=2)
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    cardinality: Cardinality = "exact"
    choices: int = 8

    def __post_init__(self) -> None:
        checked_integer("choices", self.choices, 1)
        checked_choice("cardinality", self.cardinality, ("exact", "at_most"))

    @property
    def solver(self) -> SolverChoice:
        """What the solver "auto" stands for: swap search alone, from a uniform draw.

        Where no subset matches, the exact optimum is an extreme one, and trains worse than a near
        miss that is still close to a random draw.
        """
        return SolverChoice("swap", {"start": "random", "choices": self.choices})

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the mean-matching problem of the losses."""
        losses = to_host(signal(signals, "losses", "obtf"))
        return Problem(MeanMatching(losses), k, self.cardinality)
