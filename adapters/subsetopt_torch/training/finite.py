"""A check of losses that lets a device work on."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FiniteCheck"]


class FiniteCheck:
    """Tells whether all of some losses are finite.

    On a CUDA device the question is put when the check is made, and ``passed`` waits for the
    answer only, not for what was launched in between: a backward pass is under way by then.

    Parameters
    ----------
    losses
        Losses of any shape.
    """

    __slots__ = ("_answered", "_good")

    def __init__(self, losses: Tensor) -> None:
        good = losses.detach().isfinite().all()
        self._answered: torch.cuda.Event | None = None
        if good.device.type == "cuda":
            good = good.to("cpu", non_blocking=True)  # into pinned memory
            self._answered = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._answered.record(torch.cuda.current_stream(losses.device))
        self._good = good

    def passed(self) -> bool:
        """Return whether all the losses are finite."""
        if self._answered is not None:
            self._answered.synchronize()
        return bool(self._good)
