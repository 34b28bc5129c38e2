"""Batches of a data set by row numbers: tensors in memory, or any map-style data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from subsetopt import ProblemError
from subsetopt_torch.loading.map_style import MapStyle, is_map_style
from subsetopt_torch.model.batches import batch_size, moved, take

__all__ = ["Pairs", "Samples"]

# A pair (x, y) of what :mod:`subsetopt_torch.model.batches` takes, or a data set of such pairs.
Pairs: TypeAlias = tuple[object, object] | MapStyle


class Samples:
    """Pairs (inputs, targets) of a data set.

    Parameters
    ----------
    data
        A tuple (x, y) of tensors, or of tuples and dicts of them, with the samples along
        dimension 0; or a map-style data set whose items are pairs (input, target).
    device
        The device of the batches that are returned.
    workers
        Processes that load the items of a data set; 0 loads in this one.

    Raises
    ------
    ProblemError
        If ``data`` is neither, there is no sample, or x and y differ in length.
    """

    def __init__(self, data: Pairs, device: torch.device, workers: int = 0) -> None:
        self.data: Any = data
        self.device = device
        self.workers = workers
        self._in_memory = isinstance(data, tuple)
        self._n = _pair_length(data) if isinstance(data, tuple) else _length(data)
        if self._n == 0:
            raise ProblemError("the data set holds no sample.")

    def __len__(self) -> int:
        return self._n

    def batches(self, rows: Iterable[Tensor], seed: int = 0) -> Iterator[tuple[Any, Any]]:
        """Return the batches of the given row numbers, in that order, on the device.

        Parameters
        ----------
        rows
            The row numbers of each batch, shape (batch size,), int64.
        seed
            The seed of the random streams of the loading processes.
        """
        if self._in_memory:
            x, y = self.data
            for indices in rows:
                inputs, targets = take(x, indices, self._n), take(y, indices, self._n)
                yield moved(inputs, self.device), moved(targets, self.device)
            return
        loader: DataLoader[Any] = DataLoader(
            self.data,
            batch_sampler=[indices.tolist() for indices in rows],
            num_workers=self.workers,
            generator=torch.Generator().manual_seed(seed),
        )
        for batch in loader:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise ProblemError(
                    "the items of the data set must be pairs (input, target), got batches of "
                    f"{type(batch).__name__}; wrap the data set so that it returns pairs."
                )
            yield moved(batch[0], self.device), moved(batch[1], self.device)


def _pair_length(data: tuple[object, ...]) -> int:
    if len(data) != 2:
        raise ProblemError(f"data must be a pair (x, y), got a tuple of {len(data)}.")
    n, targets = batch_size(data[0]), batch_size(data[1])
    if n != targets:
        raise ProblemError(f"x holds {n} samples and y {targets}; pass one target per sample.")
    return n


def _length(data: object) -> int:
    if not is_map_style(data):
        raise ProblemError(
            "data must be a pair (x, y) of tensors or a map-style data set (with __len__ and "
            f"__getitem__), got {type(data).__name__}: samples are named by their row numbers."
        )
    return len(data)
