"""Selective-Backprop as its authors have it: kept with a probability that rises with the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.inputs import as_finite_vector, checked_integer, checked_number
from subsetopt.objectives import TopScores
from subsetopt.policies.arrays import to_host
from subsetopt.policies.base import Signals, StatelessPolicy, signal
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt.problem import Problem

__all__ = ["SelectiveBackprop"]


class SelectiveBackprop(StatelessPolicy):
    r"""Keep each sample with a probability that rises with the rank of its loss.

    .. math:: P(\text{keep } i) = \mathrm{CDF}_R(l_i)^\beta, \qquad
              \mathrm{CDF}_R(l) = \frac{\#\{ r \in R : r \le l \}}{\# R}

    independently of each other, where R holds the most recent losses, those of this batch
    included.

    Parameters
    ----------
    beta
        How strongly large losses are preferred, at least 0; about n / (1 + beta) of n samples are
        kept. None (the default) takes n / k - 1, so that k are kept on average. With a number, the
        size k (or the rate) that a selector asks for has no effect.
    size
        The number of recent losses that R holds, at least 1; the batch size or more is sensible.

    Raises
    ------
    OptionError
        If an option is out of range, or a state to load is malformed.

    Notes
    -----
    The number of samples kept is random, 0 included: batches downstream have no fixed shape.
    ``SelectiveStep(accumulate=True)`` gathers them until a full batch is there, as the paper does.
    Every call of ``propose`` takes its losses up into R, so call it once per batch. The problem
    allows fewer samples than were kept, for those that constraints exclude; quotas that demand
    more than were kept have no answer.

    Three methods go by this name. This is the original; OBTF's paper compares with
    ``proportional-loss``, AdaSelection's with ``big-loss``.

    References
    ----------
    Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019, section 3.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> losses = np.random.default_rng(0).exponential(size=1000)
    >>> policy = SelectiveBackprop(beta=3.0)
    >>> problem = policy.propose({"losses": losses}, 1000, np.random.default_rng(0))
    >>> 200 < problem.k < 300
    True
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def __init__(self, beta: float | None = None, size: int = 1024) -> None:
        self.size = checked_integer("size", size, 1)
        self.beta = None if beta is None else checked_number("beta", beta, 0.0)
        self._recent = np.empty(0)

    def __repr__(self) -> str:
        return f"SelectiveBackprop(beta={self.beta!r}, size={self.size})"

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the problem whose answer is the samples that were kept."""
        losses, _ = as_finite_vector(
            to_host(signal(signals, "losses", "selective-backprop")), "losses"
        )
        chances = self._chances(losses, k)
        ahead = chances - rng.random(losses.size)
        return Problem(TopScores(ahead), int((ahead > 0.0).sum()), "at_most")

    def _chances(self, losses: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        """Return the probability of every sample, and take the losses up into the history."""
        self._recent = np.concatenate([self._recent, losses])[-self.size :]
        if k == 0 or not losses.size:
            return np.zeros(losses.size)
        beta = losses.size / k - 1.0 if self.beta is None else self.beta
        below = np.searchsorted(np.sort(self._recent), losses, side="right")
        chances: NDArray[np.float64] = (below / self._recent.size) ** beta
        return chances

    def state_dict(self) -> dict[str, Any]:
        """Return the recent losses, oldest first, as plain numbers."""
        return {"recent": self._recent.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the recent losses; of more than ``size`` of them, the last ones.

        Raises
        ------
        OptionError
            If the state was saved by another policy, or is malformed.
        """
        saved = SavedState("selective-backprop", state, ["recent"])
        self._recent = saved.vector("recent")[-self.size :]
