"""Swap search on many small mean-matching problems at once, in parallel over the problems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.matching.many import ROW, search_many
from subsetopt.objectives.mean_matching import MeanMatchingRows
from subsetopt.solvers.base import RawTable
from subsetopt.solvers.matching.pool import ascending
from subsetopt.solvers.swap import (
    CHUNK,
    GOAL_SHARE,
    RESTARTS,
    UNSORTED_ABOVE,
    Start,
    default_work,
    unsorted_work,
)

__all__ = ["MatchingTable"]


# Rows of one length below this are sorted together. Longer ones are sorted one by one (see
# `ascending` of the pool), so that equal values come in the order that they have in a plain solve.
_SORTED_TOGETHER = 1024


@dataclass(frozen=True, eq=False, slots=True)
class MatchingTable:
    """Mean-matching problems without constraints, a row for each, for one search by ``swap``.

    Attributes
    ----------
    objectives
        The objective of each row.
    sizes
        How many losses of each row to choose, at least 1, shape (rows,).
    start
        How ``swap`` starts, ``"stratified"`` or ``"random"``.
    """

    objectives: MeanMatchingRows
    sizes: NDArray[np.int64]
    start: Start

    def search(
        self,
        entropies: NDArray[np.uint64],
        work: NDArray[np.int64] | None = None,
        *,
        parallel: bool = True,
    ) -> RawTable:
        """Search every row as ``swap`` would on its own, until its goal or its work limit.

        Parameters
        ----------
        entropies
            The seed of each row, shape (rows,).
        work
            The work limit of each row, shape (rows,); None is the default of ``swap``.
        parallel
            Whether to use all cores. A forked child never does.
        """
        lengths, starts = self.objectives.lengths, self.objectives.starts
        places = np.concatenate([[0], np.cumsum(self.sizes)])
        rows = np.zeros(self.sizes.size, dtype=ROW)
        rows["first"], rows["end"] = starts[:-1], starts[1:]
        rows["size"], rows["place"] = self.sizes, places[:-1]
        rows["target"] = self.objectives.target_sums(self.sizes)
        rows["tolerance"] = self.sizes * self.objectives.tolerances
        rows["entropy"], rows["restart"] = entropies, RESTARTS[self.start]
        # `swap` starts these before sorting, and their search ends where a plain one would sort.
        unsorted = (lengths > UNSORTED_ABOVE) & (self.start == "random")
        limits = default_work(lengths) if work is None else work
        limits = np.where(unsorted, np.minimum(limits, unsorted_work(lengths, self.sizes)), limits)
        rows["limit"], rows["unsorted"] = limits, unsorted
        order = self._order(unsorted)
        best = np.empty(int(places[-1]), dtype=np.int64)
        search_many(self.objectives.values, order, rows, best, CHUNK, GOAL_SHARE, parallel=parallel)
        chosen = order[best + np.repeat(starts[:-1], self.sizes)]
        indices = _sorted_within(chosen, self.sizes)
        bounds = rows["bound"] / self.sizes
        return RawTable(indices, places, rows["reached"], bounds, rows["work"], "swap")

    def _order(self, unsorted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the positions of each row's losses, ascending by loss where it is sorted."""
        lengths = self.objectives.lengths
        n = int(lengths[0])
        if n < _SORTED_TOGETHER and (lengths == n).all():
            order: NDArray[np.int64] = np.argsort(self.objectives.values.reshape(-1, n), axis=1)
            return order.ravel()
        return np.concatenate(
            [
                np.arange(lengths[row]) if as_given else ascending(self.objectives[row])[1]
                for row, as_given in enumerate(unsorted.tolist())
            ]
        )


def _sorted_within(chosen: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the chosen indices in ascending order within each row."""
    if sizes.size and (sizes == sizes[0]).all():
        return np.sort(chosen.reshape(sizes.size, -1), axis=1).ravel()
    rows = np.repeat(np.arange(sizes.size), sizes)
    return chosen[np.lexsort((chosen, rows))]
