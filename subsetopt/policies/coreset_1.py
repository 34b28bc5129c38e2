"""Coreset approximation 1: half the largest losses, half the smallest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from subsetopt.policies.arrays import Array, as_float64, namespace
from subsetopt.policies.base import Signals, signal
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["Coreset1"]


@dataclass(frozen=True)
class Coreset1(ScoredPolicy):
    r"""Choose half of k from the largest losses and half from the smallest.

    The score falls along the sequence largest, smallest, second largest, second smallest, ...: with
    :math:`p_i` the position of sample i among the losses in descending order, counted from 0,

    .. math:: s_i = n - \min \bigl( 2 p_i, \; 2 (n - 1 - p_i) + 1 \bigr)

    For odd k the extra sample is a large one. The choice is that of the solver ``half-and-half``
    for mean matching, ties included.

    References
    ----------
    Zhang et al., AdaSelection, section 3.1, coreset approximation 1.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> policy, losses = Coreset1(), np.array([0.1, 0.5, 0.9, 4.0])
    >>> policy.scores({"losses": losses}, 3, np.random.default_rng(0))
    array([3., 1., 2., 4.])
    >>> so.solve(policy.propose({"losses": losses}, 3, np.random.default_rng(0))).indices
    array([0, 2, 3])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return n for the largest loss, n - 1 for the smallest, and so on inward."""
        losses = as_float64(signal(signals, "losses", "coreset-1"))
        xp = namespace(losses)
        if not bool(xp.all(xp.isfinite(losses))):
            return losses  # the objective says what is wrong with them, and where
        n = losses.shape[0]
        position = xp.argsort(xp.argsort(-losses, stable=True), stable=True)
        place = xp.minimum(2 * position, 2 * (n - 1 - position) + 1)
        return xp.astype(n - place, xp.float64)
