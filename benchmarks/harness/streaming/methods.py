"""The ways to choose the impressions of an hour that are compared on a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

import subsetopt as so
from subsetopt.policies import Signals, StatelessPolicy

__all__ = ["METHODS", "Method", "RareClass"]

# Clicks take at most this part of the k samples of "rare class".
_MOST_CLICKS = 0.8


@dataclass(frozen=True)
class RareClass(StatelessPolicy):
    """All clicks and 1 of j of the rest, with weight j: what is done without any scores.

    j is such that k samples are chosen. Clicks beyond four fifths of k are thinned out, too.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"targets"})
    draws_designs: ClassVar[bool] = True

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        clicked = np.asarray(signals["targets"]) > 0.0
        count = int(clicked.sum())
        taken = min(float(count), _MOST_CLICKS * k)
        chances = np.full(clicked.size, (k - taken) / (clicked.size - count))
        chances[clicked] = taken / max(count, 1)
        return so.Problem(so.SamplingDesign(chances), k)


@dataclass(frozen=True)
class Method:
    """A way to choose the samples of an hour.

    Parameters
    ----------
    name
        What the tables call it.
    policy
        Its policy; None trains on all samples.
    lr
        The learning rate of plain SGD, chosen on other seeds than those that are reported.
    recorded
        The options of ``RecordedScores``; None uses no ledger.
    options
        The options of the policy.
    """

    name: str
    policy: str | StatelessPolicy | None
    lr: float
    recorded: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


# The learning rates are the best of 1/8, 1/4, 1/2, 1 and 2 on 400 hours of the seeds 100 to 104.
METHODS = (
    Method("everything", None, 1.0),
    Method("uniform", "uniform", 0.5),
    Method("obtf, recorded", "obtf", 0.25, {}),
    Method("balanced, recorded", "balanced", 1.0, {}),
    Method("balanced, scored now", "balanced", 1.0, None, {"mix": 0.2, "max_weight": 5.0}),
    Method("rare class, weighted", RareClass(), 0.5),
)
