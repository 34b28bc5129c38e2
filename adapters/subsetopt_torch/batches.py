"""Batches of any build: tensors, tuples, lists, dicts, nested."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from subsetopt import ProblemError

__all__ = ["batch_size", "call_model", "first_tensor", "take"]


def batch_size(*parts: Any) -> int:
    """Return the length of the first tensor with at least one dimension.

    Raises
    ------
    ProblemError
        If there is none.
    """
    for part in parts:
        for tensor in _tensors(part):
            if tensor.ndim:
                return int(tensor.shape[0])
    raise ProblemError(
        "the batch holds no tensor with a batch dimension: pass tensors, or tuples, lists and "
        "dicts of them, with the samples along dimension 0."
    )


def first_tensor(part: Any) -> Tensor | None:
    """Return the first tensor anywhere in a batch, or None."""
    return next(_tensors(part), None)


def take(part: Any, indices: Tensor, n: int) -> Any:
    """Return the samples at ``indices`` of a batch of n.

    Parameters
    ----------
    part
        Tensors whose first dimension is n are indexed; so is a list with n plain entries (strings,
        ids). Everything else (a scalar, a shared mask) is passed on as it is.
    indices
        Positions, shape (k,), int64, on any device.
    n
        The size of the batch.
    """
    if isinstance(part, Tensor):
        shared = part.ndim == 0 or part.shape[0] != n
        return part if shared else part.index_select(0, indices.to(part.device))
    if isinstance(part, Mapping):
        return {key: take(value, indices, n) for key, value in part.items()}
    if isinstance(part, (tuple, list)):
        if len(part) == n and not any(isinstance(v, (Tensor, Mapping, tuple, list)) for v in part):
            return type(part)(part[i] for i in indices.tolist())
        taken = [take(value, indices, n) for value in part]
        return type(part)(*taken) if hasattr(part, "_fields") else type(part)(taken)
    return part


def call_model(model: Callable[..., Any], inputs: Any) -> Any:
    """Return ``model(**inputs)`` for a dict, ``model(*inputs)`` for a tuple, else ``model(x)``."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _tensors(value)
    elif isinstance(part, (tuple, list)):
        for value in part:
            yield from _tensors(value)
