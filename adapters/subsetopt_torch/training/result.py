"""What a step did."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from subsetopt_torch.recorded.records import RecordedUse
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.training.timings import Timings

__all__ = ["StepResult"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes
    ----------
    loss
        The weighted loss of the samples trained on in the training forward, a detached scalar;
        the mean of these losses if there were several updates; nan if there was no update.
    batch_loss
        Mean loss of all scored samples, a detached scalar: the honest curve. With all samples
        chosen it is the mean of the training forward; the mean of the losses that the
        caller passed, or that were recorded, where they were not computed; nan where no forward
        over the batch was made (``uniform`` below rate 1).
    picked
        The samples chosen from this batch.
    timings
        Seconds spent in each part of the step.
    losses
        Per-sample losses of the scoring pass, shape (m,), detached; None without such a pass. m is
        n, or less where the policy presamples or most losses were recorded.
    scored_indices
        Positions in the batch that ``losses`` belong to, shape (m,), int64, ascending; None when
        they belong to all n samples.
    updated
        Whether the optimizer changed the parameters: False for an empty or dropped batch or pick,
        for a step that only gathers (``accumulate=True``), and where a gradient scaler skipped the
        update because a gradient was not finite.
    trained
        How many samples had a backward pass: those picked from this batch or, with
        ``accumulate=True``, those gathered for the updates of this step.
    recorded
        With a ledger, how many samples had a record, and of what age; otherwise None.
    """

    loss: Tensor
    batch_loss: Tensor
    picked: Picked
    timings: Timings
    losses: Tensor | None = field(default=None, repr=False)
    scored_indices: Tensor | None = field(default=None, repr=False)
    updated: bool = True
    trained: int = 0
    recorded: RecordedUse | None = None
