"""The training forward: with gradients, of the picked samples only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from subsetopt.policies import to_host
from subsetopt_torch.arguments import Autocast
from subsetopt_torch.model.batches import call_model, take
from subsetopt_torch.model.losses import LossFunction, check_per_sample
from subsetopt_torch.model.scoring_pass import scoring_pass
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.selection.selector import BatchSelector
from subsetopt_torch.training.selected import SelectedBatch

__all__ = ["ForwardResult", "TrainingForward"]


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """What a training forward gave.

    Attributes
    ----------
    selected
        The batch, with the k picked samples whose losses are finite.
    losses
        Per-sample losses, shape (r,), with gradients: of the k samples, then of their repeats.
    outputs
        What the model returned for these r samples.
    """

    selected: SelectedBatch
    losses: Tensor
    outputs: object

    def weighted_loss(self) -> Tensor:
        """Return the loss to make gradients of, a scalar."""
        picked = self.selected.picked
        k = len(picked)
        if self.selected.is_whole and k == self.losses.shape[0] == self.selected.batch.n:
            return self.losses.mean()  # what a plain training loop computes, to the last bit
        return (self.losses[:k] * picked.weights.to(self.losses.device)).sum()


@dataclass(frozen=True, slots=True)
class TrainingForward:
    """Makes the training forward of a step.

    Attributes
    ----------
    model
        The model that is trained.
    loss_fn
        ``loss_fn(outputs, targets)``, one loss per sample.
    autocast
        Makes the context that the forward runs in.
    selector
        Says what happens to samples whose loss is not finite.
    size
        The number of samples that repeats fill up to; 0 for no repeats.
    """

    model: nn.Module
    loss_fn: LossFunction
    autocast: Autocast
    selector: BatchSelector
    size: int = 0

    def __call__(self, selected: SelectedBatch) -> ForwardResult:
        """Return losses and outputs of the picked samples, without those that are not finite.

        Only losses without a scoring pass are looked at; the selector has seen the others.

        Raises
        ------
        ProblemError
            If a loss is not finite and the selector says that this raises.
        """
        if selected.is_scored:
            return self._forward(selected)
        excludes = self.selector.nonfinite == "exclude"
        before = [(b, b.detach().clone()) for b in self.model.buffers()] if excludes else []
        forward, picked = self._forward(selected), selected.picked
        values = forward.losses.detach()[: len(picked)]
        good = values.isfinite()
        if bool(good.all()):
            return forward
        # A NaN reaches every gradient and BatchNorm's statistics: forward again without it.
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        if excludes:
            good = self._finite_alone(selected, good)
        where = "the batch" if selected.positions is None else "the gathered batch"
        positions = to_host(picked.indices[~good])
        self.selector.exclude_nonfinite(positions, to_host(values[~good]), where)
        return self._retry(selected.keeping(_kept(picked, good)), forward)

    def _retry(self, rest: SelectedBatch, failed: ForwardResult) -> ForwardResult:
        """Return the forward of the samples that are left; of none if it is not finite either."""
        if not len(rest.picked):
            return ForwardResult(rest, failed.losses, failed.outputs)
        forward = self._forward(rest)
        if bool(forward.losses.detach().isfinite().all()):
            return forward
        nothing = torch.zeros_like(rest.picked.indices, dtype=torch.bool)
        return ForwardResult(
            rest.keeping(_kept(rest.picked, nothing)), forward.losses, forward.outputs
        )

    def _finite_alone(self, selected: SelectedBatch, together: Tensor) -> Tensor:
        """Return which losses are finite when no sample sees another, as in eval mode.

        Under BatchNorm one NaN makes the losses of the whole batch NaN; only the sample that the
        NaN comes from is to be left out.
        """
        with scoring_pass(self.model, devices=(selected.batch.device,)):
            alone = self._forward(selected).losses[: len(selected.picked)].isfinite()
        return together if bool(alone.all()) else alone

    def _forward(self, selected: SelectedBatch) -> ForwardResult:
        batch, rows, k = selected.batch, selected.picked.indices, len(selected.picked)
        inputs, targets = batch.inputs, batch.targets
        size = max(self.size, k)
        if size > k:
            rows = rows[torch.arange(size, device=rows.device) % k]
        if size > k or k < batch.n:
            inputs, targets = take(inputs, rows, batch.n), take(targets, rows, batch.n)
        with self.autocast():
            outputs = call_model(self.model, inputs)
            losses = check_per_sample(self.loss_fn(outputs, targets), size)
        return ForwardResult(selected, losses, outputs)


def _kept(picked: Picked, good: Tensor) -> Picked:
    """Return the pick without the samples that are not good, their weight spread over the rest."""
    weights = picked.weights[good]
    total = weights.sum()
    scale = picked.weights.sum() / total if len(weights) else total
    return Picked(
        picked.indices[good],
        weights * scale,
        picked.n,
        lambda: picked.solution,
        int((~good).sum()),
        picked.fallback,
    )
