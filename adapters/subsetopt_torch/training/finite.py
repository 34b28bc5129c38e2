"""A check of a loss that lets a device work on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FiniteCheck"]


class FiniteCheck:
    """Tells whether a loss is finite.

    On a CUDA device the question is put when the check is made, and ``passed`` waits for the
    answer only, not for what was launched in between: a backward pass is under way by then.

    Parameters
    ----------
    loss
        A scalar.
    """

    __slots__ = ("_answered", "_loss")

    def __init__(self, loss: Tensor) -> None:
        value = loss.detach()
        self._answered: torch.cuda.Event | None = None
        if value.device.type == "cuda":
            value = value.to("cpu", non_blocking=True)  # into pinned memory
            self._answered = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._answered.record(torch.cuda.current_stream(loss.device))
        self._loss = value

    def passed(self) -> bool:
        """Return whether the loss is finite."""
        if self._answered is not None:
            self._answered.synchronize()
        return math.isfinite(self._loss.item())
