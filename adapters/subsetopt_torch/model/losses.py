"""Per-sample losses: their checks, and the dtype of the weights that belong to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from subsetopt import ProblemError

__all__ = ["LossFunction", "as_loss_vector", "check_per_sample", "weight_dtype"]

# Takes a model's outputs and a batch's targets, and returns one loss per sample, shape (n,).
LossFunction: TypeAlias = Callable[[Any, Any], Tensor]


def as_loss_vector(losses: Tensor | ArrayLike) -> Tensor:
    """Return per-sample losses as a detached tensor of shape (n,).

    Raises
    ------
    ProblemError
        If the losses are not a vector of real numbers.
    """
    tensor = losses if isinstance(losses, Tensor) else torch.as_tensor(losses)
    tensor = tensor.detach()
    if tensor.ndim != 1:
        hint = (
            "a reduced loss has no samples left to choose from: use reduction='none'"
            if tensor.ndim == 0
            else _ALL_PAIRS.rstrip(".")
            if _is_square(tensor)
            else "reduce it to one number per sample, for example losses.flatten(1).mean(1)"
        )
        raise ProblemError(f"losses must have shape (n,), got {tuple(tensor.shape)}; {hint}.")
    if tensor.is_complex():
        raise ProblemError(f"losses must be real numbers, got dtype {tensor.dtype}.")
    return tensor


def check_per_sample(losses: object, n: int) -> Tensor:
    """Return what a loss function gave for n samples, if that is one loss per sample.

    Raises
    ------
    ProblemError
        If it is no tensor of shape (n,).
    """
    if not isinstance(losses, Tensor):
        raise ProblemError(
            f"loss_fn must return a tensor of per-sample losses, got {type(losses).__name__}."
        )
    if losses.ndim == 0:
        raise ProblemError(
            "loss_fn returned one number for the whole batch: a reduced loss has no samples left "
            "to choose from. Build it with reduction='none', for example "
            "torch.nn.CrossEntropyLoss(reduction='none')."
        )
    if losses.shape != (n,):
        hint = (
            _ALL_PAIRS
            if losses.shape == (n, n)
            else "Samples must be along dimension 0 of inputs, outputs and targets, sequences too."
            if losses.ndim == 1
            else "Use reduction='none' and take the mean over any further dimension, for example "
            "losses.flatten(1).mean(1)."
        )
        raise ProblemError(
            f"loss_fn returned shape {tuple(losses.shape)} for {n} samples, expected ({n},): one "
            f"loss per sample. {hint}"
        )
    return losses


def _is_square(losses: Tensor) -> bool:
    """Whether there may be a loss for every pair of samples."""
    return losses.ndim == 2 and losses.shape[0] == losses.shape[1] > 1


def weight_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of weights for losses of a dtype: that dtype, but at least float32."""
    wide = dtype.is_floating_point and dtype.itemsize >= 4
    return dtype if wide else torch.float32


_ALL_PAIRS = (
    "These are losses of all pairs of outputs and targets, as outputs of shape (n, 1) make them "
    "with targets of shape (n,); a mean over them would be a loss of no sample. Give both one "
    "shape, for example outputs.squeeze(1)."
)
