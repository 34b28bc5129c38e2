"""Gains of facility location: what a candidate adds to a subset, for many candidates at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline, OutOfTimeError
from subsetopt.kernels.coverage.gains import add_gains, add_rises
from subsetopt.objectives import FacilityLocation
from subsetopt.solvers.coverage.clients import Clients, clients_of, rows_of

__all__ = ["Gains"]

# Similarities of up to this many samples are kept, once computed: 256 MiB of float32.
_KEPT = 8192
# Candidates or clients looked at between two looks at the clock, at most, with a time limit and
# without.
_IN_TIME, _AT_EASE = 128, 1024
# Similarities computed between two looks at the clock under a time limit, some milliseconds' work:
# products in single precision, and others.
_PRODUCTS, _OTHERS = 1 << 20, 1 << 18
# Candidates whose similarities to all samples are computed together, and the multiplications of
# these under a time limit, which take about a millisecond.
_FILLED_TOGETHER = 128
_MULTIPLIED = 1 << 25
# Numbers that are copied or added up between two looks at the clock, which takes a millisecond.
_NUMBERS = 1 << 20
# Rows of a similarity matrix that are compared with its columns at a time.
_COMPARED_TOGETHER = 256
# A gain is computed anew, not brought up to date, when more than this share of clients has risen.
_MOST = 0.9
# All gains are computed when more than this share of them was computed one by one.
_RESTLESS = 0.25
# A greedy's value as a share of the optimum, at least.
_GREEDY = 1.0 - 1.0 / math.e


class Gains:
    """Similarities of candidates to all samples, and the best one of every sample so far.

    Similarities and gains are in multiples of the objective's unit. A gain falls only by the
    clients whose best similarity has risen: fewer and fewer as the subset grows. Where the
    similarities are kept, :meth:`settle` brings all gains up to date by these. Above some thousand
    samples the gains of one step are remembered, and single ones brought up to date; when most
    candidates had to be looked at again, all are, and remembered. Work that is of no use by halves
    raises OutOfTimeError where time is up.

    Parameters
    ----------
    objective
        What is covered, n samples.
    size
        Size of the subset, for the bound.
    deadline
        When to stop; None never does.

    Attributes
    ----------
    current
        Similarity of every sample to its nearest chosen one, at least 0, shape (n,).
    featured
        Whether the objective has points, of which similarities are computed.
    rows
        Similarities, one row per candidate, shape (n, n): made for the first gain asked for, or
        filled row by row; None where they are not kept.
    filled
        Which rows have been computed from points, shape (n,).
    kept
        Whether similarities are kept.
    settles
        Whether :meth:`settle` can be called: there are contiguous rows of clients.
    """

    def __init__(
        self, objective: FacilityLocation, size: int, deadline: Deadline | None = None
    ) -> None:
        self.objective, self.size = objective, size
        self.deadline = Deadline() if deadline is None else deadline
        self.n = n = objective.n
        dtype = np.float32 if objective.single or objective.similarity is None else np.float64
        self.current = np.zeros(n, dtype=dtype)
        self.featured = objective.points is not None
        # The points in the precision of the similarities, and their sum.
        self._points: NDArray[Any] | None = None
        self._total: NDArray[Any] | None = None
        self.rows: NDArray[Any] | None = None
        self.filled = np.zeros(n, dtype=np.bool_)
        # Similarities with one row per client.
        self._served = similarity = objective.similarity
        if similarity is None and n <= _KEPT:
            self.rows = self._served = np.empty((n, n), dtype=dtype)
        self.kept = self._served is not None
        self.settles = self._served is not None and self._served.flags.c_contiguous
        # Bounds on all gains, exact once settled, and the best similarities they account for.
        self._settled: tuple[NDArray[np.float64], NDArray[Any]] | None = None
        # All clients, made when they are first asked for.
        self._all_clients: Clients | None = None
        # All gains of an earlier step, and the best similarities of that step; None before.
        self._remembered: tuple[NDArray[np.float64], NDArray[Any]] | None = None
        # The clients that are covered better than in that step; None for not looked up yet.
        self._risen: Clients | None = None
        # Gains computed one by one since that step.
        self._computed = 0
        self._covered = False

    @property
    def points(self) -> NDArray[Any]:
        """The objective's points in the precision of the similarities, shape (n, d)."""
        if self._points is None:
            points = self.objective.points
            assert points is not None
            if self.objective.single:
                copied: NDArray[Any] = np.empty(points.shape, dtype=np.float32)
                for part in self._chunks(points.shape[1]):
                    copied[part] = points[part]
                points = copied
            self._points = points
        return self._points

    def _chunks(self, width: int) -> Iterator[slice]:
        """Yield parts of all samples, each with so many numbers, between looks at the clock."""
        step = max(1, _NUMBERS // max(width, 1))
        for start in range(0, self.n, step):
            self.deadline.check()
            yield slice(start, start + step)

    def gains(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what each candidate adds to the objective."""
        if self.kept:
            if self.rows is None:
                assert self.objective.similarity is not None
                self.rows = _rows(self.objective.similarity, self.deadline)
            self._fill(candidates)
            totals = np.zeros(candidates.size)
            add_gains(self.rows, candidates, self.current, totals)
            return totals
        self._computed += candidates.size
        if self._remembered is None:
            return self._anew(candidates)
        values, levels = self._remembered
        if self._risen is None:
            risen = (self.current > levels).nonzero()[0]
            self._risen = self._clients(risen, levels, self.current)
        if self._risen.size > _MOST * self.n:
            return self._anew(candidates)
        return values[candidates] - self._rises(candidates, self._risen)

    @property
    def restless(self) -> bool:
        """Whether so many gains were computed one by one that all should be, and remembered."""
        return not self.kept and self._computed > _RESTLESS * self.n

    def remember(self, values: NDArray[np.float64]) -> None:
        """Remember the gains (n,) as they are now; of use only for candidates yet to come."""
        self._remembered = (values, self.current.copy())
        self._risen, self._computed = None, 0

    def _anew(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return gains from the similarities to all clients."""
        if self._linear:
            return self._sums(candidates)
        clients = self._every_client()
        clients.start_from(self.current)
        return self._rises(candidates, clients)

    @property
    def _linear(self) -> bool:
        """Whether gains are sums of products: nothing is covered yet, nor cut off at 0."""
        objective = self.objective
        return objective.metric == "cosine" and objective.points is not None and not self._covered

    def _sums(self, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sums of the products of candidates with all samples."""
        points = self.objective.points
        assert points is not None
        if self._total is None:
            total: NDArray[Any] = np.zeros(points.shape[1])
            for part in self._chunks(points.shape[1]):
                total = total + points[part].sum(axis=0)
            self._total = total
        if candidates.size < self.n:
            return np.asarray(points[candidates] @ self._total)
        sums = np.empty(self.n)
        for part in self._chunks(points.shape[1]):
            sums[part] = points[part] @ self._total
        return sums

    def settle(self, upper: NDArray[np.float64], deadline: Deadline) -> tuple[bool, int]:
        """Lower bounds on the gains to the gains themselves.

        Parameters
        ----------
        upper
            Bounds, which are only ever lowered, shape (n,).
        deadline
            Looked at now and then: out of time, bounds are as low as they have come.

        Returns
        -------
        tuple
            Whether there was time for all, and the work done, in gains.
        """
        work = 0
        if self._settled is None:
            values = np.zeros(self.n)
            work = self._begin(values, deadline)
            if work < self.n:
                return False, work
            self._settled = (values, self.current.copy())
        bounds: NDArray[np.float64] = self._settled[0]
        levels: NDArray[Any] = self._settled[1]
        risen = (self.current > levels).nonzero()[0]
        falls = np.zeros(self.n)
        count = self._add_rises(risen, levels, self.current, falls, deadline)
        bounds -= falls
        levels[risen[:count]] = self.current[risen[:count]]
        np.minimum(upper, np.maximum(bounds, 0.0), out=upper)
        return count == risen.size, work + count

    def _begin(self, values: NDArray[np.float64], deadline: Deadline) -> int:
        """Set all gains for the first time; return how many clients there was time for."""
        everything = np.arange(self.n)
        if self._linear:
            values[:] = self._sums(everything)
            return self.n
        if self.objective.alone is not None and not self._covered:
            values[:] = self.objective.alone
            return self.n
        far = np.full_like(self.current, np.inf)
        return self._add_rises(everything, self.current, far, values, deadline)

    def _add_rises(
        self,
        clients: NDArray[np.int64],
        low: NDArray[Any],
        high: NDArray[Any],
        totals: NDArray[np.float64],
        deadline: Deadline,
    ) -> int:
        """Add to every candidate's total how far clients would rise.

        Returns how many clients there was time for.
        """
        # After a product BLAS's threads wait busily for a while, in the way of others.
        multiplied = self.featured and self.objective.single
        count = 0
        for part in self._pieces(clients, deadline):
            try:
                self._fill(part)
            except OutOfTimeError:
                break
            add_rises(self._served, part, low, high, totals, shared=not multiplied)
            count += part.size
        return count

    def together(self, deadline: Deadline) -> int:
        """Return how many candidates or clients to look at between two looks at the clock."""
        if not deadline.limited:
            return _AT_EASE
        pairs = _PRODUCTS if self.objective.single else _OTHERS
        return max(1, min(_IN_TIME, pairs // max(self.n, 1)))

    def _pieces(
        self, indices: NDArray[np.int64], deadline: Deadline
    ) -> Iterator[NDArray[np.int64]]:
        """Yield indices in pieces, as long as there is time."""
        step = self.together(deadline)
        if not deadline.limited and indices.size <= step:
            yield indices
            return
        for start in range(0, indices.size, step):
            if deadline.expired():
                return
            yield indices[start : start + step]

    def _every_client(self) -> Clients:
        """Return all clients, made once."""
        if self._all_clients is None:
            self._all_clients = self._clients(np.arange(self.n), self.current)
        return self._all_clients

    def _clients(
        self, indices: NDArray[np.int64], low: NDArray[Any], high: NDArray[Any] | None = None
    ) -> Clients:
        """Return some clients, with the similarities from which, and up to which, a rise counts."""
        points, deadline = self.points, self.deadline
        return clients_of(self.objective, points, indices, low, high, deadline=deadline)

    def _rises(self, candidates: NDArray[np.int64], clients: Clients) -> NDArray[np.float64]:
        """Return how far clients would rise in all, for each candidate."""
        totals = np.zeros(candidates.size)
        clients.add_rises(self.points[candidates], totals)
        return totals

    def refresh(
        self, upper: NDArray[np.float64], candidates: NDArray[np.int64], deadline: Deadline
    ) -> bool:
        """Set ``upper`` to the gains of candidates; return whether there was time for all."""
        count = 0
        for part in self._pieces(candidates, deadline):
            try:
                upper[part] = self.gains(part)
            except OutOfTimeError:
                break
            count += part.size
        return count == candidates.size

    def take(self, item: int) -> None:
        """Put a candidate into the subset."""
        chosen = np.array([item])
        if self.objective.similarity is not None:
            row = self.objective.similarity[:, item]
        elif self.rows is not None:
            self._fill(chosen)
            row = self.rows[item]
        else:
            rows = np.empty((1, self.n), dtype=self.current.dtype)
            self._every_client().fill(self.points[chosen], rows, np.zeros(1, dtype=np.int64))
            row = rows[0]
        np.maximum(self.current, row, out=self.current)
        self._covered, self._risen = True, None

    def bound(self, upper: NDArray[np.float64], *, greedy: bool) -> float:
        """Return a bound on the objective of every subset, from bounds on the gains.

        By submodularity the optimum is at most the value reached and the k largest gains from
        there; where the subset is a greedy's, it is also at most its value over 1 - 1/e.

        Parameters
        ----------
        upper
            A bound on the gain of every candidate, infinite where none is known, shape (n,).
        greedy
            Whether the subset is a greedy's under a size alone.
        """
        objective = self.objective
        value = float(self.current.sum(dtype=np.float64))
        first = max(self.n - self.size, 0)
        largest = np.partition(upper, min(first, self.n - 1))[first:] if self.n else upper
        # A sum that overflows is above the reach.
        with np.errstate(over="ignore"):
            bound = value + float(np.sort(largest)[::-1].sum())
        if greedy:
            bound = min(bound, value / _GREEDY)
        rounding = objective.unit * (self.size + 2) * self.n * objective.error
        slack = rounding + 1e-12 * objective.reach
        return min(objective.unit * bound + slack, objective.reach)

    def _fill(self, candidates: NDArray[np.int64]) -> None:
        """Compute the kept similarities of candidates that are not there yet."""
        if not self.featured:
            return
        assert self.rows is not None
        missing = candidates[~self.filled[candidates]]
        if not missing.size:
            return
        missing.sort()
        step = _FILLED_TOGETHER
        if self.deadline.limited:
            step = max(1, min(step, _MULTIPLIED // max(self.points.size, 1)))
        for start in range(0, missing.size, step):
            if start:
                self.deadline.check()
            part = missing[start : start + step]
            if self.objective.single:
                self._multiply(part)
            else:
                self._every_client().fill(self.points[part], self.rows, part)
            self.filled[part] = True

    def _multiply(self, missing: NDArray[np.int64]) -> None:
        """Compute similarities that are products: into their place where rows are adjacent."""
        assert self.rows is not None
        first, last = int(missing[0]), int(missing[-1]) + 1
        if last - first == missing.size:
            np.matmul(self.points[first:last], self.points.T, out=self.rows[first:last])
        else:
            self.rows[missing] = self.points[missing] @ self.points.T


def _rows(similarity: NDArray[Any], deadline: Deadline) -> NDArray[Any]:
    """Return sim(i, j) with one contiguous row per j: without a copy where it is symmetric."""
    n = similarity.shape[0]
    step = _COMPARED_TOGETHER
    if deadline.limited:
        step = max(1, min(step, _NUMBERS // max(n, 1)))
    for start in range(0, n, step):
        deadline.check()
        part = slice(start, start + step)
        if not np.array_equal(similarity[part, start:], similarity[start:, part].T):
            return rows_of(similarity.T, np.arange(n), deadline)
    return similarity
