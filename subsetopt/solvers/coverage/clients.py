"""Samples to be covered, and how much better candidates would cover them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.coverage import rises
from subsetopt.kernels.coverage.gains import add_losses
from subsetopt.objectives import FacilityLocation

__all__ = ["Clients", "clients_of"]

# Candidates and clients whose similarities are computed together, which takes 16 MiB.
_CANDIDATES = 128
_CLIENTS = 16_384


class Clients(Protocol):
    """Some clients with a similarity each from which, and up to which, a rise counts.

    Similarities are in multiples of the objective's unit.

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
    """
    floor = low[clients]
    ceiling = None if high is None else high[clients]
    if objective.single:
        return _Blocks(points, clients, floor, ceiling)
    return _Plain(objective, points[clients], floor, ceiling)


class _Plain:
    """Clients whose similarities are computed as the objective does, in pieces."""

    def __init__(
        self,
        objective: FacilityLocation,
        points: NDArray[Any],
        low: NDArray[Any],
        high: NDArray[Any] | None,
    ) -> None:
        self.objective, self.size = objective, low.size
        self._points, self._low = points, low
        self._high = np.full_like(low, np.inf) if high is None else high

    def start_from(self, low: NDArray[Any]) -> None:
        self._low = low

    def add_rises(self, chosen: NDArray[Any], totals: NDArray[np.float64]) -> None:
        for start in range(0, chosen.shape[0], _CANDIDATES):
            few = slice(start, start + _CANDIDATES)
            for first in range(0, self.size, _CLIENTS):
                part = slice(first, first + _CLIENTS)
                near = self.objective.between(chosen[few], self._points[part])
                block = np.ascontiguousarray(near, dtype=self._low.dtype)
                add_losses(block, self._low[part], self._high[part], totals[few])

    def fill(self, chosen: NDArray[Any], rows: NDArray[Any], picks: NDArray[np.int64]) -> None:
        rows[picks] = self.objective.between(chosen, self._points)


class _Blocks:
    """Clients in blocks, for similarities that are products in single precision."""

    def __init__(
        self,
        points: NDArray[Any],
        clients: NDArray[np.int64],
        low: NDArray[Any],
        high: NDArray[Any] | None,
    ) -> None:
        self.size = clients.size
        count = -(-clients.size // rises.BLOCK)
        self._blocks = np.empty((count, points.shape[1], rises.BLOCK), dtype=np.float32)
        if count:
            rises.lay_blocks(points, clients, self._blocks)
        self._low, self._high = np.full((2, count, rises.BLOCK), rises.FAR)
        self.start_from(low)
        if high is not None:
            self._high.reshape(-1)[: self.size] = high

    def start_from(self, low: NDArray[Any]) -> None:
        self._low.reshape(-1)[: self.size] = low

    def add_rises(self, chosen: NDArray[Any], totals: NDArray[np.float64]) -> None:
        rises.add_rises(self._blocks, self._low, self._high, chosen, totals)

    def fill(self, chosen: NDArray[Any], rows: NDArray[Any], picks: NDArray[np.int64]) -> None:
        rises.fill_rows(self._blocks, chosen, rows, picks)
