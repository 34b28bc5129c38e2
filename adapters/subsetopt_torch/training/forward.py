"""The training forward: with gradients, of the picked samples only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from subsetopt.policies import to_host
from subsetopt_torch.arguments import Autocast
from subsetopt_torch.model.batches import call_model
from subsetopt_torch.model.buffers import Snapshot, norm_modules
from subsetopt_torch.model.known_rows import KnownRows
from subsetopt_torch.model.losses import LossFunction, check_per_sample
from subsetopt_torch.model.scoring_pass import scoring_pass
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.selection.selector import BatchSelector
from subsetopt_torch.training.notices import Notices
from subsetopt_torch.training.selected import Batch, SelectedBatch

__all__ = ["ForwardResult", "TrainingForward"]


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """What a training forward gave."""

    selected: SelectedBatch  #: the batch, with the k picked samples whose losses are finite
    losses: Tensor  #: (r,) per-sample losses with gradients: the k samples, then their repeats
    outputs: object  #: what the model returned for these r samples

    def is_finite(self) -> bool:
        """Return whether the losses of all picked samples are finite."""
        return bool(self.losses.detach()[: len(self.selected.picked)].isfinite().all())

    def weighted_loss(self) -> Tensor:
        """Return the loss to make gradients of, a scalar."""
        picked = self.selected.picked
        k = len(picked)
        if self.selected.is_whole and k == self.losses.shape[0] == self.selected.batch.n:
            return self.losses.mean()  # what a plain training loop computes, to the last bit
        return (self.losses[:k] * picked.weights.to(self.losses.device)).sum()


@dataclass(frozen=True, slots=True)
class TrainingForward:
    """Makes the training forward of a step."""

    model: nn.Module  #: the model that is trained
    loss_fn: LossFunction  #: ``loss_fn(outputs, targets)``, one loss per sample
    autocast: Autocast  #: makes the context that the forward runs in
    selector: BatchSelector  #: says what happens to samples whose loss is not finite
    notices: Notices  #: says once what the user should know
    rows: KnownRows  #: what the first batch showed of its parts
    size: int = 0  #: the number of samples that repeats fill up to; 0 for no repeats

    def __call__(self, selected: SelectedBatch) -> ForwardResult:
        """Return losses and outputs of the picked samples."""
        batch, rows, k = selected.batch, selected.picked.indices, len(selected.picked)
        size = max(self.size, k)
        if size > k:
            rows = rows[torch.arange(size, device=rows.device) % k]
        if size > k or k < batch.n:
            batch = batch.take(rows)
        with self.autocast():
            outputs = self._outputs(batch)
            self.rows.confirm(outputs, size)
            losses = check_per_sample(self.loss_fn(outputs, batch.targets), size)
        return ForwardResult(selected, losses, outputs)

    def before(self) -> Snapshot | None:
        """Return what is put back if a loss is not finite and its sample is left out."""
        if self.selector.nonfinite != "exclude":
            return None
        return Snapshot(module for owner in self._owners() for module in owner.modules())

    def without_nonfinite(self, forward: ForwardResult, before: Snapshot | None) -> ForwardResult:
        """Return another forward, without the samples whose loss is not finite.

        A NaN reaches every gradient and BatchNorm's statistics, so that all of them are made anew.
        Where the losses of the others are not finite then, either, nothing is picked.

        Parameters
        ----------
        forward
            A forward with a loss that is not finite.
        before
            What :meth:`before` returned before that forward was made.

        Raises
        ------
        ProblemError
            If the selector says that such a loss raises.
        """
        selected, picked = forward.selected, forward.selected.picked
        values = forward.losses.detach()[: len(picked)]
        good = values.isfinite()
        if before is not None:
            before.put_back()
            good = self._finite_alone(selected, good)
        where = "the batch" if selected.positions is None else "the gathered batch"
        if selected.is_scored:
            where += ", in the training forward"
        positions = to_host(picked.indices[~good])
        self.selector.exclude_nonfinite(positions, to_host(values[~good]), where)
        rest = selected.keeping(_kept(picked, good))
        if not len(rest.picked):
            return ForwardResult(rest, forward.losses, forward.outputs)
        again = self(rest)
        if again.is_finite():
            return again
        assert before is not None
        before.put_back()
        self.selector.exclude_nonfinite(to_host(rest.picked.indices), to_host(again.losses), where)
        nothing = torch.zeros_like(rest.picked.indices, dtype=torch.bool)
        return ForwardResult(rest.keeping(_kept(rest.picked, nothing)), again.losses, again.outputs)

    def _owners(self) -> list[nn.Module]:
        loss_fn = self.loss_fn
        return [self.model, loss_fn] if isinstance(loss_fn, nn.Module) else [self.model]

    def _finite_alone(self, selected: SelectedBatch, together: Tensor) -> Tensor:
        """Return which losses are finite when no sample sees another, as in eval mode.

        Under BatchNorm one NaN makes the losses of the whole batch NaN; only the sample that the
        NaN comes from is to be left out.
        """
        device, loss_fn = selected.batch.device, self.loss_fn
        with scoring_pass(self.model, devices=(device,), loss_fn=loss_fn):
            alone = self(selected).losses[: len(selected.picked)].isfinite()
        return together if bool(alone.all()) else alone

    def _outputs(self, batch: Batch) -> object:
        """Return what the model makes of a batch.

        Batch statistics of one sample do not exist; where a layer refuses them, the layers use
        their running statistics.
        """
        norms = [m for m in norm_modules(self.model) if m.training] if batch.n == 1 else []
        if not norms:
            return call_model(self.model, batch.inputs, batch.rows[0])
        before = Snapshot(norms)
        try:
            return call_model(self.model, batch.inputs, batch.rows[0])
        except ValueError:
            before.put_back()
            for module in norms:
                module.training = False
            outputs = call_model(self.model, batch.inputs, batch.rows[0])
        finally:
            for module in norms:
                module.training = True
        self.notices.warn(
            "one sample",
            "one sample was picked, and a normalization layer in training mode needs more of them: "
            "for updates on one sample these layers use their running statistics. Pick at least 2 "
            "(a larger rate or k, last_batch='drop').",
        )
        return outputs


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
