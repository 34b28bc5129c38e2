"""Impressions with rare clicks, drawn from a stated model that drifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Clicks", "Hour"]

# The logit of a click has this mean and this standard deviation over the impressions of an hour,
# which makes 6% of them clicks.
_MEAN, _SPREAD = -3.75, 1.5


class Hour(NamedTuple):
    """The impressions of one hour."""

    ids: NDArray[np.int64]  #: shape (n,); they go on where those of the hour before ended
    features: NDArray[np.float32]  #: shape (n, d), standard normal
    clicks: NDArray[np.float32]  #: shape (n,), 1 for a click and 0 for none
    chances: NDArray[np.float64]  #: shape (n,), the probabilities that the clicks were drawn with

    def least_loss(self) -> float:
        """Return the summed log loss of the model that the clicks were drawn from."""
        right = np.where(self.clicks > 0.0, self.chances, 1.0 - self.chances)
        return float(-np.log(right).sum())


@dataclass(frozen=True)
class Clicks:
    r"""A logistic model whose weights drift.

    The impression i of hour h has features :math:`x_i \sim N(0, I_d)` and is clicked on with the
    probability :math:`\sigma(-3.75 + 1.5\, w_h \cdot x_i)`, where

    .. math:: w_{h+1} = \sqrt{1 - r^2}\, w_h + r\, g_h, \qquad w_0, g_h \sim N(0, I_d / d),

    so that the weights forget themselves within :math:`2 / r^2` hours and the share of clicks stays
    the same. Every hour can be drawn by itself, in any process, and comes out equal.

    Parameters
    ----------
    seed
        Seeds the weights, the features and the clicks.
    hours
        The number of hours of the stream.
    impressions
        n, the impressions of an hour.
    width
        d, the number of features.
    drift
        r, from 0 (no drift) to 1.
    """

    seed: int
    hours: int
    impressions: int = 256
    width: int = 20
    drift: float = 0.05

    def weights(self) -> NDArray[np.float64]:
        """Return the weights of all hours, shape (hours, d)."""
        rng = np.random.default_rng([self.seed, 0])
        weights = rng.normal(size=(self.hours, self.width)) / np.sqrt(self.width)
        for hour in range(1, self.hours):
            kept = np.sqrt(1.0 - self.drift**2) * weights[hour - 1]
            weights[hour] = kept + self.drift * weights[hour]
        return weights

    def hour(self, number: int, weights: NDArray[np.float64]) -> Hour:
        """Return the impressions of an hour, given the weights of that hour, shape (d,)."""
        rng = np.random.default_rng([self.seed, 1, number])
        n = self.impressions
        features = rng.normal(size=(n, self.width))
        chances = 1.0 / (1.0 + np.exp(-_MEAN - _SPREAD * (features @ weights)))
        clicks = rng.random(n) < chances
        return Hour(
            np.arange(number * n, (number + 1) * n),
            features.astype(np.float32),
            clicks.astype(np.float32),
            chances,
        )
