"""Gains of facility location: what a candidate adds to a subset, for many candidates at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.clients import Clients, clients_of
from subsetopt.kernels.coverage import add_gains
from subsetopt.objectives import FacilityLocation
from subsetopt.problem import Problem

__all__ = ["Gains"]

# Up to this many samples their similarities are kept, once computed: 256 MiB of float32.
_KEPT = 8192
# Candidates looked at between two looks at the clock.
_CANDIDATES = 128
# Above this share of all clients, a gain is computed anew rather than brought up to date.
_MOST = 0.9
# Gains computed one by one, as a share of all, before all are computed.
_RESTLESS = 0.25
_GREEDY = 1.0 - 1.0 / math.e


class Gains:
    """Similarities of candidates to all samples, and the best one of every sample so far.

    Above some thousand samples, the gains of all candidates are remembered as they once were, and
    brought up to date by the clients alone whose best similarity has risen since: fewer and fewer
    as the subset grows. When most candidates had to be looked at again, all are, and remembered.

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
        # All clients, once they are asked for.
        self._every: Clients | None = None
        # All gains as they once were, and the best similarities then; None before.
        self._then: tuple[NDArray[np.float64], NDArray[Any]] | None = None
        # The clients that have come to be covered better since; None for not looked up yet.
        self._risen: Clients | None = None
        self._spent, self._covered = 0, False

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
        if self.rows is not None:
            self._fill(candidates)
            total = np.zeros(candidates.size)
            add_gains(self.rows, candidates, self.current, total)
            return total
        self._spent += candidates.size
        if self._then is None:
            return self._anew(candidates)
        if self._risen is None:
            then = self._then[1]
            risen = np.flatnonzero(self.current > then)
            assert self.points is not None
            self._risen = clients_of(self.objective, self.points, risen, then, self.current)
        if self._risen.size > _MOST * self.n:
            return self._anew(candidates)
        return self._then[0][candidates] - self._rises(candidates, self._risen)

    @property
    def restless(self) -> bool:
        """Whether so many gains were computed one by one that all should be, and remembered."""
        return self.rows is None and self._spent > _RESTLESS * self.n

    def remember(self, values: NDArray[np.float64]) -> None:
        """Remember the gains (n,) as they are now; of use only for candidates yet to come."""
        self._then = (values, self.current.copy())
        self._risen, self._spent = None, 0

    def _anew(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        objective = self.objective
        if objective.metric == "cosine" and objective.points is not None and not self._covered:
            # Nothing is covered yet, and nothing is cut off at 0: a sum of products.
            return np.asarray(objective.points[candidates] @ objective.points.sum(axis=0))
        every = self._all()
        every.start_from(self.current)
        return self._rises(candidates, every)

    def _all(self) -> Clients:
        """Return all clients, made once."""
        if self._every is None:
            assert self.points is not None
            every = np.arange(self.n)
            self._every = clients_of(self.objective, self.points, every, self.current)
        return self._every

    def _rises(self, candidates: NDArray[np.int64], clients: Clients) -> NDArray[np.float64]:
        total = np.zeros(candidates.size)
        assert self.points is not None
        clients.add_rises(self.points[candidates], total)
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
            assert self.points is not None
            one = np.empty((1, self.n), dtype=self.current.dtype)
            self._all().fill(self.points[chosen], one, np.zeros(1, dtype=np.int64))
            row = one[0]
        np.maximum(self.current, row, out=self.current)
        self._covered, self._risen = True, None

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
            assert self.points is not None
            self._all().fill(self.points[missing], self.rows, missing)
            self.filled[missing] = True


def _rows(similarity: NDArray[Any]) -> NDArray[Any]:
    """Return sim(i, j) with one contiguous row per j: without a copy where it is symmetric."""
    n = similarity.shape[0]
    contiguous = similarity.flags.c_contiguous
    for start in range(0, n if contiguous else 0, 256):
        part = slice(start, start + 256)
        if not np.array_equal(similarity[part, start:], similarity[start:, part].T):
            return np.ascontiguousarray(similarity.T)
    return similarity if contiguous else np.ascontiguousarray(similarity.T)
