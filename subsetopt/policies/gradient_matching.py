"""Gradient matching: the subset whose gradient is the batch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from subsetopt.errors import OptionError, did_you_mean
from subsetopt.objectives import VectorMatching
from subsetopt.policies.arrays import to_host
from subsetopt.policies.base import Signals, StatelessPolicy, signal
from subsetopt.problem import Problem

__all__ = ["GradientMatching"]

_SIGNALS = ("logit_gradients", "last_layer_gradients")
_WEIGHTS = ("uniform", "nonnegative")


@dataclass(frozen=True)
class GradientMatching(StatelessPolicy):
    r"""Choose k samples whose weighted mean gradient is the mean gradient of the batch.

    .. math:: \text{minimize} \quad \Bigl\| \frac 1 n \sum_i v_i - \sum_{i \in S} w_i v_i
              \Bigr\|_2, \qquad |S| \le k,

    where :math:`v_i` is a part of sample i's gradient that needs no backward pass.

    Parameters
    ----------
    signal
        What :math:`v_i` is. ``"logit_gradients"``: the gradient with respect to the C logits, and
        so with respect to the last layer's bias. ``"last_layer_gradients"``: with respect to the
        last layer's weights, C x H numbers per sample for H inputs of that layer.
    weights
        ``"uniform"``: 1/k each, exactly k samples; ``"nonnegative"``: at least 0, fitted together
        with the choice, at most k samples. Their sum need not be 1: the gradient is what matches.

    Raises
    ------
    OptionError
        If an option is none of these.

    Notes
    -----
    The choice is not random: the same signals give the same problem. With nonnegative weights
    there is a subset without error once k is at least the number of independent coordinates,
    C - 1 for the logit gradients of C classes, and ``omp``, which ``auto`` takes, finds it.

    References
    ----------
    Killamsetty et al., GRAD-MATCH, ICML 2021; Campbell & Broderick, JMLR 2019.

    Examples
    --------
    >>> import subsetopt as so
    >>> gradients = np.array([[0.5, -0.5], [-0.2, 0.2], [0.1, -0.1], [0.8, -0.8]])
    >>> problem = GradientMatching(weights="nonnegative").propose(
    ...     {"logit_gradients": gradients}, 1, np.random.default_rng(0)
    ... )
    >>> solution = so.solve(problem, seed=0)
    >>> float((solution.weights @ gradients[solution.indices])[0].round(6))
    0.3
    """

    signal: Literal["logit_gradients", "last_layer_gradients"] = "logit_gradients"
    weights: Literal["uniform", "nonnegative"] = "uniform"

    def __post_init__(self) -> None:
        for name, known in (("signal", _SIGNALS), ("weights", _WEIGHTS)):
            if (value := getattr(self, name)) not in known:
                raise OptionError(
                    f"{name} must be {known[0]!r} or {known[1]!r}, got {value!r}."
                    f"{did_you_mean(str(value), known)}"
                )

    @property
    def requires(self) -> frozenset[str]:  # type: ignore[override]
        """The vectors that are matched."""
        return frozenset({self.signal})

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> Problem:
        """Return the vector matching problem; the vectors are brought to the host once."""
        vectors = to_host(signal(signals, self.signal, "gradient-matching"))
        return Problem(VectorMatching(vectors, weights=self.weights), k)
