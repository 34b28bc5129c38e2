"""The few statistics that the tables are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["SHIFT", "quantiles", "shifted_geometric_mean"]

SHIFT = 10e-6


def shifted_geometric_mean(seconds: Sequence[float], shift: float = SHIFT) -> float:
    """Return ``exp(mean(log(t + shift))) - shift``; nan for no values."""
    if not len(seconds):
        return float("nan")
    return float(np.exp(np.mean(np.log(np.asarray(seconds, dtype=float) + shift))) - shift)


def quantiles(values: Sequence[float], at: Sequence[float] = (0.5, 0.9, 0.99)) -> list[float]:
    """Return quantiles that were seen, none interpolated: the worst are what is asked for."""
    if not len(values):
        return [float("nan")] * len(at)
    found = np.quantile(np.asarray(values, dtype=float), list(at), method="higher")
    return [float(v) for v in found]
