"""A data set whose samples come with their ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from subsetopt_torch.loading.map_style import MapStyle

__all__ = ["WithIds"]


class WithIds(Dataset[Any]):
    """Return the sample's position in the data set with every sample of it.

    Policies that remember samples (``online-batch``, ``prioritized``, ``rho-loss``) need to be told
    which samples a batch holds, and most data sets do not say.

    Parameters
    ----------
    data
        A map-style data set. The id becomes the last entry of a sample that is a tuple and the
        entry ``"ids"`` of one that is a dict; any other sample becomes the pair (sample, id).

    Examples
    --------
    >>> import torch
    >>> data = torch.utils.data.TensorDataset(torch.zeros(5, 2), torch.ones(5))
    >>> x, y, ids = next(iter(torch.utils.data.DataLoader(WithIds(data), batch_size=3)))
    >>> ids
    tensor([0, 1, 2])
    """

    def __init__(self, data: MapStyle) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        sample = self.data[index]
        if isinstance(sample, Mapping):
            return {**sample, "ids": index}
        return (*sample, index) if isinstance(sample, (tuple, list)) else (sample, index)
