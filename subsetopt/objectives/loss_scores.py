"""Scores that follow from the losses of a batch alone, by the name of the method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from subsetopt.objectives.mean_matching import MeanMatching

__all__ = ["LOSS_SCORES"]

# One number per sample, shape (n,).
Vector = NDArray[np.float64]

# Losses are divided by their largest magnitude and by this, so that all stay below 1, where the
# logarithm of AdaBoost diverges.
_BELOW_ONE = 1.0 + 1e-6


def _adaboost(losses: Vector) -> Vector:
    """Return 0.5 log((1 + l) / (1 - l)) of the losses scaled into (-1, 1) (eq. 1)."""
    largest = float(np.abs(losses).max(initial=0.0))
    scaled = losses / largest / _BELOW_ONE if largest > 0.0 else losses
    return np.arctanh(scaled)


def _both_ends(losses: Vector) -> Vector:
    """Return scores whose order is largest, smallest, second largest, second smallest, ..."""
    n = losses.size
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(-losses, kind="stable")] = np.arange(n)
    turn = np.minimum(2 * rank, 2 * (n - 1 - rank) + 1)
    return -turn.astype(np.float64)


def _near_mean(losses: Vector) -> Vector:
    """Return minus the distance from the mean loss."""
    return -np.abs(losses - MeanMatching(losses).target)


# The scores of the policies of these names, which choose the largest (AdaSelection, section 3.1).
LOSS_SCORES: dict[str, Callable[[Vector], Vector]] = {
    "big-loss": lambda losses: losses,
    "small-loss": lambda losses: -losses,
    "adaboost": _adaboost,
    "coreset-1": _both_ends,
    "coreset-2": _near_mean,
}
