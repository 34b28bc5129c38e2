"""The update of a step: gradients cleared, made and applied."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Update"]


@dataclass(frozen=True, slots=True)
class Update:
    """Turns a loss into a change of the parameters.

    Attributes
    ----------
    optimizer
        The optimizer of the model's parameters.
    scaler
        Scales the loss of a forward in half precision; None for none.
    """

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None

    def clear(self) -> None:
        """Drop the gradients of the last update."""
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Make the gradients of a loss."""
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def apply(self) -> None:
        """Let the optimizer change the parameters."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
