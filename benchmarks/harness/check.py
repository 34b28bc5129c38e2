"""Instances, and the independent check of an answer: no judgement here is the library's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import subsetopt as so

__all__ = ["Instance"]


@dataclass(frozen=True)
class Instance:
    """Losses, size and the keywords of ``so.select`` as plain values."""

    losses: NDArray[Any]
    k: int
    keywords: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> so.Problem:
        """Return the problem that solvers are given."""
        rules = dict(self.keywords)
        objective = so.MeanMatching(
            self.losses, rules.pop("target", None), rules.pop("base_weights", None)
        )
        return so.Problem(objective, self.k, **rules)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The losses in float64, times their weights scaled to mean 1 where there are any."""
        values = np.asarray(self.losses, dtype=np.float64)
        weights = self.keywords.get("base_weights")
        if weights is None:
            return values
        weights = np.asarray(weights, dtype=np.float64)
        return values * (weights * (weights.size / math.fsum(weights)))

    @cached_property
    def scale(self) -> float:
        """``mean|l|``."""
        return math.fsum(np.abs(self.values)) / self.values.size if self.values.size else 0.0

    @cached_property
    def target(self) -> float:
        given = self.keywords.get("target")
        if given is not None:
            return float(given) if self.values.size else 0.0
        return math.fsum(self.values) / self.values.size if self.values.size else 0.0

    @property
    def tolerance(self) -> float:
        """The absolute residual that counts as zero: the precision of the losses' mean.

        Where the losses lie near each other and the size is exact, their differences count, and 16
        times the span stands for the mean. For a target far beyond all losses, it is the precision
        of the target in float64 sums.
        """
        narrow = self.losses.dtype.kind == "f" and self.losses.dtype.itemsize <= 4
        scale, far = self.scale, self.target
        exact = self.keywords.get("cardinality", "exact") == "exact"
        if exact and self.values.size and "base_weights" not in self.keywords:
            span = float(self.values.max() - self.values.min())
            if 16.0 * span < scale:
                scale, far = 16.0 * span, self.target - float(self.values[0])
        return max((2.0**-23 if narrow else 1e-9) * scale, 1e-13 * abs(far), 4e-323)

    @property
    def rounding(self) -> float:
        """What float64 sums of these losses may be off by."""
        return 1e-14 * (self.scale * self.values.size / max(1, self.k) + abs(self.target))

    def residual(self, indices: NDArray[np.int64]) -> float:
        """Return ``|target - sum(chosen)/k|``, summed without rounding."""
        if not self.k:
            return abs(self.target)
        return abs(self.target - math.fsum(self.values[indices]) / self.k)

    def feasible(self, indices: NDArray[np.int64]) -> bool:
        """Return whether a subset satisfies size and constraints."""
        n, rules = self.values.size, self.keywords
        chosen = np.unique(np.asarray(indices))
        if chosen.size != len(indices) or (chosen.size and not 0 <= chosen[0] <= chosen[-1] < n):
            return False
        at_most = rules.get("cardinality", "exact") == "at_most"
        if chosen.size > self.k or (chosen.size < self.k and not at_most):
            return False
        if not np.isin(rules.get("include", ()), chosen).all():
            return False
        if np.isin(rules.get("exclude", ()), chosen).any():
            return False
        return _quotas_hold(rules, chosen) and _capacity_holds(rules, chosen)


def _quotas_hold(rules: dict[str, Any], chosen: NDArray[np.int64]) -> bool:
    if rules.get("quotas") is None:
        return True
    labels = np.asarray(rules["groups"])[chosen]
    for label, quota in rules["quotas"].items():
        low, high = quota if isinstance(quota, tuple) else (quota, quota)
        if not low <= int((labels == label).sum()) <= high:
            return False
    return True


def _capacity_holds(rules: dict[str, Any], chosen: NDArray[np.int64]) -> bool:
    if rules.get("capacity") is None:
        return True
    spent = math.fsum(np.asarray(rules["costs"], dtype=np.float64)[chosen])
    return spent <= float(rules["capacity"]) * (1.0 + 1e-9)
