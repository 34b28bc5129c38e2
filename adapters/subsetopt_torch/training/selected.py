"""The samples of a batch, and those of them that a step trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from subsetopt_torch.arguments import Ids
from subsetopt_torch.model.batches import Rows, take, take_rows
from subsetopt_torch.model.losses import weight_dtype
from subsetopt_torch.recorded.records import RecordedUse
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.training.result import StepResult
from subsetopt_torch.training.timings import Timings

__all__ = ["Batch", "Scores", "SelectedBatch"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples that a step works on.

    Attributes
    ----------
    inputs, targets, ids
        The samples, along dimension 0; ``ids`` is None where they have none.
    n
        The number of samples.
    device
        The device of the inputs.
    rows
        Which parts of inputs and targets have one row per sample, as ``per_sample`` says.
    """

    inputs: object
    targets: object
    ids: Ids | None
    n: int
    device: torch.device
    rows: Sequence[Rows]

    def take(self, indices: Tensor) -> Batch:
        """Return the samples at ``indices``, which may repeat."""
        ids = None if self.ids is None else take(self.ids, indices, self.n)
        return replace(
            self,
            inputs=take_rows(self.inputs, indices, self.rows[0]),
            targets=self.targets_of(indices),
            ids=ids,
            n=indices.shape[0],
        )

    def targets_of(self, indices: Tensor) -> Any:
        """Return the targets of the samples at ``indices``, which may repeat."""
        return take_rows(self.targets, indices, self.rows[1])

    def filled(self, size: int) -> Batch:
        """Return the batch with its samples repeated in order until there are ``size`` of them."""
        if self.n >= size:
            return self
        return self.take(torch.arange(size, device=self.device) % self.n)


@dataclass(frozen=True, slots=True)
class Scores:
    """The losses that a selection was made from.

    Attributes
    ----------
    losses
        Per-sample losses, shape (m,), detached.
    indices
        Positions of the m samples in the batch, shape (m,), int64; None for all of them.
    recorded
        What a ledger had of them; None where all are of a scoring pass, or given by the caller.
    rows
        Which of the m samples had a scoring pass although there is a ledger, ascending; None where
        there is none.
    """

    losses: Tensor
    indices: Tensor | None
    recorded: RecordedUse | None = None
    rows: Tensor | None = None

    def of_pass(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the losses of a scoring pass made now, and their positions in the batch."""
        if self.rows is None:
            return self.losses, self.indices
        if not self.rows.numel():
            return None, None
        at = self.rows if self.indices is None else self.indices[self.rows]
        return self.losses[self.rows], at


@dataclass(frozen=True, slots=True)
class SelectedBatch:
    """A batch and the samples picked from it.

    Attributes
    ----------
    batch
        The samples that ``picked`` counts among.
    picked
        The samples to train on.
    is_whole
        Whether all samples are picked, with weights 1/n and without a scoring pass.
    is_scored
        Whether the samples had a scoring pass before they were picked.
    scores
        The losses of that pass; None without one, and for gathered samples.
    positions
        Where gathered samples stood in the batches they came from, shape (n,), int64; None for a
        batch as it came.
    """

    batch: Batch
    picked: Picked
    is_whole: bool = False
    is_scored: bool = False
    scores: Scores | None = None
    positions: Tensor | None = None

    @classmethod
    def whole(cls, batch: Batch, picked: Picked) -> SelectedBatch:
        """Return a batch of which all samples are picked, as a plain training loop does."""
        return cls(batch, picked, is_whole=True)

    @classmethod
    def unscored(cls, batch: Batch, picked: Picked) -> SelectedBatch:
        """Return a batch whose samples were picked without a scoring pass."""
        return cls(batch, picked)

    @classmethod
    def scored(cls, batch: Batch, picked: Picked, scores: Scores) -> SelectedBatch:
        """Return a batch whose samples were picked after a scoring pass."""
        return cls(batch, picked, is_scored=True, scores=scores)

    @classmethod
    def gathered(
        cls, batch: Batch, picked: Picked, positions: Tensor, *, is_scored: bool
    ) -> SelectedBatch:
        """Return a batch made of samples that were picked from earlier batches."""
        return cls(batch, picked, is_scored=is_scored, positions=positions)

    def keeping(self, picked: Picked) -> SelectedBatch:
        """Return the batch with fewer samples picked."""
        return replace(self, picked=picked)

    def result(
        self,
        timings: Timings,
        loss: Tensor | None = None,
        trained: int = 0,
        updated: bool = False,
        losses: Tensor | None = None,
    ) -> StepResult:
        """Return the result of a step that picked these samples.

        Parameters
        ----------
        timings
            The seconds spent in each part of the step.
        loss
            The loss of the update; None where there was none.
        trained
            The number of samples that had a backward pass.
        updated
            Whether the parameters were changed.
        losses
            Losses of the picked samples in the training forward, shape (k,), detached; None where
            that forward was not made of these samples.
        """
        nan = torch.full((), float("nan"), device=self.batch.device)
        scored = (None, None) if self.scores is None else self.scores.of_pass()
        return StepResult(
            nan if loss is None else loss,
            self._batch_loss(nan if losses is None else losses),
            self.picked,
            timings,
            *scored,
            updated=updated,
            trained=trained,
            recorded=None if self.scores is None else self.scores.recorded,
        )

    def _batch_loss(self, losses: Tensor) -> Tensor:
        """Return the mean loss of the scored samples, or of the trained ones if these are all."""
        picked = self.picked
        if self.scores is not None:
            values = self.scores.losses.to(weight_dtype(self.scores.losses.dtype))
            return values[values.isfinite()].mean() if picked.excluded else values.mean()
        is_all = len(picked) + picked.excluded == picked.n
        return losses.mean() if is_all else torch.full_like(losses.mean(), float("nan"))
