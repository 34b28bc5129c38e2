"""The logits within what a model returns: finding them, and putting others in their place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from subsetopt import ProblemError
from subsetopt_torch.model.batches import first_tensor, map_entries, tensors_of

__all__ = ["find_logits", "real_outputs", "with_logits", "with_outputs"]


def find_logits(outputs: object, n: int) -> Tensor | None:
    """Return the tensor of a model's outputs that counts as the logits: one row per sample.

    It is ``outputs.logits`` or ``outputs["logits"]`` where it is a tensor, and otherwise the
    first tensor in the outputs; None when it does not have n rows.
    """
    named = getattr(outputs, "logits", None)
    if named is None and isinstance(outputs, Mapping):
        named = outputs.get("logits")
    tensor = named if isinstance(named, Tensor) else first_tensor(outputs)
    return tensor if tensor is not None and tensor.ndim and tensor.shape[0] == n else None


def with_logits(outputs: object, logits: Tensor, others: Tensor) -> Any:
    """Return a copy of the outputs with other logits where ``find_logits`` finds them.

    Parameters
    ----------
    outputs
        What the model returned; it is not changed.
    logits
        The logits that ``find_logits`` found in it.
    others
        The tensor that takes their place, with the same number of rows.

    Raises
    ------
    ProblemError
        If the outputs do not let their logits be replaced.
    """
    rebuilt = with_outputs(outputs, [logits], [others])
    if find_logits(rebuilt, others.shape[0]) is not others:
        raise ProblemError(_FIXED.format(type(outputs).__name__))
    return rebuilt


def real_outputs(outputs: object, n: int) -> list[Tensor]:
    """Return the tensors of real numbers with n rows in what a model returned, the logits first.

    Raises
    ------
    ProblemError
        If there is none.
    """
    logits = find_logits(outputs, n)
    tensors = ([] if logits is None else [logits]) + list(tensors_of(outputs))
    distinct = {id(t): t for t in tensors if t.ndim and t.shape[0] == n and t.is_floating_point()}
    if not distinct and logits is not None:
        raise ProblemError(f"logits must be real numbers to have gradients, got {logits.dtype}.")
    if not distinct:
        raise ProblemError(
            f"gradients with respect to the logits need outputs with a tensor of {n} rows: "
            f"outputs.logits, outputs['logits'] or any tensor in them; got a "
            f"{type(outputs).__name__} without."
        )
    return list(distinct.values())


def with_outputs(outputs: object, tensors: Sequence[Tensor], others: Sequence[Tensor]) -> Any:
    """Return a copy of the outputs with other tensors in place of some.

    An object that is no container can have its logits replaced; other tensors in it stay.

    Raises
    ------
    ProblemError
        If the first tensor, which counts as the logits, cannot be replaced.
    """
    rebuilt = _rebuilt(outputs, {id(old): new for old, new in zip(tensors, others, strict=True)})
    first = others[0]
    found = (rebuilt, getattr(rebuilt, "logits", None), *tensors_of(rebuilt))
    if not any(part is first for part in found):
        raise ProblemError(_FIXED.format(type(outputs).__name__))
    return rebuilt


def _rebuilt(part: Any, new: Mapping[int, Tensor]) -> Any:
    """Return outputs, or a part of them, with ``new[id(tensor)]`` in place of a tensor."""
    if id(part) in new:
        return new[id(part)]
    logits = getattr(part, "logits", None)
    if id(logits) in new:
        part = _with_attribute(part, new[id(logits)])
    if isinstance(part, Mapping) and type(part) is not dict:
        return _with_items(part, new)
    return map_entries(lambda entry: _rebuilt(entry, new), part)


def _with_items(part: Mapping[Any, Any], new: Mapping[int, Tensor]) -> Any:
    """Return a copy of a mapping of its own type where that can be made, or else a dict."""
    items = {key: _rebuilt(value, new) for key, value in part.items()}
    try:
        rebuilt: Any = copy.copy(part)
        for key, value in items.items():
            rebuilt[key] = value
    except (AttributeError, TypeError):
        return items
    return rebuilt


def _with_attribute(part: Any, new: Tensor) -> Any:
    """Return a copy of an object with other logits, or the object itself if it cannot be made."""
    try:
        if hasattr(part, "_replace"):
            return part._replace(logits=new)
        rebuilt = copy.copy(part)
        try:
            rebuilt.logits = new
        except dataclasses.FrozenInstanceError:
            rebuilt = dataclasses.replace(part, logits=new)
    except (AttributeError, TypeError):
        return part
    return rebuilt


_FIXED = (
    "the gradients of this loss need outputs whose logits can be replaced, and those of a {} "
    "cannot. Let the model return a tensor, a tuple, a dict or an object with an attribute "
    "'logits' that can be set."
)
