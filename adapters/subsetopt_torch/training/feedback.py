"""What the policy is told after an update."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from subsetopt.policies import Feedback
from subsetopt_torch.arguments import Autocast
from subsetopt_torch.model.batches import take
from subsetopt_torch.model.losses import LossFunction
from subsetopt_torch.model.outputs import find_logits
from subsetopt_torch.signals.output_layer import OutputLayer, Targets
from subsetopt_torch.signals.scoring_forward import learned
from subsetopt_torch.training.forward import ForwardResult

__all__ = ["Reporting"]


@dataclass(frozen=True, slots=True)
class Reporting:
    """Makes the feedback of a training forward."""

    loss_fn: LossFunction  #: ``loss_fn(outputs, targets)``, one loss per sample
    autocast: Autocast  #: makes the context that derived signals are made in
    learns_from: frozenset[str]  #: names of the derived signals that the policy learns from
    output_layer: OutputLayer  #: what is known of the outputs and the loss

    def __call__(self, forward: ForwardResult, step: int) -> Feedback:
        """Return the feedback to selection number ``step``."""
        selected = forward.selected
        batch, picked, positions = selected.batch, selected.picked, selected.picked.indices
        k, size = len(picked), forward.losses.shape[0]
        logits = find_logits(forward.outputs, size)
        if selected.positions is not None:
            positions = selected.positions[positions]
        return Feedback(
            step,
            positions,
            picked.weights,
            forward.losses.detach()[:k],
            None if logits is None else logits.detach()[:k],
            batch.targets_of(picked.indices),
            None if batch.ids is None else take(batch.ids, picked.indices, batch.n),
            selected.is_scored,
            self._signals(forward, size),
        )

    def _signals(self, forward: ForwardResult, size: int) -> dict[str, Tensor]:
        """Return derived signals of the picked samples, from ``size`` rows of outputs."""
        if not self.learns_from:
            return {}
        batch, indices = forward.selected.batch, forward.selected.picked.indices
        k = indices.shape[0]
        rows = indices[torch.arange(size, device=indices.device) % k]
        targets = batch.targets_of(rows)
        with self.autocast():
            signals = learned(
                self.output_layer,
                self.loss_fn,
                forward.outputs,
                Targets(targets, batch.rows[1]),
                size,
                self.learns_from,
            )
        return {name: value[:k] for name, value in signals.items()}
