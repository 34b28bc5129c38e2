"""Gains of facility location: what a candidate adds to a subset, for many candidates at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.kernels.coverage.gains import add_gains, add_rises
from subsetopt.objectives import FacilityLocation
from subsetopt.problem import Problem
from subsetopt.solvers.coverage.clients import Clients, clients_of

__all__ = ["Gains"]

# Up to this many samples their similarities are kept, once computed: 256 MiB of float32.
_KEPT = 8192
# Candidates looked at between two looks at the clock, with a time limit and without.
_CANDIDATES, _CANDIDATES_AT_EASE = 128, 1024
# Clients looked at between two looks at the clock, with a time limit and without.
_CLIENTS_IN_TIME, _CLIENTS = 128, 1024
# Above this share of all clients, a gain is computed anew rather than brought up to date.
_MOST = 0.9
# Gains computed one by one, as a share of all, before all are computed.
_RESTLESS = 0.25
_GREEDY = 1.0 - 1.0 / math.e


class Gains:
    """Similarities of candidates to all samples, and the best one of every sample so far.

    A gain falls by the clients alone whose best similarity has risen: fewer and fewer as the subset
    grows. Where the similarities are kept, :meth:`settle` brings all gains up to date by these.
    Above some thousand samples the gains are remembered as they once were, and single ones brought
    up to date; when most candidates had to be looked at again, all are, and remembered.

    Attributes
    ----------
    current
        (n,) similarity of every sample to its nearest chosen one, at least 0.
    rows
        Similarities, one row per candidate: made for the first gain asked for, or filled bit by
        bit; None where they are not kept.
    settles
        Whether :meth:`settle` can be called: there are contiguous rows of clients.
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
        # Similarities with one row per client.
        self._served = similarity = objective.similarity
        if similarity is None and n <= _KEPT:
            self.rows = self._served = np.empty((n, n), dtype=dtype)
        self.kept = self._served is not None
        self.settles = self._served is not None and self._served.flags.c_contiguous
        # Bounds on all gains, exact once settled, and the best similarities they know of.
        self._settled: tuple[NDArray[np.float64], NDArray[Any]] | None = None
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
        if self.kept:
            if self.rows is None:
                assert self.objective.similarity is not None
                self.rows = _rows(self.objective.similarity)
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
        return not self.kept and self._spent > _RESTLESS * self.n

    def remember(self, values: NDArray[np.float64]) -> None:
        """Remember the gains (n,) as they are now; of use only for candidates yet to come."""
        self._then = (values, self.current.copy())
        self._risen, self._spent = None, 0

    def _anew(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        if self._linear:
            return self._sums(candidates)
        every = self._all()
        every.start_from(self.current)
        return self._rises(candidates, every)

    @property
    def _linear(self) -> bool:
        """Whether gains are sums of products: nothing is covered yet, nor cut off at 0."""
        objective = self.objective
        return objective.metric == "cosine" and objective.points is not None and not self._covered

    def _sums(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        points = self.objective.points
        assert points is not None
        return np.asarray(points[candidates] @ points.sum(axis=0))

    def settle(self, upper: NDArray[np.float64], deadline: Deadline) -> tuple[bool, int]:
        """Lower bounds on the gains to the gains themselves.

        Parameters
        ----------
        upper
            (n,) bounds, which are only ever lowered.
        deadline
            Looked at now and then: out of time, bounds are as low as they have come.

        Returns
        -------
        tuple
            Whether there was time for all, and the work done, in gains.
        """
        done = 0
        if self._settled is None:
            first = np.zeros(self.n)
            done = self._begin(first, deadline)
            if done < self.n:
                return False, done
            self._settled = (first, self.current.copy())
        known: NDArray[np.float64] = self._settled[0]
        levels: NDArray[Any] = self._settled[1]
        risen = np.flatnonzero(self.current > levels)
        falls = np.zeros(self.n)
        count = self._add_rises(risen, levels, self.current, falls, deadline)
        known -= falls
        levels[risen[:count]] = self.current[risen[:count]]
        np.minimum(upper, np.maximum(known, 0.0), out=upper)
        return count == risen.size, done + count

    def _begin(self, known: NDArray[np.float64], deadline: Deadline) -> int:
        """Set all gains for the first time; return how many clients there was time for."""
        every = np.arange(self.n)
        if self._linear:
            known[:] = self._sums(every)
            return self.n
        if self.objective.alone is not None and not self._covered:
            known[:] = self.objective.alone
            return self.n
        far = np.full_like(self.current, np.inf)
        return self._add_rises(every, self.current, far, known, deadline)

    def _add_rises(
        self,
        clients: NDArray[np.int64],
        low: NDArray[Any],
        high: NDArray[Any],
        totals: NDArray[np.float64],
        deadline: Deadline,
    ) -> int:
        """Add to every candidate's total how far clients would rise; return how many were asked."""
        step = _CLIENTS_IN_TIME if deadline.limited else _CLIENTS
        for start in range(0, clients.size, step):
            if deadline.expired():
                return start
            part = clients[start : start + step]
            self._fill(part)
            # After a product BLAS's threads wait busily for a while, in the way of others.
            multiplied = self.points is not None and self.objective.single
            add_rises(self._served, part, low, high, totals, shared=not multiplied)
        return int(clients.size)

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
        step = _CANDIDATES if deadline.limited else _CANDIDATES_AT_EASE
        for start in range(0, candidates.size, step):
            if deadline.expired():
                return False
            part = candidates[start : start + step]
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
        if self.objective.similarity is not None:
            row = self.objective.similarity[:, item]
        elif self.rows is not None:
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
        if self.points is None:
            return
        assert self.rows is not None
        missing = np.sort(candidates[~self.filled[candidates]])
        for start in range(0, missing.size, _CANDIDATES):
            part = missing[start : start + _CANDIDATES]
            if self.objective.single:
                self._multiply(part)
            else:
                self._all().fill(self.points[part], self.rows, part)
        self.filled[missing] = True

    def _multiply(self, missing: NDArray[np.int64]) -> None:
        """Compute similarities that are products: into their place where rows are adjacent."""
        assert self.rows is not None and self.points is not None
        first, last = int(missing[0]), int(missing[-1]) + 1
        if last - first == missing.size:
            np.matmul(self.points[first:last], self.points.T, out=self.rows[first:last])
        else:
            self.rows[missing] = self.points[missing] @ self.points.T


def _rows(similarity: NDArray[Any]) -> NDArray[Any]:
    """Return sim(i, j) with one contiguous row per j: without a copy where it is symmetric."""
    n = similarity.shape[0]
    for start in range(0, n, 256):
        part = slice(start, start + 256)
        if not np.array_equal(similarity[part, start:], similarity[start:, part].T):
            return np.ascontiguousarray(similarity.T)
    return similarity
