"""Batches that were handed out and not acknowledged yet, found by their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt import ProblemError

__all__ = ["IssuedBatch", "IssuedBatches"]


@dataclass(frozen=True, slots=True)
class IssuedBatch:
    """One batch of a sampler.

    Attributes
    ----------
    number
        The number of the selection, counted from 0 over all epochs.
    ids
        Sample ids, shape (k,), int64, ascending.
    weights
        The training weight of each sample, shape (k,), float64.
    """

    number: int
    ids: NDArray[np.int64]
    weights: NDArray[np.float64]

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

    def find(self, ids: NDArray[np.int64]) -> IssuedBatch:
        """Return the oldest batch that has these ids, in whatever order.

        Raises
        ------
        ProblemError
            If there is none.
        """
        batches = self._waiting.get(np.sort(ids).tobytes())
        if batches is None:
            shown = ", ".join(map(str, ids[:5].tolist())) + (", ..." if ids.size > 5 else "")
            raise ProblemError(
                f"no batch of this sampler that was not observed yet has these {ids.size} ids "
                f"({shown}). Pass the ids of a whole batch, as the data set returned them, and "
                "observe each batch once, before the next epoch begins."
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

    def load(self, state: Sequence[tuple[int, Sequence[int], Sequence[float]]]) -> None:
        """Replace the batches that wait by those of a saved state."""
        self.clear()
        for number, ids, weights in state:
            self.add(
                IssuedBatch(
                    int(number),
                    np.array(ids, dtype=np.int64),
                    np.array(weights, dtype=np.float64),
                )
            )
