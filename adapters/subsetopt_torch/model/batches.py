"""Batches of any build: tensors, tuples, lists and dicts of them, nested."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol, TypeAlias, TypeGuard

import numpy as np
import torch
from torch import Tensor

from subsetopt import ProblemError

__all__ = [
    "Rows",
    "batch_size",
    "call_model",
    "check_alike",
    "concatenate",
    "first_tensor",
    "map_entries",
    "map_rows",
    "moved",
    "per_sample",
    "take",
    "take_rows",
    "tensors_of",
]


class _OwnBatch(Protocol):
    """A batch of its own kind."""

    batch_size: tuple[int, ...]


# Which parts of a batch have one row per sample: the build of the batch, with a bool at each leaf.
Rows: TypeAlias = "bool | list[Rows] | dict[Any, Rows]"


def batch_size(*parts: object) -> int:
    """Return the number of samples: that of the first part that tells it.

    It is the length of the first tensor with at least one dimension. A list of dicts, as detection
    has it, is one entry per sample; so is a list of tensors if another part has as many samples.

    Raises
    ------
    ProblemError
        If there is no such tensor.
    """
    first = parts[0]
    if isinstance(first, Tensor) and first.ndim:
        n = int(first.shape[0])
        if all(isinstance(part, Tensor) and part.shape[:1] == (n,) for part in parts):
            return n
    for i, part in enumerate(parts):
        counts = list(_counts(part))
        others = [other for other in parts[i + 1 :] if first_tensor(other) is not None]
        for n in counts:
            if all(_any_rows(per_sample(other, n)) for other in others):
                return n
        if counts:
            return counts[0]
    raise ProblemError(
        "the batch holds no tensor with a batch dimension: pass tensors, or tuples, lists and "
        "dicts of them, with the samples along dimension 0."
    )


def first_tensor(part: object) -> Tensor | None:
    """Return the first tensor anywhere in a batch, or None."""
    return next(tensors_of(part), None)


def per_sample(part: object, n: int) -> Rows:
    """Return which parts of a batch of n samples have one row per sample.

    Returns
    -------
    Rows
        The build of the batch, dicts and lists, with a bool at each leaf. True stands for a tensor
        or array whose first dimension is n, for a list of n plain entries (strings, ids), and for a
        list of n tensors or dicts that are alike and do not all have n rows themselves (images of
        different sizes); False for what all samples share (a scalar, a mask).
    """
    if isinstance(part, (Tensor, np.ndarray)):
        return bool(part.ndim and part.shape[0] == n)
    if _has_batch_size(part):
        return bool(part.batch_size[:1] == (n,))
    if isinstance(part, Mapping):
        return {key: per_sample(value, n) for key, value in part.items()}
    if isinstance(part, (tuple, list)):
        return _is_list_of_samples(part, n) or [per_sample(value, n) for value in part]
    return False


def take(part: object, indices: Tensor, n: int) -> Any:
    """Return the samples at ``indices`` of a batch of n.

    Parameters
    ----------
    part
        The batch. What has one row per sample, as :func:`per_sample` says, is indexed; everything
        else is passed on as it is.
    indices
        Positions, shape (k,), int64, on any device.
    n
        The size of the batch.
    """
    return take_rows(part, indices, per_sample(part, n))


def take_rows(part: object, indices: Tensor, rows: Rows) -> Any:
    """Return the samples at ``indices`` of a batch; ``rows`` says which of its parts have rows."""
    return map_rows(lambda leaf: _indexed(leaf, indices), rows, part)


def concatenate(parts: Sequence[object], rows: Rows) -> Any:
    """Return one batch made of the samples of several, in order.

    Parameters
    ----------
    parts
        Batches of one build, at least one. Tensors come together on the device of the last.
    rows
        Which parts of each batch have rows, as :func:`per_sample` says. The parts without rows
        must be equal in all batches.

    Raises
    ------
    ProblemError
        If rows have different shapes, or what the samples of each batch share differs.
    """
    return map_rows(_joined, rows, *parts, shared=_agreed)


def check_alike(part: object, other: object, rows: Rows) -> None:
    """Raise unless the samples of two batches of one build can be put into one.

    Raises
    ------
    ProblemError
        As :func:`concatenate` does.
    """
    map_rows(_check_shapes, rows, part, other, shared=_agreed)


def moved(part: object, device: torch.device) -> Any:
    """Return a batch with every tensor on a device."""
    if isinstance(part, Tensor):
        return part.to(device)
    return map_entries(lambda entry: moved(entry, device), part)


def call_model(model: Callable[..., Any], inputs: object, rows: Rows | None = None) -> Any:
    """Return what a model makes of inputs.

    That is ``model(**inputs)`` for a dict, ``model(*inputs)`` for a tuple or list of parts, and
    ``model(inputs)`` for anything else, a list with one entry per sample included. Which kind of
    list it is ``rows`` tells, as :func:`per_sample` says; by default it is one of parts.
    """
    if rows is True or _has_batch_size(inputs):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def map_entries(function: Callable[[Any], Any], part: Any) -> Any:
    """Return a dict, tuple or list with ``function(entry)`` in place of every entry.

    Anything that is none of these is returned as it is.
    """
    if isinstance(part, Mapping):
        return {key: function(value) for key, value in part.items()}
    if isinstance(part, (tuple, list)):
        return _like(part, [function(value) for value in part])
    return part


def map_rows(
    function: Callable[..., Any],
    rows: Rows,
    *parts: Any,
    shared: Callable[..., Any] = lambda first, *others: first,
) -> Any:
    """Return a batch with ``function`` of everything that has one row per sample.

    Parameters
    ----------
    function
        Called with the leaves that stand at one place of all the batches.
    rows
        Which parts have rows, as :func:`per_sample` says.
    parts
        Batches of one build, at least one.
    shared
        Called with the leaves that have no rows; by default the first of them is kept.
    """
    first = parts[0]
    if isinstance(rows, Mapping):
        columns = {key: [part[key] for part in parts] for key in first}
        return {
            key: map_rows(function, rows[key], *column, shared=shared)
            for key, column in columns.items()
        }
    if isinstance(rows, list):
        entries = zip(rows, *parts, strict=True)
        return _like(
            first, [map_rows(function, row, *column, shared=shared) for row, *column in entries]
        )
    return function(*parts) if rows else shared(*parts)


def tensors_of(part: object) -> Iterator[Tensor]:
    """Yield every tensor anywhere in a batch, or in what a model returned."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from tensors_of(value)
    elif isinstance(part, (tuple, list)):
        for value in part:
            yield from tensors_of(value)


def _is_list_of_samples(part: Sequence[object], n: int) -> bool:
    """Whether a list has one entry per sample, and is not a list of parts."""
    nested = (Tensor, np.ndarray, Mapping, tuple, list)
    if len(part) != n or hasattr(part, "_fields"):
        return False
    if not any(isinstance(v, nested) for v in part):
        return True
    with_rows = [_any_rows(per_sample(v, n)) for v in part]
    return n > 0 and not all(with_rows) and _are_alike(part)


def _are_alike(entries: Sequence[object]) -> bool:
    """Whether entries are tensors of as many dimensions and one type, or dicts of the same keys."""
    kinds = {
        (v.ndim, v.dtype)
        if isinstance(v, (Tensor, np.ndarray))
        else tuple(v)
        if isinstance(v, Mapping)
        else id(v)
        for v in entries
    }
    return len(kinds) == 1


def _any_rows(rows: Rows) -> bool:
    """Whether any part has one row per sample."""
    if isinstance(rows, bool):
        return rows
    return any(map(_any_rows, rows.values() if isinstance(rows, Mapping) else rows))


def _counts(part: object) -> Iterator[int]:
    """Yield the numbers of samples that a part may have, the likeliest first."""
    lists = isinstance(part, (list, tuple)) and len(part) > 1 and _are_alike(part)
    if lists and isinstance(part, (list, tuple)) and isinstance(part[0], Mapping):
        yield len(part)
    if _has_batch_size(part) and part.batch_size:
        yield int(part.batch_size[0])
    for tensor in tensors_of(part):
        if tensor.ndim:
            yield int(tensor.shape[0])
            break
    if lists and isinstance(part, (list, tuple)):
        yield len(part)


def _has_batch_size(part: object) -> TypeGuard[_OwnBatch]:
    """Whether an object is a batch of its own kind that can be indexed, such as a TensorDict."""
    return hasattr(part, "batch_dims") and hasattr(part, "batch_size")


def _like(part: Any, entries: list[Any]) -> Any:
    """Return a tuple, named tuple or list of the type of ``part`` with other entries."""
    return type(part)(*entries) if hasattr(part, "_fields") else type(part)(entries)


def _indexed(leaf: Any, indices: Tensor) -> Any:
    if isinstance(leaf, Tensor):
        return _index_tensor(leaf, indices.to(leaf.device))
    if isinstance(leaf, np.ndarray):
        return leaf[indices.cpu().numpy()]
    if _has_batch_size(leaf):
        device = getattr(leaf, "device", None)
        return leaf[indices if device is None else indices.to(device)]  # type: ignore[index]
    return type(leaf)(leaf[i] for i in indices.tolist())


def _index_tensor(tensor: Tensor, indices: Tensor) -> Tensor:
    """Return rows of a tensor, in its own layout and order of dimensions.

    Raises
    ------
    ProblemError
        If torch has no way to take rows of this layout.
    """
    if tensor.layout is torch.sparse_csr:
        rows: Tensor = tensor.to_sparse(layout=torch.sparse_coo).index_select(0, indices)
        return rows.to_sparse(layout=torch.sparse_csr)
    if tensor.layout is torch.strided and not tensor.is_nested:
        # index_select forgets that the channels come last.
        kept = tensor.ndim > 3 and not tensor.is_contiguous()
        return tensor[indices] if kept else tensor.index_select(0, indices)
    try:
        return tensor.index_select(0, indices)
    except (NotImplementedError, RuntimeError) as error:
        raise ProblemError(
            f"samples cannot be taken from a tensor of layout {tensor.layout}: {error} Pass a "
            "padded tensor, or a list of one tensor per sample."
        ) from error


def _agreed(first: object, *others: object) -> object:
    """Return what the samples of a batch share, which must be equal in all batches."""
    if not all(_equal(first, other) for other in others):
        raise ProblemError(
            "what the samples of a batch share (a scalar, a mask) differs between the batches "
            "that samples are gathered from; give it one row per sample, or gather nothing "
            "(accumulate=False)."
        )
    return first


def _equal(a: object, b: object) -> bool:
    if a is b:
        return True
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b.to(a.device))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(a, b)  # type: ignore[arg-type]
    return type(a) is type(b) and bool(a == b)


def _check_shapes(*leaves: Any) -> None:
    """Raise if the rows of several tensors or arrays differ in shape."""
    if not isinstance(leaves[0], (Tensor, np.ndarray)):
        return
    shapes = {tuple(leaf.shape[1:]) for leaf in leaves}
    if len(shapes) > 1:
        raise ProblemError(
            f"samples of shapes {' and '.join(map(str, sorted(shapes)))} cannot be gathered into "
            "one batch; pad them to one shape, or gather nothing (accumulate=False)."
        )


def _joined(*leaves: Any) -> Any:
    """Return the rows of several tensors, arrays or lists, one after the other."""
    _check_shapes(*leaves)
    first = leaves[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(leaves)
    if isinstance(first, Tensor):
        return torch.cat([leaf.to(leaves[-1].device) for leaf in leaves])
    return type(first)(chain.from_iterable(leaves))
