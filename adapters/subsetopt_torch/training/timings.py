"""How long the parts of a step take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

import torch

__all__ = ["Clock", "Timings"]


@dataclass(slots=True)
class Timings:
    """Seconds that the parts of a step took.

    On a device that works ahead of the host these are the host's seconds, and work lands in the
    part that waits for it (the selection waits for the scoring pass), unless the step was made
    with ``synchronize=True``.

    Attributes
    ----------
    scoring
        The forward pass over all candidates; 0 when there was none.
    selection
        From the losses to the indices, transfers included.
    training
        Forward and backward of the chosen samples.
    update
        The optimizer's step.
    """

    scoring: float = 0.0
    selection: float = 0.0
    training: float = 0.0
    update: float = 0.0

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.scoring + self.selection + self.training + self.update


@dataclass(slots=True)
class Clock:
    """Measures how long the parts of a step take.

    Attributes
    ----------
    device
        The device that the step works on.
    synchronize
        Whether to wait for the device at the end of each part.
    timings
        Seconds charged to each part so far.
    mark
        When the last part ended, in seconds of ``time.perf_counter``.
    """

    device: torch.device
    synchronize: bool
    timings: Timings = field(default_factory=Timings)
    mark: float = field(default_factory=time.perf_counter)

    def lap(self, part: Literal["scoring", "selection", "training", "update"]) -> None:
        """Charge the time since the last mark to a part of the step."""
        if self.synchronize and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        setattr(self.timings, part, getattr(self.timings, part) + now - self.mark)
        self.mark = now
