"""Prioritized sampling: draws in proportion to a power of the latest known loss."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError
from subsetopt.inputs import checked_number
from subsetopt.objectives import SamplingDesign
from subsetopt.policies.arrays import Array
from subsetopt.policies.base import Signals
from subsetopt.policies.parts.memory import RememberingPolicy, positions_below
from subsetopt.policies.parts.sample_ids import checked_ids
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt.policies.parts.weighted_pool import WeightedPool
from subsetopt.problem import Problem
from subsetopt.solution import Solution

__all__ = ["Prioritized"]

# The priority of samples never seen while no loss is larger, as in the paper's algorithm 1.
_FIRST_PRIORITY = 1.0


class Prioritized(RememberingPolicy):
    r"""Draw samples in proportion to a power of their latest loss, with annealed weights.

    .. math:: P(i) = \frac{p_i^\alpha}{\sum_j p_j^\alpha}, \quad p_i = |l_i| + \epsilon, \qquad
              w_i = \frac{1}{k} \frac{(N P(i))^{-\beta}}{\max_j (N P(j))^{-\beta}}, \qquad
              \beta = \beta_0 + (1 - \beta_0) \min(1, t / T)

    N is the number of candidates: those of the batch, or the whole data set. Samples never seen
    have the largest priority that any sample had so far. The proportional variant, with losses in
    place of temporal-difference errors.

    Parameters
    ----------
    alpha
        How strongly large losses are preferred, from 0 (uniform) to 1 (in proportion).
    beta
        :math:`\beta_0`: the part of the bias that the weights correct at first, from 0 (none) to 1
        (all).
    steps
        T, the number of selections over which beta grows to 1. None: it does not grow.
    epsilon
        What is added to every magnitude, so that samples with loss 0 are drawn too, above 0.
    normalize
        Whether weights are divided by the largest of the k drawn, as published, so that none
        exceeds 1/k. Without it the weighted loss is unbiased for the mean once beta is 1.

    Attributes
    ----------
    step
        Selections made so far: t, with which the exponent of the weights grows.
    memory
        The latest loss of every sample.
    largest_priority
        The largest priority so far.

    Raises
    ------
    OptionError
        If ``alpha`` or ``beta`` is not from 0 to 1, ``epsilon`` not above 0, or ``steps`` no
        positive integer.

    Notes
    -----
    It reads ids alone, so there is no scoring pass, and it learns from ``observe`` alone. The paper
    does not say over which samples the maximum is taken; here it is over the batch, so that the
    largest weight is always 1/k. Over a data set (``draw``) a selection takes O(N / 256 + 256 k),
    and draws one sample from each k-th part of the total, as the paper does.

    References
    ----------
    Schaul, Quan, Antonoglou & Silver, Prioritized Experience Replay, ICLR 2016, eq. 1, section 3.4
    and algorithm 1.

    Examples
    --------
    >>> policy = Prioritized(alpha=1.0)
    >>> policy.refresh(np.arange(3), np.array([1.0, 2.0, 5.0]))
    >>> policy.probabilities(np.arange(3)).round(3)
    array([0.125, 0.25 , 0.625])
    >>> policy.largest_priority, policy.probabilities(np.array([2, 7]))
    (5.000001, array([0.5, 0.5]))
    """

    name: ClassVar[str] = "prioritized"

    # Its problems are random designs, which take no constraints.
    draws_designs: ClassVar[bool] = True

    def __init__(
        self,
        alpha: float = 0.6,
        beta: float = 0.4,
        steps: int | None = None,
        epsilon: float = 1e-6,
        normalize: bool = True,
    ) -> None:
        super().__init__(steps)
        self.alpha = checked_number("alpha", alpha, 0.0, 1.0)
        self.beta = checked_number("beta", beta, 0.0, 1.0)
        self.epsilon = checked_number("epsilon", epsilon, 0.0)
        if not self.epsilon:
            raise OptionError("epsilon must be above 0: samples with loss 0 would never be drawn.")
        self.normalize = bool(normalize)
        self.largest_priority = _FIRST_PRIORITY
        self._pool: WeightedPool | None = None
        # The probabilities of the last proposal, and the exponent of its weights.
        self._proposed = (np.empty(0), 0.0)

    def __repr__(self) -> str:
        return (
            f"Prioritized(alpha={self.alpha}, beta={self.beta}, steps={self.steps}, "
            f"epsilon={self.epsilon}, normalize={self.normalize})"
        )

    @property
    def current_beta(self) -> float:
        """The exponent of the weights of the next selection."""
        return self.beta + (1.0 - self.beta) * self._progress

    def probabilities(self, ids: Array) -> NDArray[np.float64]:
        """Return the probability of every candidate, shape (n,), summing to 1."""
        powers = self._powers(self.memory.of(checked_ids(ids)))
        return powers / powers.sum() if powers.size else powers

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the design of the draw."""
        p = self.probabilities(self._candidates(signals))
        self._proposed = (p, self.current_beta)
        self.step += 1
        return Problem(SamplingDesign(p, replacement=True), k)

    def weigh(self, solution: Solution) -> NDArray[np.float64]:
        """Return the annealed weights of what was drawn from the last proposal."""
        p, beta = self._proposed
        return self._weights(p[solution.indices], p.size, beta)

    def _drawn(
        self, n: int, k: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if self._pool is None or self._pool.n != n:
            self._pool = WeightedPool(self._powers(self.memory.first(n)))
        ids, p = self._pool.draw(k, rng)
        return ids, self._weights(p, n, self.current_beta)

    def _own_state(self) -> dict[str, Any]:
        return {"largest_priority": self.largest_priority}

    def _load_own_state(self, saved: SavedState, step: int) -> None:
        self.largest_priority = saved.number("largest_priority", _FIRST_PRIORITY)
        self._pool = None

    def _powers(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        r"""Return :math:`p_i^\alpha` of losses, which are NaN for samples never seen."""
        priorities = np.abs(losses) + self.epsilon
        priorities[np.isnan(priorities)] = self.largest_priority
        powers: NDArray[np.float64] = priorities**self.alpha
        return powers

    def _weights(self, p: NDArray[np.float64], n: int, beta: float) -> NDArray[np.float64]:
        """Return the training weights of draws with probabilities p (k,) from n candidates."""
        if not p.size:
            return np.empty(0)
        weights: NDArray[np.float64] = (n * p) ** -beta
        if self.normalize:
            weights /= weights.max()
        return weights / p.size

    def _changed(self, ids: NDArray[Any], losses: NDArray[np.float64]) -> None:
        largest = max(self.largest_priority, float(np.abs(losses).max(initial=0.0)) + self.epsilon)
        if largest > self.largest_priority:
            # Every sample never seen has this priority now; that happens more and more rarely.
            self.largest_priority, self._pool = largest, None
        if self._pool is not None:
            known = positions_below(self._pool.n, ids)
            self._pool.update(known, self._powers(self.memory.of(known)))
