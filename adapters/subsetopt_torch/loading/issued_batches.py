"""Batches that were handed out and not acknowledged yet, found by their ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt import ProblemError
from subsetopt.policies import to_host
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt_torch.arguments import Ids, as_ids

__all__ = ["IssuedBatch", "IssuedBatches", "checked_waiting", "shown_ids"]


@dataclass(frozen=True, slots=True)
class IssuedBatch:
    """One batch of a sampler."""

    number: int  #: the number of the selection, counted from 0 over all epochs
    ids: NDArray[np.int64]  #: (k,) the sample ids, ascending
    weights: NDArray[np.float64]  #: (k,) the training weight of each sample

    def weights_of(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the weights of the batch in the order in which ``ids`` has its samples."""
        weights = np.empty(ids.size)
        weights[np.argsort(ids, kind="stable")] = self.weights
        return weights


class IssuedBatches:
    """The batches that wait for an acknowledgment, in any order of arrival.

    Two batches with the same ids are told apart by their age: the older one is meant.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[bytes, list[IssuedBatch]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, batch: IssuedBatch) -> None:
        """Note that a batch is handed out."""
        self._waiting.setdefault(batch.ids.tobytes(), []).append(batch)

    def find(self, positions: NDArray[np.int64], ids: Ids) -> IssuedBatch:
        """Return the oldest batch that has these samples, in whatever order.

        Parameters
        ----------
        positions
            The positions of the samples in the data set, shape (k,).
        ids
            Their ids, as the caller has them.

        Raises
        ------
        ProblemError
            If there is none.
        """
        batches = self._waiting.get(np.sort(positions).tobytes())
        if batches is None:
            shown = ", ".join(shown_ids(ids)[:5]) + (", ..." if positions.size > 5 else "")
            raise ProblemError(
                "no batch of this sampler that was not observed yet has these "
                f"{positions.size} ids ({shown}). Pass the ids of a whole batch, as the data set "
                "returned them, and observe each batch once, before the next epoch begins."
            )
        return batches[0]

    def remove(self, batch: IssuedBatch) -> None:
        """Acknowledge the oldest batch with the ids of this one."""
        key = batch.ids.tobytes()
        self._waiting[key].pop(0)
        if not self._waiting[key]:
            del self._waiting[key]

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()

    def in_order(self) -> list[IssuedBatch]:
        """Return the batches that wait, the oldest first."""
        waiting = [batch for batches in self._waiting.values() for batch in batches]
        return sorted(waiting, key=lambda batch: batch.number)

    def state(self) -> list[tuple[int, list[int], list[float]]]:
        """Return the batches that wait as plain values."""
        return [(b.number, b.ids.tolist(), b.weights.tolist()) for b in self.in_order()]

    def load(self, batches: Iterable[IssuedBatch]) -> None:
        """Replace the batches that wait by others."""
        self.clear()
        for batch in batches:
            self.add(batch)


def shown_ids(ids: Ids) -> list[str]:
    """Return ids as messages show them."""
    return [repr(i) for i in to_host(as_ids(ids)).tolist()]


def checked_waiting(saved: SavedState, n: int, size: int, selections: int) -> list[IssuedBatch]:
    """Return the batches of the entry ``waiting`` of a state.

    Parameters
    ----------
    saved
        The state.
    n, size
        The number of samples, and the largest size of a batch.
    selections
        The number of batches that were handed out.

    Raises
    ------
    OptionError
        If a batch is malformed.
    """
    batches = []
    for entry in saved.sequence("waiting"):
        parts = entry if isinstance(entry, (list, tuple)) and len(entry) == 3 else (entry,) * 3
        names = ("number", "ids", "weights")
        row = SavedState("the sampler", dict(zip(names, parts, strict=True)), names)
        number = row.integer("number", 0, selections - 1)
        ids = row.vector("ids", low=0.0, high=n - 1)
        if not 1 <= ids.size <= size or (ids != np.floor(ids)).any() or (np.diff(ids) < 0).any():
            raise row.error("ids", f"1 to {size} ids in ascending order", parts[1])
        batches.append(IssuedBatch(number, ids.astype(np.int64), row.vector("weights", ids.size)))
    return batches
