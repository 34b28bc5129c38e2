"""The logits within what a model returns: finding them, and putting others in their place."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from subsetopt import ProblemError
from subsetopt_torch.model.batches import first_tensor, map_entries

__all__ = ["find_logits", "with_logits"]


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
    rebuilt = _rebuilt(outputs, logits, others)
    if find_logits(rebuilt, others.shape[0]) is not others:
        raise ProblemError(
            f"the gradients of this loss need outputs whose logits can be replaced, and those of "
            f"a {type(outputs).__name__} cannot. Let the model return a tensor, a tuple, a dict "
            "or an object with an attribute 'logits' that can be set."
        )
    return rebuilt


def _rebuilt(part: Any, old: Tensor, new: Tensor) -> Any:
    """Return outputs, or a part of them, with the tensor ``new`` in place of ``old``."""
    if part is old:
        return new
    if getattr(part, "logits", None) is old:
        return _with_attribute(part, new)
    return map_entries(lambda entry: _rebuilt(entry, old, new), part)


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
