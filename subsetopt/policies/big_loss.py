"""Big loss: the k largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from subsetopt.policies.scored import SignalPolicy

__all__ = ["BigLoss"]


@dataclass(frozen=True)
class BigLoss(SignalPolicy):
    """Choose the k samples with the largest losses.

    This is AdaSelection's reading of Selective-Backprop. It is fast on clean data; on noisy data it
    trains on the noise and may diverge.

    References
    ----------
    Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019, as read by
    Zhang et al., AdaSelection, section 3.1.

    Examples
    --------
    >>> import numpy as np, subsetopt as so
    >>> losses = np.array([0.1, 3.0, 2.0])
    >>> so.solve(BigLoss().propose({"losses": losses}, 2, np.random.default_rng(0))).indices
    array([1, 2])
    """

    name: ClassVar[str] = "big-loss"
    requires: ClassVar[frozenset[str]] = frozenset({"losses"})
