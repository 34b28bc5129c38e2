"""The model that is served and trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["click_model", "log_losses"]


def click_model(width: int) -> nn.Module:
    """Return a logistic model that knows nothing yet: every chance is a half."""
    model = nn.Linear(width, 1)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def log_losses(outputs: Tensor, clicks: Tensor) -> Tensor:
    """Return the log loss of every impression, shape (n,), from logits of shape (n, 1)."""
    logits = outputs[:, 0]
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, clicks, reduction="none")
