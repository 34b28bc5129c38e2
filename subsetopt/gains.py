"""Gains of facility location: what a candidate adds to a subset, for many candidates at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.kernels.coverage import add_gains
from subsetopt.objectives import FacilityLocation
from subsetopt.problem import Problem

__all__ = ["Gains"]

# Up to this many samples their similarities are kept, once computed: 256 MiB of float32.
_KEPT = 8192
# Candidates and clients computed together: 16 MiB of float32.
_CANDIDATES = 128
_CLIENTS = 32_768
_GREEDY = 1.0 - 1.0 / math.e


class Gains:
    """Similarities of candidates to all samples, and the best one of every sample so far.

    Attributes
    ----------
    current
        (n,) similarity of every sample to its nearest chosen one, at least 0.
    """

    def __init__(self, objective: FacilityLocation, size: int) -> None:
        self.objective, self.size = objective, size
        self.n = n = objective.n
        dtype = np.float32 if objective.single or objective.similarity is None else np.float64
        self.current = np.zeros(n, dtype=dtype)
        self.points = objective.points
        if self.points is not None and objective.single:
            self.points = self.points.astype(np.float32)
        self.rows: NDArray[Any] | None = None
        self.filled = np.zeros(n, dtype=np.bool_)
        if objective.similarity is not None:
            self.rows = _rows(objective.similarity)
            self.filled[:] = True
        elif n <= _KEPT:
            self.rows = np.empty((n, n), dtype=dtype)

    @classmethod
    def of(cls, problem: Problem) -> Gains:
        """Return the gains of a problem, the included candidates taken."""
        assert isinstance(problem.objective, FacilityLocation)
        gains = cls(problem.objective, problem.k)
        for item in problem.constraints.forced:
            gains.take(int(item))
        return gains

    def gains(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what each candidate adds to the objective."""
        total = np.zeros(candidates.size)
        if self.rows is not None:
            self._fill(candidates)
            add_gains(self.rows, candidates, self.current, total)
            return total
        every = np.arange(candidates.size)
        for start in range(0, self.n, _CLIENTS):
            clients = slice(start, start + _CLIENTS)
            block = self._block(candidates, clients)
            add_gains(block, every, self.current[clients], total)
        return total

    def refresh(
        self, upper: NDArray[np.float64], candidates: NDArray[np.int64], deadline: Deadline
    ) -> bool:
        """Set ``upper`` to the gains of candidates; return whether there was time for all."""
        for start in range(0, candidates.size, _CANDIDATES):
            if deadline.expired():
                return False
            part = candidates[start : start + _CANDIDATES]
            upper[part] = self.gains(part)
        return True

    def unknown(self, free: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return bounds on the gains before any is computed: 0 for what may not be chosen."""
        upper = np.zeros(self.n)
        upper[free] = np.inf
        return upper

    def take(self, item: int) -> None:
        """Put a candidate into the subset."""
        chosen = np.array([item])
        if self.rows is not None:
            self._fill(chosen)
            row = self.rows[item]
        else:
            row = self._block(chosen, slice(0, self.n))[0]
        np.maximum(self.current, row, out=self.current)

    def bound(self, upper: NDArray[np.float64], *, greedy: bool) -> float:
        """Return a bound on the objective of every subset, from bounds on the gains.

        By submodularity the optimum is at most the value reached and the k largest gains from
        there; where the subset is a greedy's, it is also at most its value over 1 - 1/e.

        Parameters
        ----------
        upper
            (n,) a bound on the gain of every candidate; infinite where none is known.
        greedy
            Whether the subset is a greedy's under a size alone.
        """
        objective = self.objective
        value = float(self.current.sum(dtype=np.float64))
        most = np.sort(upper)[::-1][: self.size].sum()
        bound = value + float(most)
        if greedy:
            bound = min(bound, value / _GREEDY)
        slack = (self.size + 2) * self.n * objective.error + 1e-12 * abs(objective.reach)
        return min(bound + slack, objective.reach)

    def _fill(self, candidates: NDArray[np.int64]) -> None:
        """Compute the kept similarities of candidates that are not there yet."""
        assert self.rows is not None
        missing = candidates[~self.filled[candidates]]
        if missing.size:
            self.rows[missing] = self._block(missing, slice(0, self.n))
            self.filled[missing] = True

    def _block(self, candidates: NDArray[np.int64], clients: slice) -> NDArray[Any]:
        block = self.objective.similarities(candidates, clients, self.points)
        return np.ascontiguousarray(block, dtype=self.current.dtype)


def _rows(similarity: NDArray[Any]) -> NDArray[Any]:
    """Return sim(i, j) with one contiguous row per j: without a copy where it is symmetric."""
    n = similarity.shape[0]
    contiguous = similarity.flags.c_contiguous
    for start in range(0, n if contiguous else 0, 256):
        part = slice(start, start + 256)
        if not np.array_equal(similarity[part, start:], similarity[start:, part].T):
            return np.ascontiguousarray(similarity.T)
    return similarity if contiguous else np.ascontiguousarray(similarity.T)
