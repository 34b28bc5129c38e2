"""What a step did, and how long its parts took."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from subsetopt_torch.selection.picked import Picked

__all__ = ["StepResult", "Timings"]


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


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step did.

    Attributes
    ----------
    loss
        The weighted loss of the samples trained on in the training forward, a detached scalar;
        the mean of them if there were several updates; nan when there was none.
    batch_loss
        Mean over all scored samples, a detached scalar: the honest curve. With all samples chosen
        it is the mean of the training forward; nan where no forward over the batch was made
        (``uniform`` below rate 1).
    picked
        The samples chosen from this batch.
    timings
        Seconds spent.
    losses
        Per-sample losses of the scoring pass, shape (m,), detached; None without one. There are
        m = n of them, or fewer where the policy presamples.
    scored_indices
        Positions in the batch that ``losses`` belong to, shape (m,), int64, ascending; None when
        they belong to all n.
    updated
        Whether the parameters were updated: False for an empty or dropped batch or pick, and for
        a step that only gathers (``accumulate=True``).
    trained
        How many samples had a backward pass: those picked, or those gathered when their turn came.
    """

    loss: Tensor
    batch_loss: Tensor
    picked: Picked
    timings: Timings
    losses: Tensor | None = field(default=None, repr=False)
    scored_indices: Tensor | None = field(default=None, repr=False)
    updated: bool = True
    trained: int = 0
