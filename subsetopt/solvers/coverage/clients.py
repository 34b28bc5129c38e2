"""Samples to be covered, and how much better candidates would cover them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.kernels.coverage import rises
from subsetopt.kernels.coverage.gains import add_losses
from subsetopt.kernels.threads import cores
from subsetopt.objectives import FacilityLocation

__all__ = ["Clients", "clients_of", "rows_of"]

# Candidates and clients whose similarities are computed together, which takes 16 MiB.
_CANDIDATES = 128
_CLIENTS = 16_384
# Multiplications between two looks at the clock under a time limit, which take some milliseconds:
# those of products in single precision on each core, and others.
_PRODUCTS, _OTHERS = 1 << 25, 1 << 23
# What is done to a product takes as long as so many multiplications.
_FURTHER = 32


class Clients(Protocol):
    """Some clients with a similarity each from which, and up to which, a rise counts.

    Similarities are in multiples of the objective's unit. Work that a time limit ends raises
    OutOfTimeError.

    Attributes
    ----------
    size
        Number of clients, m.
    """

    size: int

    def start_from(self, low: NDArray[Any]) -> None:
        """Set the similarities from which a rise counts, shape (m,)."""

    def add_rises(self, chosen: NDArray[Any], totals: NDArray[np.float64]) -> None:
        """Add to each total the sum over clients of ``max(min(sim, high) - low, 0)``.

        ``chosen`` are the candidates' points, shape (c, d), and ``totals`` has shape (c,).
        """

    def fill(self, chosen: NDArray[Any], rows: NDArray[Any], picks: NDArray[np.int64]) -> None:
        """Write the similarities of all clients to candidate ``picks[c]`` to ``rows[picks[c]]``."""


def clients_of(
    objective: FacilityLocation,
    points: NDArray[Any],
    clients: NDArray[np.int64],
    low: NDArray[Any],
    high: NDArray[Any] | None = None,
    *,
    deadline: Deadline,
) -> Clients:
    """Return the clients with some indices.

    Parameters
    ----------
    objective
        Tells how similar points are.
    points
        Points of all samples, shape (n, d).
    clients
        Indices of samples, shape (m,).
    low, high
        The similarities of all samples from which, and up to which, a rise counts, shape (n,);
        without ``high`` it always does.
    deadline
        Looked at between pieces of work.
    """
    floor = low[clients]
    ceiling = None if high is None else high[clients]
    if objective.single:
        return _Blocks(points, clients, floor, ceiling, deadline)
    return _Plain(objective, rows_of(points, clients, deadline), floor, ceiling, deadline)


class _Plain:
    """Clients whose similarities are computed as the objective does, in pieces."""

    def __init__(
        self,
        objective: FacilityLocation,
        points: NDArray[Any],
        low: NDArray[Any],
        high: NDArray[Any] | None,
        deadline: Deadline,
    ) -> None:
        self.objective, self.size, self.deadline = objective, low.size, deadline
        self._points, self._low = points, low
        self._high = np.full_like(low, np.inf) if high is None else high

    def start_from(self, low: NDArray[Any]) -> None:
        self._low = low

    def _parts(self, candidates: int) -> Iterator[slice]:
        """Yield parts of the clients whose similarities to candidates are computed together."""
        step = _CLIENTS
        if self.deadline.limited:
            work = candidates * (self._points.shape[1] + _FURTHER)
            step = max(1, min(step, _OTHERS // max(work, 1)))
        for first in range(0, self.size, step):
            self.deadline.check()
            yield slice(first, first + step)

    def add_rises(self, chosen: NDArray[Any], totals: NDArray[np.float64]) -> None:
        for start in range(0, chosen.shape[0], _CANDIDATES):
            few = slice(start, start + _CANDIDATES)
            for part in self._parts(min(chosen.shape[0] - start, _CANDIDATES)):
                near = self.objective.between(chosen[few], self._points[part])
                block = np.ascontiguousarray(near, dtype=self._low.dtype)
                add_losses(block, self._low[part], self._high[part], totals[few])

    def fill(self, chosen: NDArray[Any], rows: NDArray[Any], picks: NDArray[np.int64]) -> None:
        if not self.deadline.limited:
            rows[picks] = self.objective.between(chosen, self._points)
            return
        for part in self._parts(chosen.shape[0]):
            rows[picks, part] = self.objective.between(chosen, self._points[part])


class _Blocks:
    """Clients in blocks, for similarities that are products in single precision."""

    def __init__(
        self,
        points: NDArray[Any],
        clients: NDArray[np.int64],
        low: NDArray[Any],
        high: NDArray[Any] | None,
        deadline: Deadline,
    ) -> None:
        self.size, self.deadline = clients.size, deadline
        count, d = -(-clients.size // rises.BLOCK), points.shape[1]
        self._blocks = np.empty((count, d, rises.BLOCK), dtype=np.float32)
        for part in self._parts(1):
            few = clients[part.start * rises.BLOCK : part.stop * rises.BLOCK]
            rises.lay_blocks(points, few, self._blocks[part])
        self._low, self._high = np.full((2, count, rises.BLOCK), rises.FAR)
        self.start_from(low)
        if high is not None:
            self._high.reshape(-1)[: self.size] = high

    def start_from(self, low: NDArray[Any]) -> None:
        self._low.reshape(-1)[: self.size] = low

    def _parts(self, candidates: int) -> Iterator[slice]:
        """Yield parts of the blocks that are gone through together."""
        count = self._blocks.shape[0]
        step = max(count, 1)
        if self.deadline.limited:
            work = max(candidates, 4) * self._blocks.shape[1] * rises.BLOCK
            step = max(1, _PRODUCTS * cores() // max(work, 1))
        for first in range(0, count, step):
            self.deadline.check()
            yield slice(first, min(first + step, count))

    def add_rises(self, chosen: NDArray[Any], totals: NDArray[np.float64]) -> None:
        for part in self._parts(chosen.shape[0]):
            rises.add_rises(self._blocks[part], self._low[part], self._high[part], chosen, totals)

    def fill(self, chosen: NDArray[Any], rows: NDArray[Any], picks: NDArray[np.int64]) -> None:
        for part in self._parts(chosen.shape[0]):
            rises.fill_rows(self._blocks[part], chosen, rows, picks, part.start * rises.BLOCK)


def rows_of(points: NDArray[Any], indices: NDArray[np.int64], deadline: Deadline) -> NDArray[Any]:
    """Return some rows of a matrix; raises OutOfTimeError where a time limit ends it."""
    if not deadline.limited:
        return np.asarray(points[indices])
    rows = np.empty((indices.size, points.shape[1]), dtype=points.dtype)
    step = max(1, _OTHERS // max(points.shape[1], 1))
    for first in range(0, indices.size, step):
        deadline.check()
        rows[first : first + step] = points[indices[first : first + step]]
    return rows
