"""The training forward: with gradients, of the picked samples only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from subsetopt.policies import to_host
from subsetopt_torch.model.batches import call_model, take
from subsetopt_torch.model.losses import check_per_sample
from subsetopt_torch.model.scoring_pass import scoring_pass
from subsetopt_torch.selection.picked import Picked
from subsetopt_torch.selection.selector import BatchSelector
from subsetopt_torch.training.progress import StepRun

__all__ = ["TrainingForward"]


@dataclass(frozen=True, slots=True)
class TrainingForward:
    """Make the training forward of a step.

    Attributes
    ----------
    model, loss_fn, autocast, selector
        Of the step.
    size
        Samples to fill up to with repeats; 0 for none.
    """

    model: nn.Module
    loss_fn: Callable[[Any, Any], Tensor]
    autocast: Callable[[], AbstractContextManager[Any]]
    selector: BatchSelector
    size: int = 0

    def __call__(self, run: StepRun, picked: Picked) -> tuple[Tensor, Any, Picked]:
        """Return losses and outputs of the picked samples, without those that are not finite.

        Scored samples had their losses looked at before. Repeats come last.

        Raises
        ------
        ProblemError
            If a loss is not finite and the selector says that this raises.
        """
        guard = not run.scored and self.selector.nonfinite == "exclude"
        before = [(b, b.detach().clone()) for b in self.model.buffers()] if guard else []
        losses, outputs = self._rows(run, picked)
        if run.scored:
            return losses, outputs, picked
        values = losses.detach()[: len(picked)]
        good = values.isfinite()
        if bool(good.all()):
            return losses, outputs, picked
        # A NaN reaches every gradient and BatchNorm's statistics: forward again without it.
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
        if guard:
            good = self._finite_alone(run, picked, good)
        where = "the batch" if run.positions is None else "the gathered batch"
        positions = to_host(picked.indices[~good])
        self.selector.exclude_nonfinite(positions, to_host(values[~good]), where)
        left = _left_out(picked, good)
        if len(left):
            losses, outputs = self._rows(run, left)
            if not bool(losses.detach().isfinite().all()):
                left = _left_out(left, torch.zeros_like(left.indices, dtype=torch.bool))
        return losses, outputs, left

    def _finite_alone(self, run: StepRun, picked: Picked, together: Tensor) -> Tensor:
        """Return which losses are finite when no sample sees another, as in eval mode.

        Under BatchNorm one NaN makes the losses of the whole batch NaN; the others are innocent.
        """
        with scoring_pass(self.model, devices=(run.device,)):
            alone = self._rows(run, picked)[0][: len(picked)].isfinite()
        return together if bool(alone.all()) else alone

    def _rows(self, run: StepRun, picked: Picked) -> tuple[Tensor, Any]:
        rows, inputs, targets = picked.indices, run.inputs, run.targets
        padding = max(0, self.size - len(picked))
        if padding:
            rows = rows[torch.arange(len(picked) + padding, device=rows.device) % len(picked)]
        if padding or len(picked) < run.n:
            inputs, targets = take(inputs, rows, run.n), take(targets, rows, run.n)
        with self.autocast():
            outputs = call_model(self.model, inputs)
            return check_per_sample(self.loss_fn(outputs, targets), rows.shape[0]), outputs


def _left_out(picked: Picked, good: Tensor) -> Picked:
    """Return the pick without some of its samples, their weight spread over the others."""
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
