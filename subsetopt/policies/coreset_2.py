"""Coreset approximation 2: the losses nearest the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from subsetopt.objectives import MeanMatching
from subsetopt.policies.arrays import Array, as_float64, namespace, to_host
from subsetopt.policies.base import Signals, signal
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["Coreset2"]


@dataclass(frozen=True)
class Coreset2(ScoredPolicy):
    r"""Choose the k samples whose losses are nearest the mean loss of the batch.

    .. math:: s_i = -\,\lvert l_i - \bar l \rvert

    The choice is that of the solver ``nearest-mean`` for mean matching, ties included. It shows
    the model average samples only: the easy and the hard ones are not trained on.

    References
    ----------
    Zhang et al., AdaSelection, section 3.1, coreset approximation 2.

    Examples
    --------
    >>> import numpy as np
    >>> losses = np.array([1.0, 2.0, 3.0, 6.0])
    >>> Coreset2().scores({"losses": losses}, 2, np.random.default_rng(0))
    array([-2., -1., -0., -3.])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return the negated distances from the mean."""
        losses = as_float64(signal(signals, "losses", "coreset-2"))
        # The mean decides ties, so it has to be the solver's to the last bit.
        mean = MeanMatching(to_host(losses)).target
        return -namespace(losses).abs(losses - mean)
