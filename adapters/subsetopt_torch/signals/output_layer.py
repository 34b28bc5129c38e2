"""Gradients of the losses with respect to what a model's last layers make.

What the first batch shows of the model and the loss is remembered: which activations the outputs
come from, and that the loss of a sample depends on that sample alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from subsetopt import ProblemError
from subsetopt_torch.model.batches import Rows, take_rows
from subsetopt_torch.model.losses import LossFunction, check_per_sample
from subsetopt_torch.model.outputs import real_outputs, with_outputs
from subsetopt_torch.signals.activations import (
    Activation,
    elementwise_activation,
    has_range,
    normalizing_activation,
)

__all__ = ["OutputLayer", "Targets", "Trace"]

# Returns the real outputs of a few samples, made while gradients were on.
Trace: TypeAlias = Callable[[], Sequence[Tensor]]

# How far two evaluations of one loss may be apart, as a fraction of the mean loss: in single
# precision, and in lower precision.
_NEAR, _COARSE = 1e-3, 5e-2
# Norms that differ by less than this fraction are those of single precision's rounding.
_ALIKE = 1e-5


class Targets(NamedTuple):
    """Targets of some samples, and which of their parts have one row per sample."""

    values: object
    rows: Rows


class OutputLayer:
    """Gives the gradients of losses with respect to the outputs before their activations.

    Where a loss depends on several outputs (two heads), the gradients with respect to all of them
    stand side by side.
    """

    def __init__(self) -> None:
        self._activations: dict[int, Activation | None] = {}
        self._looked_at_loss = False
        self._looked_at_norms = False

    def gradients(
        self, loss_fn: LossFunction, outputs: object, targets: Targets, n: int, traced: Trace
    ) -> tuple[Tensor, Tensor]:
        """Return losses and their gradients, by one call of autograd that stops at the outputs.

        Parameters
        ----------
        loss_fn
            ``loss_fn(outputs, targets)``, one loss per sample.
        outputs
            What the model returned for n samples.
        targets
            The targets of these samples.
        n
            The number of samples.
        traced
            Is called at most once for each output, to find its activation.

        Returns
        -------
        tuple[Tensor, Tensor]
            Losses, shape (n,), detached; gradients of the shape of the only output that the loss
            depends on, or, where there are several, of shape (n, the sum of their sizes).

        Raises
        ------
        ProblemError
            If the loss depends on no output, or mixes the samples of a batch.
        """
        tensors = real_outputs(outputs, n)
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        with torch.enable_grad():
            losses = loss_fn(with_outputs(outputs, tensors, leaves), targets.values)
            losses = check_per_sample(losses, n)
            found = (
                torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
                if losses.requires_grad
                else (None,) * len(leaves)
            )
        used = [(i, gradient) for i, gradient in enumerate(found) if gradient is not None]
        if not used:
            raise ProblemError(_UNUSED)
        losses = losses.detach()
        with torch.no_grad():
            self._look_at_loss(loss_fn, outputs, tensors, targets, losses)
        parts = []
        for i, gradient in used:
            wide = gradient if gradient.dtype.itemsize >= 4 else gradient.float()
            parts.append(self.before_activation(tensors[i], wide, i, n, traced))
        if len(parts) == 1:
            return losses, parts[0]
        return losses, torch.cat([part.reshape(n, -1) for part in parts], 1)

    def before_activation(
        self, output: Tensor, gradients: Tensor, number: int, n: int, traced: Trace
    ) -> Tensor:
        """Return gradients with respect to what the activation of an output was applied to.

        Parameters
        ----------
        output
            One of the outputs of the model.
        gradients
            Gradients with respect to it, of its shape.
        number
            Its number among the real outputs.
        n, traced
            As for :meth:`gradients`.
        """
        if number not in self._activations:
            if not n:
                return gradients
            self._activations[number] = _activation(output, number, traced)
        activation = self._activations[number]
        return gradients if activation is None else activation.before(output, gradients)

    def look_at_norms(self, norms: Tensor, logits: Tensor) -> None:
        """Warn once if different samples of the first batch have one norm."""
        if self._looked_at_norms or norms.shape[0] < 2:
            return
        self._looked_at_norms = True
        low, high = norms.aminmax()
        if bool((high - low <= _ALIKE * high) & (high > 0) & (logits != logits[:1]).any()):
            warnings.warn(
                f"the gradient of the loss has the same norm for all {norms.shape[0]} samples of "
                "the first batch, so that 'upper_bound' tells none from the others. An absolute "
                "error (L1Loss) is so for ever: use a loss whose slope grows with the error, or a "
                "policy that goes by the losses.",
                UserWarning,
                stacklevel=2,
            )

    def _look_at_loss(
        self,
        loss_fn: LossFunction,
        outputs: object,
        tensors: Sequence[Tensor],
        targets: Targets,
        losses: Tensor,
    ) -> None:
        """Raise if other samples change the loss of a sample: asked once, with half of a batch.

        Raises
        ------
        ProblemError
            Since the gradient of the sum is then not made of gradients of single losses.
        """
        n = losses.shape[0]
        if self._looked_at_loss or n < 2:
            return
        self._looked_at_loss = True
        rows = torch.arange(n - 1, -1, -2, device=losses.device)
        tolerance = _NEAR if losses.dtype.itemsize >= 4 else _COARSE
        wide = losses.double() if losses.device.type != "mps" else losses.float()
        margin = tolerance * float(wide[wide.isfinite()].abs().mean())

        def near(some: Tensor, others: Tensor) -> bool:
            return torch.allclose(some.to(wide), others, tolerance, margin, equal_nan=True)

        half = [tensor.index_select(0, rows) for tensor in tensors]
        again = loss_fn(
            with_outputs(outputs, tensors, half), take_rows(targets.values, rows, targets.rows)
        )
        if again.shape != rows.shape or near(again, wide[rows]):
            return
        if near(loss_fn(outputs, targets.values), wide):  # or else the loss is random
            raise ProblemError(_MIXES)


def _activation(output: Tensor, number: int, traced: Trace) -> Activation | None:
    """Return the activation that an output comes from; None where there is none that is known."""
    normalizing = normalizing_activation(output)
    if normalizing is not None or not has_range(output):
        return normalizing
    few = traced()
    return elementwise_activation(few[number]) if number < len(few) else None


_UNUSED = (
    "the loss does not depend on what was taken for the logits (outputs.logits, outputs['logits'] "
    "or any tensor in the outputs), so that it has no gradient."
)
_MIXES = (
    "loss_fn gives other losses for half of a batch than for all of it: the loss of a sample "
    "depends on the other samples (a contrastive loss, a loss relative to the batch), so that it "
    "has no gradient of its own. Choose by the losses (a policy such as 'big-loss' or 'obtf'), or "
    "let loss_fn look at each sample alone."
)
