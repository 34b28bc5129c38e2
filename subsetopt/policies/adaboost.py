"""AdaBoost: the weight that boosting gives a sample of that loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from subsetopt.policies.arrays import Array, as_float64, namespace
from subsetopt.policies.base import Signals, signal
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["AdaBoost"]

# This divisor keeps the largest scaled loss below 1, where the weight would be infinite.
_MARGIN = 1.0 + 1e-6


@dataclass(frozen=True)
class AdaBoost(ScoredPolicy):
    r"""Choose the k samples with the largest AdaBoost weights.

    .. math:: s_i = \frac12 \log \frac{1 + r_i}{1 - r_i},
              \qquad r_i = \frac{l_i}{(1 + 10^{-6}) \max_j |l_j|}

    The formula needs losses in (-1, 1), so they are divided by the largest magnitude in the batch.
    It rises with the loss: the k chosen are those of ``big-loss``. As a part of ``adaselection``
    it differs, because the weight grows faster than the loss.

    Notes
    -----
    Negative losses get negative scores (the formula is odd). If all losses are 0, so are the
    scores.

    References
    ----------
    Zhang et al., AdaSelection, eq. 1.

    Examples
    --------
    >>> import numpy as np
    >>> losses = np.array([0.0, 1.0, 2.0])
    >>> AdaBoost().scores({"losses": losses}, 1, np.random.default_rng(0)).round(3)
    array([0.   , 0.549, 7.254])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return the weights of the scaled losses."""
        losses = as_float64(signal(signals, "losses", "adaboost"))
        xp = namespace(losses)
        if losses.shape[0] == 0 or not bool(xp.all(xp.isfinite(losses))):
            return losses  # the objective says what is wrong with them, and where
        largest = xp.max(xp.abs(losses))
        if not bool(largest > 0.0):
            return losses
        scaled = losses / largest / _MARGIN
        return 0.5 * (xp.log1p(scaled) - xp.log1p(-scaled))
