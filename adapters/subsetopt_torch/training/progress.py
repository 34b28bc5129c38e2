"""One step in progress."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from subsetopt_torch.model.batches import first_tensor, take
from subsetopt_torch.model.losses import weight_dtype
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.training.result import StepResult, Timings

__all__ = ["Clock", "StepRun", "device_of"]


def device_of(model: nn.Module, inputs: Any) -> torch.device:
    """Return where the inputs are; the model, where they hold no tensor; the CPU without either."""
    tensor = first_tensor(inputs)
    found = next(model.parameters(), None) if tensor is None else tensor
    return torch.device("cpu") if found is None else found.device


@dataclass(slots=True)
class Clock:
    """Tells how long the parts of a step take; with ``synchronize`` it waits for the device."""

    device: torch.device
    synchronize: bool
    timings: Timings = field(default_factory=Timings)
    mark: float = field(default_factory=time.perf_counter)

    def lap(self, part: str) -> None:
        """Charge the time since the last mark to a part of the step."""
        if self.synchronize and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        setattr(self.timings, part, getattr(self.timings, part) + now - self.mark)
        self.mark = now


@dataclass(slots=True)
class StepRun:
    """Samples that are worked on, and what is known of them.

    Attributes
    ----------
    inputs, targets, ids
        The samples, along dimension 0.
    n
        How many.
    full
        How many there are when the batch is a full one: what ``last_batch="pad"`` fills up to.
    clock
        Of the step.
    whole
        Whether everything was taken, with weights 1/n.
    scored
        Whether the samples had a scoring pass before any was chosen.
    losses
        What it gave, shape (m,), detached; None without one.
    scored_indices
        Positions of the m samples in the batch, shape (m,), int64; None for all n.
    positions
        Where gathered samples stood in the batches they came from, shape (n,), int64; None for a
        batch as it came.
    """

    inputs: Any
    targets: Any
    ids: Any
    n: int
    full: int
    clock: Clock
    whole: bool = False
    scored: bool = False
    losses: Tensor | None = None
    scored_indices: Tensor | None = None
    positions: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        return self.clock.device

    def part(self, indices: Tensor, full: int) -> StepRun:
        """Return the run of some of the samples; ``full`` is how many there mostly are."""
        inputs, targets, ids = (
            take(part, indices, self.n) for part in (self.inputs, self.targets, self.ids)
        )
        n = indices.shape[0]
        return replace(self, inputs=inputs, targets=targets, ids=ids, n=n, full=full)

    def result(
        self,
        picked: Picked,
        loss: Tensor | None,
        trained: int = 0,
        losses: Tensor | None = None,
    ) -> StepResult:
        """Return what the step did.

        Parameters
        ----------
        picked
            The samples chosen from the batch.
        loss
            Of the update; None without one.
        trained
            How many samples had a backward pass.
        losses
            Those of the picked samples in the training forward, where it was made of them.
        """
        nan = torch.full((), float("nan"), device=self.device)
        return StepResult(
            nan if loss is None else loss,
            self._batch_loss(picked, nan if losses is None else losses),
            picked,
            self.clock.timings,
            self.losses,
            self.scored_indices,
            updated=loss is not None,
            trained=trained,
        )

    def _batch_loss(self, picked: Picked, losses: Tensor) -> Tensor:
        """Return the mean over all that were scored, or else trained on, if that was all."""
        if self.losses is not None:
            values = self.losses.to(weight_dtype(self.losses.dtype))
            return values[values.isfinite()].mean() if picked.excluded else values.mean()
        whole = len(picked) + picked.excluded == picked.n
        return losses.mean() if whole else torch.full_like(losses.mean(), float("nan"))
