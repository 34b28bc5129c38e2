"""Tensors in saved states."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from subsetopt.policies.parts.saved_state import SavedState

__all__ = ["checked_tensor"]


def checked_tensor(
    saved: SavedState, name: str, dtype: torch.dtype, size: int | None = None
) -> NDArray[Any]:
    """Return a copy of an entry that is a vector of a given dtype, and of a given size if any.

    Raises
    ------
    OptionError
        If it is none.
    """
    value = saved[name]
    fits = isinstance(value, Tensor) and value.dtype is dtype and value.ndim == 1
    if not fits or size not in (None, value.shape[0]):
        of = "" if size is None else f" of {size} entries"
        raise saved.error(name, f"a tensor of one dimension{of} and dtype {dtype}", value)
    copied: NDArray[Any] = value.detach().cpu().clone().numpy()
    return copied
