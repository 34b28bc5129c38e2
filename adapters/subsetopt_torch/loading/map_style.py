"""Map-style data sets: samples by their row numbers."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, TypeGuard

from torch.utils.data import Dataset

__all__ = ["MapStyle", "SizedDataset", "is_map_style"]


class SizedDataset(Protocol):
    """Samples by their row numbers, and how many there are."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


# torch declares no length for its own class of data sets; those that have none are refused.
MapStyle: TypeAlias = SizedDataset | Dataset[Any]


def is_map_style(data: object) -> TypeGuard[SizedDataset]:
    """Return whether an object has a length and gives its samples by number."""
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")
