"""Processes that share one plan: which one this is, and what they tell each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

import subsetopt as so
from subsetopt.inputs import checked_integer
from subsetopt_torch.arguments import process_rank

__all__ = ["Ranks", "from_first", "gathered"]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of several processes this is, as far as the user says so."""

    rank: int | None  #: the number of this process; None asks ``torch.distributed``
    world_size: int | None  #: the number of all; None asks ``torch.distributed``

    @classmethod
    def of(cls, rank: int | None, world_size: int | None, *, shared: bool) -> Ranks:
        """Return the two numbers, checked.

        Parameters
        ----------
        rank, world_size
            As the user gave them.
        shared
            Whether processes share epochs, so that the number of one alone does not say enough.

        Raises
        ------
        OptionError
            If they contradict each other, or one is missing.
        """
        if world_size is not None:
            checked_integer("world_size", world_size, 1)
            if not 0 <= (rank or 0) < world_size:
                raise so.OptionError(
                    f"rank must be from 0 to world_size - 1, got rank={rank}, "
                    f"world_size={world_size}."
                )
        elif shared and rank not in (None, 0) and not _is_initialized():
            raise so.OptionError(
                f"process {rank} shares its epochs with others: pass world_size, their number."
            )
        return cls(rank, world_size)

    def own(self) -> int:
        """Return the number of this process; 0 where nothing says so."""
        return process_rank(self.rank)

    def place(self) -> tuple[int, int]:
        """Return the number of this process, and how many share its epochs."""
        count = self.world_size
        if count is None:
            count = distributed.get_world_size() if _is_initialized() else 1
        return (self.own() if count > 1 else 0), count


def gathered(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the rows of every process, in the order of their numbers.

    Without ``torch.distributed`` these are the rows of this one.

    Parameters
    ----------
    rows
        A structured array of one dtype on all processes, shape (m,), m of each one's own.
    """
    if not _is_initialized() or distributed.get_world_size() == 1:
        return [rows]
    world, device = distributed.get_world_size(), _device()
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    distributed.all_gather(counts, torch.tensor([rows.size], device=device))
    sizes = [int(count) * rows.dtype.itemsize for count in counts]
    own = torch.zeros(max(sizes), dtype=torch.uint8)
    own[: rows.nbytes] = _bytes(rows)
    parts = [torch.empty(max(sizes), dtype=torch.uint8, device=device) for _ in range(world)]
    if max(sizes):
        distributed.all_gather(parts, own.to(device))
    return [
        part[:size].cpu().numpy().view(rows.dtype) for part, size in zip(parts, sizes, strict=True)
    ]


def from_first(make: Callable[[], NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array that the first process makes and the others are sent.

    Without ``torch.distributed`` every process makes its own.

    Parameters
    ----------
    make
        Makes the array, of one dimension and the given dtype.
    dtype
        The dtype of the array.

    Raises
    ------
    SolverError
        On the other processes, if making it failed on the first, which raises its own error.
    """
    if not _is_initialized() or distributed.get_world_size() == 1:
        return make()
    device, first = _device(), distributed.get_rank() == 0
    count = torch.full((1,), -1, dtype=torch.int64, device=device)
    try:
        array = make() if first else np.empty(0, dtype=dtype)
        count[0] = array.size
    finally:
        # The others wait for this number, also where nothing was made.
        distributed.broadcast(count, 0)
    if int(count) < 0:
        raise so.SolverError("the first process failed to choose the samples of this epoch.")
    size = int(count) * dtype.itemsize
    sent = (
        _bytes(array).to(device) if first else torch.empty(size, dtype=torch.uint8, device=device)
    )
    if size:
        distributed.broadcast(sent, 0)
    received: NDArray[Any] = sent.cpu().numpy().view(dtype)
    return received


def _bytes(rows: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rows).view(np.uint8).reshape(-1).copy())


def _device() -> torch.device:
    """Return where tensors to be sent have to lie."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _is_initialized() -> bool:
    return distributed.is_available() and distributed.is_initialized()
