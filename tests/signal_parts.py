"""What the tests of signals share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from step_parts import CROSS_ENTROPY

import subsetopt as so
from subsetopt.policies import Feedback, Signals, StatelessPolicy

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

WEIGHT = torch.tensor([0.5, 2.0, 1.0, 0.0])

LOSSES = {
    "closed form": CROSS_ENTROPY,
    "weighted": nn.CrossEntropyLoss(WEIGHT, reduction="none", label_smoothing=0.1),
    "any other": lambda o, y: CROSS_ENTROPY(o, y) ** 2,
    "of probabilities": lambda o, y: -o.softmax(1).gather(1, y[:, None])[:, 0],
}


class Taking(StatelessPolicy):
    """Requires signals, remembers them, and learns from the training forward."""

    def __init__(self, *requires: str, learns_from: tuple[str, ...] = ()) -> None:
        self.wanted = frozenset(requires)
        self.learns_from = frozenset(learns_from)
        self.seen: list[Signals] = []
        self.feedback: list[Feedback] = []

    @property
    def requires(self) -> frozenset[str]:  # type: ignore[override]
        return self.wanted

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        self.seen.append(signals)
        return so.Problem(so.TopScores(-np.arange(float(len(signals["positions"])))), k)

    def observe(self, feedback: Feedback) -> None:
        self.feedback.append(feedback)


def autograd(loss_fn: Callable[[Any, Any], Any], logits: Any, targets: Any) -> Any:
    """Return the gradient of each sample's loss alone, one backward pass per sample."""
    rows = []
    for i in range(len(logits)):
        leaf = logits.detach()[i : i + 1].clone().requires_grad_()
        loss_fn(leaf, targets[i : i + 1]).sum().backward()
        rows.append(leaf.grad)
    return torch.cat(rows)
