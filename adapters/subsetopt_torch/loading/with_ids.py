"""A data set whose samples come with their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from subsetopt_torch.loading.map_style import MapStyle

__all__ = ["WithIds", "returned_ids"]


class WithIds(Dataset[Any]):
    """Return the sample's position in the data set with every sample of it.

    Policies that remember samples (``online-batch``, ``prioritized``, ``rho-loss``) need to be told
    which samples a batch holds, and most data sets do not say.

    Parameters
    ----------
    data
        A map-style data set. The id becomes the last entry of a sample that is a tuple and the
        entry ``"ids"`` of one that is a dict; any other sample becomes the pair (sample, id). Its
        attributes are those of this data set, too.

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
        return _with_id(self.data[index], index)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return several samples, in one fetch where the data set has a way to do so."""
        fetch = getattr(self.data, "__getitems__", None)
        samples = [self.data[i] for i in indices] if fetch is None else fetch(indices)
        return [_with_id(sample, i) for sample, i in zip(samples, indices, strict=True)]

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the data set, such as its targets or classes."""
        if name == "data" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.data, name)


def returned_ids(data: object) -> NDArray[np.int64] | None:
    """Return the ids that the samples of a data set come with, where these are not their positions.

    So it is in a part of a data set with ids: ``random_split(WithIds(data), ...)``.

    Returns
    -------
    NDArray[np.int64] | None
        Shape (n,): the id of each sample. None where it is the position, or is not known.
    """
    if not isinstance(data, Subset):
        return None
    indices = np.asarray(data.indices, dtype=np.int64)
    inner = returned_ids(data.dataset)
    if inner is not None:
        return inner[indices]
    return indices if isinstance(data.dataset, WithIds) else None


def _with_id(sample: Any, index: int) -> Any:
    if isinstance(sample, Mapping):
        return {**sample, "ids": index}
    return (*sample, index) if isinstance(sample, (tuple, list)) else (sample, index)
