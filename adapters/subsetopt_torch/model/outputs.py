"""The logits within what a model returns: finding them, and putting others in their place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from subsetopt import ProblemError
from subsetopt_torch.model.batches import first_tensor

__all__ = ["find_logits", "with_logits"]


def find_logits(outputs: Any, n: int) -> Tensor | None:
    """Return what can be taken for the logits of a model's outputs: one row per sample.

    That is ``outputs.logits`` or ``outputs["logits"]`` where it is a tensor, and otherwise the
    first tensor in the outputs; None when it does not have n rows.
    """
    named = getattr(outputs, "logits", None)
    if named is None and isinstance(outputs, Mapping):
        named = outputs.get("logits")
    tensor = named if isinstance(named, Tensor) else first_tensor(outputs)
    return tensor if tensor is not None and tensor.ndim and tensor.shape[0] == n else None


def with_logits(outputs: Any, logits: Tensor, others: Tensor) -> Any:
    """Return the outputs with other logits in place of those that ``find_logits`` found.

    The outputs themselves are left as they are.

    Raises
    ------
    ProblemError
        If the outputs do not let their logits be replaced.
    """
    rebuilt = _rebuilt(outputs, logits, others)
    if find_logits(rebuilt, others.shape[0]) is not others:
        raise ProblemError(
            f"the gradients of this loss need outputs whose logits can be replaced, and those of "
            f"a {type(outputs).__name__} cannot. Let the model return a tensor, a tuple, a dict "
            "or an object with an attribute 'logits' that can be set."
        )
    return rebuilt


def _rebuilt(part: Any, old: Tensor, new: Tensor) -> Any:
    if part is old:
        return new
    if getattr(part, "logits", None) is old:
        return _with_attribute(part, new)
    if isinstance(part, Mapping):
        return {key: _rebuilt(value, old, new) for key, value in part.items()}
    if isinstance(part, (tuple, list)):
        rebuilt = [_rebuilt(value, old, new) for value in part]
        return type(part)(*rebuilt) if hasattr(part, "_fields") else type(part)(rebuilt)
    return part


def _with_attribute(part: Any, new: Tensor) -> Any:
    """Return a copy of an object with other logits, or the object itself if it allows none."""
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
