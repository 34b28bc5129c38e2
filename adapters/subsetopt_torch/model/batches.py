"""Batches of any build: tensors, tuples, lists, dicts, nested."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subsetopt import ProblemError

__all__ = [
    "batch_size",
    "call_model",
    "concatenate",
    "first_tensor",
    "per_sample",
    "take",
    "take_rows",
]


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


def per_sample(part: Any, n: int) -> Any:
    """Return which tensors anywhere in a batch of n have one row per sample.

    Returns
    -------
    Any
        The build of the batch, dicts and lists, with a bool at each leaf. True: a tensor or array
        whose first dimension is n, or a list of n plain entries (strings, ids). False: what all
        samples share (a scalar, a mask).
    """
    if isinstance(part, (Tensor, np.ndarray)):
        return bool(part.ndim and part.shape[0] == n)
    if isinstance(part, Mapping):
        return {key: per_sample(value, n) for key, value in part.items()}
    if isinstance(part, (tuple, list)):
        return _plain(part, n) or [per_sample(value, n) for value in part]
    return False


def take(part: Any, indices: Tensor, n: int) -> Any:
    """Return the samples at ``indices`` of a batch of n.

    Parameters
    ----------
    part
        What has one row per sample is indexed, as :func:`per_sample` says; everything else is
        passed on as it is.
    indices
        Positions, shape (k,), int64, on any device.
    n
        The size of the batch.
    """
    return take_rows(part, indices, per_sample(part, n))


def take_rows(part: Any, indices: Tensor, rows: Any) -> Any:
    """Return the samples at ``indices``, of a batch of which ``rows`` says what has rows."""
    if isinstance(rows, Mapping):
        return {key: take_rows(value, indices, rows[key]) for key, value in part.items()}
    if isinstance(rows, list):
        taken = [take_rows(value, indices, row) for value, row in zip(part, rows, strict=True)]
        return _like(part, taken)
    if not rows:
        return part
    if isinstance(part, Tensor):
        return part.index_select(0, indices.to(part.device))
    if isinstance(part, np.ndarray):
        return part[indices.cpu().numpy()]
    return type(part)(part[i] for i in indices.tolist())


def concatenate(parts: Sequence[Any], rows: Any) -> Any:
    """Return one batch made of the samples of several, in order.

    Parameters
    ----------
    parts
        Batches of one build, at least one. Tensors come together on the device of the last.
    rows
        What has rows in each of them, as :func:`per_sample` says. What has not must be equal in
        all.

    Raises
    ------
    ProblemError
        If rows have different shapes, or what the samples of each batch share differs.
    """
    first = parts[0]
    if isinstance(rows, Mapping):
        return {key: concatenate([part[key] for part in parts], rows[key]) for key in first}
    if isinstance(rows, list):
        columns = zip(*parts, strict=True)
        return _like(first, [concatenate(c, r) for c, r in zip(columns, rows, strict=True)])
    if not rows:
        if not all(_equal(first, part) for part in parts[1:]):
            raise ProblemError(
                "what the samples of a batch share (a scalar, a mask) differs between the batches "
                "that samples are gathered from; give it one row per sample, or gather nothing "
                "(accumulate=False)."
            )
        return first
    return _joined(parts)


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


def _plain(part: Sequence[Any], n: int) -> bool:
    """Whether a list is n plain entries, and not a list of parts."""
    nested = (Tensor, np.ndarray, Mapping, tuple, list)
    named = hasattr(part, "_fields")
    return len(part) == n and not named and not any(isinstance(v, nested) for v in part)


def _like(part: Any, values: list[Any]) -> Any:
    return type(part)(*values) if hasattr(part, "_fields") else type(part)(values)


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b.to(a.device))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return type(a) is type(b) and bool(a == b)


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if not isinstance(first, (Tensor, np.ndarray)):
        return type(first)(chain.from_iterable(parts))
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ProblemError(
            f"samples of shapes {' and '.join(map(str, sorted(shapes)))} cannot be gathered into "
            "one batch; pad them to one shape, or gather nothing (accumulate=False)."
        )
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    return torch.cat([part.to(parts[-1].device) for part in parts])
