"""Plans: the samples of every batch of an epoch, chosen when it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt_torch.loading.saved_tensors import checked_tensor

__all__ = ["Plan"]

_ENTRIES = ("ids", "weights", "ends", "place")


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The batches of one process in one epoch, or the windows that they are chosen from."""

    ids: NDArray[np.int64]  #: the samples of all batches, one batch after the other
    weights: NDArray[np.float64] | None  #: their training weights; None for windows
    ends: NDArray[np.int64]  #: where each batch ends in ``ids``, ascending
    place: tuple[int, int]  #: the number of the process, and how many share the epoch

    def __len__(self) -> int:
        return self.ends.size

    def part(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        """Return the ids and the weights of a batch."""
        start = int(self.ends[number - 1]) if number else 0
        rows = slice(start, int(self.ends[number]))
        return self.ids[rows], None if self.weights is None else self.weights[rows]

    @classmethod
    def of_pass(cls, order: NDArray[np.int64], size: int, place: tuple[int, int]) -> Plan:
        """Return a pass over samples in a given order, every batch with equal weights."""
        plan = cls.of_windows(order, size, place)
        sizes = np.diff(plan.ends, prepend=0)
        return cls(plan.ids, np.repeat(1.0 / sizes, sizes), plan.ends, place)

    @classmethod
    def of_windows(cls, order: NDArray[np.int64], size: int, place: tuple[int, int]) -> Plan:
        """Return a pass over samples in a given order, cut into windows to choose from."""
        rows, ends, _ = dealt(order.size, size, place)
        return cls(order[rows], None, ends, place)

    @classmethod
    def of_subset(
        cls,
        ids: NDArray[np.int64],
        weights: NDArray[np.float64],
        size: int,
        place: tuple[int, int],
        rng: np.random.Generator,
    ) -> Plan:
        """Return a weighted subset of the data in random order.

        Parameters
        ----------
        ids, weights
            The subset, shape (k,). ``(weights * losses).sum()`` estimates the mean loss; the mean
            of this over all batches of all processes, with the weights of the plan, is the same.
        size
            The largest size of a batch.
        place
            The number of this process, and how many there are.
        rng
            The source of the order, in one state on all processes.
        """
        order = rng.permutation(ids.size)
        rows, ends, batches = dealt(ids.size, size, place)
        own = order[rows]
        return cls(ids[own], weights[own] * batches, ends, place)

    def state(self) -> dict[str, Any]:
        """Return the plan as tensors, which share its memory and must not be written to."""
        weights = None if self.weights is None else torch.from_numpy(self.weights)
        ids, ends = torch.from_numpy(self.ids), torch.from_numpy(self.ends)
        return {"ids": ids, "weights": weights, "ends": ends, "place": self.place}

    @classmethod
    def checked(cls, state: object, n: int, size: int, *, weighted: bool) -> Plan:
        """Return the plan of a state.

        Parameters
        ----------
        state
            What :meth:`state` returned.
        n, size
            The number of samples, and the largest size of a batch or a window.
        weighted
            Whether the plan has weights, so that its parts are batches.

        Raises
        ------
        OptionError
            If it is none.
        """
        saved = SavedState("the plan of a sampler", state, _ENTRIES)
        rank, ranks = saved.integers("place", 2)
        if rank >= ranks:
            raise saved.error("place", "the number of a process and how many there are", rank)
        ids = checked_tensor(saved, "ids", torch.int64)
        ends = checked_tensor(saved, "ends", torch.int64)
        if ids.size and not (ids.min() >= 0 and ids.max() < n):
            raise saved.error("every entry of ids", f"from 0 to {n - 1}", ids)
        sizes = np.diff(ends, prepend=0)
        if (int(ends[-1]) if ends.size else 0) != ids.size or not (
            (sizes > 0) & (sizes <= size)
        ).all():
            raise saved.error("ends", f"where batches of 1 to {size} samples end", ends)
        weights = None
        if weighted:
            weights = checked_tensor(saved, "weights", torch.float64, ids.size)
            if not np.isfinite(weights).all():
                raise saved.error("every entry of weights", "a finite number", weights)
        elif saved["weights"] is not None:
            raise saved.error("weights", "None, since batches are chosen from windows", weights)
        return cls(ids, weights, ends, (rank, ranks))


def dealt(
    n: int, size: int, place: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Deal n samples out to processes, batch after batch.

    Every process gets as many batches as any other, since they wait for each other. All batches are
    full but those of the last round, which share what is left (or of the last two rounds, if less
    than one sample for every process would be left for the last).

    Returns
    -------
    tuple
        The numbers of the samples of this process, where its batches end among them, and the number
        of batches of all processes.

    Raises
    ------
    ProblemError
        If there are fewer samples than processes.
    """
    rank, ranks = place
    if 0 < n < ranks:
        raise so.ProblemError(
            f"{n} samples cannot be shared by {ranks} processes: choose more, or use fewer "
            "processes."
        )
    rounds = -(-n // (size * ranks))
    sizes = np.full((rounds, ranks), size, dtype=np.int64)
    if rounds:
        last = n - (rounds - 1) * size * ranks
        shared = 1 if last >= ranks else 2
        rest, pieces = last + (shared - 1) * size * ranks, shared * ranks
        even = rest // pieces + (np.arange(pieces) < rest % pieces)
        sizes[-shared:] = even.reshape(shared, ranks)
    own = sizes[:, rank]
    starts = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)[:, rank]
    ends = np.cumsum(own)
    rows = np.repeat(starts - (ends - own), own) + np.arange(int(own.sum()))
    return rows, ends, rounds * ranks
