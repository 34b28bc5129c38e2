"""Frank-Wolfe over a polytope that is known by its linear oracle."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline, OutOfTimeError
from subsetopt.constraints.partial_subset import Partial
from subsetopt.constraints.subsets import random_subset
from subsetopt.problem import Problem
from subsetopt.solvers.vectors.units import pieces
from subsetopt.status import StopReason

__all__ = ["CappedSimplex", "End", "Polytope", "Variant", "Vertex", "WeightedCone", "minimize"]

Variant = Literal["plain", "away", "pairwise"]

# A vertex leaves where its share of the weight is at most this, since such a share is rounding.
_GONE = 1e-15


@dataclass(frozen=True, eq=False, slots=True)
class Vertex:
    """A vertex: some candidates with equal weights."""

    indices: NDArray[np.int64]  #: (m,) the candidates that have a weight
    weight: float  #: the weight of each of them
    point: NDArray[np.float64]  #: (d,) their weighted sum

    @property
    def key(self) -> bytes:
        """Return what tells this vertex from others."""
        return self.indices.tobytes()


class Polytope(Protocol):
    """What Frank-Wolfe needs to know of a polytope of weights.

    Attributes
    ----------
    n
        The number of weights.
    target
        The vector that the weighted sum should be, shape (d,).
    room
        The largest number of vertices that may be active at once.
    """

    n: int
    target: NDArray[np.float64]
    room: int

    def first(self) -> Vertex | None:
        """Return the vertex to start from; None for an empty polytope."""

    def oracle(self, residual: NDArray[np.float64]) -> Vertex:
        """Return the vertex whose point has the largest inner product with the residual.

        Raises OutOfTimeError where time is up before it is found.
        """

    def within_reach(
        self, vertex: Vertex, residual: NDArray[np.float64], active: Iterable[Vertex]
    ) -> Vertex:
        """Return the vertex to walk to: the oracle's, or the best that may join the active ones."""


def _products(
    points: NDArray[np.float64], residual: NDArray[np.float64], deadline: Deadline
) -> NDArray[np.float64]:
    """Return the inner products; raises OutOfTimeError where time is up before all are there."""
    if not deadline.limited:
        return np.asarray(points @ residual)
    products = np.empty(points.shape[0])
    for part in pieces(points.shape, deadline):
        np.dot(points[part], residual, out=products[part])
    return products


class CappedSimplex:
    """All means of k vectors that sizes and quotas allow, and their convex combinations."""

    def __init__(
        self,
        problem: Problem,
        vectors: NDArray[np.float64],
        target: NDArray[np.float64],
        rng: np.random.Generator,
        deadline: Deadline,
    ) -> None:
        self._deadline = deadline
        self.n, self.target, self.room = problem.n, target, sys.maxsize
        self._problem, self._vectors, self._rng = problem, vectors, rng

    def _vertex(self, indices: NDArray[np.int64]) -> Vertex:
        share = 1.0 / self._problem.k
        return Vertex(indices, share, share * self._vectors[indices].sum(axis=0))

    def first(self) -> Vertex:
        """Return the mean of a random feasible subset."""
        return self._vertex(random_subset(self._problem.constraints, self._rng))

    def oracle(self, residual: NDArray[np.float64]) -> Vertex:
        """Return the mean of the k vectors that lie furthest along the residual."""
        chosen = self._problem.constraints.greedy_by(
            -_products(self._vectors, residual, self._deadline)
        )
        assert not isinstance(chosen, str)
        return self._vertex(chosen)

    def within_reach(
        self, vertex: Vertex, residual: NDArray[np.float64], active: Iterable[Vertex]
    ) -> Vertex:
        """Return the oracle's vertex, since every vertex may join."""
        return vertex


class WeightedCone:
    r"""The Hilbert coreset polytope: :math:`w \ge 0`, :math:`\sum_i \sigma_i w_i = \sigma / n`.

    Every vertex is one vector, scaled to the mean norm of all vectors, or to the norm of the target
    where that is larger: shorter vertices could not reach it. Included vectors, quotas and a
    capacity say which vertices may be active together. Making it raises OutOfTimeError where the
    deadline ends that.
    """

    def __init__(
        self,
        problem: Problem,
        vectors: NDArray[np.float64],
        target: NDArray[np.float64],
        deadline: Deadline,
    ) -> None:
        rules = problem.constraints
        norms = np.empty(vectors.shape[0])
        for part in pieces(vectors.shape, deadline):
            norms[part] = np.sqrt(np.einsum("ij,ij->i", vectors[part], vectors[part]))
        self.n, self.target = problem.n, target
        simple = rules.unbound and not rules.forced.size
        self._rules = None if simple else rules
        self.room = problem.k
        known = rules.free if simple else np.sort(np.concatenate([rules.forced, rules.free]))
        self._allowed = known[norms[known] > 0.0]
        length = max(float(norms.mean()), math.sqrt(float(target @ target)))
        self._weights = length / norms[self._allowed]
        self._deadline = deadline
        self._points = np.empty((self._allowed.size, vectors.shape[1]))
        for part in pieces(self._points.shape, deadline):
            rows = vectors[self._allowed[part]]
            np.multiply(rows, self._weights[part, None], out=self._points[part])

    def first(self) -> Vertex | None:
        """Return the vertex nearest in angle to the target."""
        if not self._allowed.size or self.room == 0:
            return None
        vertex = self.oracle(self.target)
        if self._rules is None:
            return vertex
        joining = self._joining(())
        return self._best(self.target, joining) if joining.size else None

    def oracle(self, residual: NDArray[np.float64]) -> Vertex:
        """Return the vertex that lies furthest along the residual."""
        products = _products(self._points, residual, self._deadline)
        return self._vertex(int(np.argmax(products)))

    def within_reach(
        self, vertex: Vertex, residual: NDArray[np.float64], active: Iterable[Vertex]
    ) -> Vertex:
        """Return the vertex furthest along the residual that constraints let join the active."""
        return vertex if self._rules is None else self._best(residual, self._joining(active))

    def _vertex(self, at: int) -> Vertex:
        return Vertex(self._allowed[at : at + 1], float(self._weights[at]), self._points[at])

    def _best(self, residual: NDArray[np.float64], positions: NDArray[np.int64]) -> Vertex:
        return self._vertex(int(positions[np.argmax(self._points[positions] @ residual)]))

    def _joining(self, active: Iterable[Vertex]) -> NDArray[np.int64]:
        """Return the positions of the active vertices and of those that may join them."""
        assert self._rules is not None
        state = Partial(self._rules)
        for vertex in active:
            if not state.mask[vertex.indices[0]]:
                state.take(int(vertex.indices[0]))
        may = state.mask
        may[state.allowed()] = True
        return np.flatnonzero(may[self._allowed])


@dataclass(frozen=True, eq=False, slots=True)
class End:
    """Where Frank-Wolfe ended."""

    weights: NDArray[np.float64]  #: (n,) the weight of every candidate
    value: float  #: half the squared residual at the last point that the oracle was asked at
    gap: float  #: the Frank-Wolfe gap at that point; infinite where there is none
    steps: int  #: the number of calls of the oracle
    stop: StopReason  #: why it ended


def minimize(
    polytope: Polytope, variant: Variant, deadline: Deadline, limit: int, enough: float
) -> End:
    r"""Minimize :math:`f(w) = \frac12 \|t - \sum_i w_i v_i\|^2` with exact line search.

    Parameters
    ----------
    polytope
        The weights to choose from.
    variant
        ``"plain"`` walks toward a vertex; ``"away"`` walks away from the worst active vertex where
        that promises more; ``"pairwise"`` moves weight from the worst active vertex to another.
    deadline
        Looked at before every step.
    limit
        The largest number of calls of the oracle.
    enough
        A gap of at most this is taken for 0.

    Returns
    -------
    End
        Its ``value`` is f, and ``value - gap`` bounds the minimum from below.
    """
    start = polytope.first()
    if start is None:
        value = 0.5 * float(polytope.target @ polytope.target)
        return End(np.zeros(polytope.n), value, math.inf, 0, StopReason.COMPLETED)
    active = _Active(start)
    value, gap, stop, step = math.inf, math.inf, StopReason.COMPLETED, 0
    while step < limit:
        if deadline.expired():
            stop = StopReason.TIME
            break
        step += 1
        here = active.point()
        residual = polytope.target - here
        try:
            vertex = polytope.oracle(residual)
        except OutOfTimeError:
            stop = StopReason.TIME
            break
        value = 0.5 * float(residual @ residual)
        gap = max(0.0, float(residual @ (vertex.point - here)))
        if gap <= enough:
            break
        vertex = polytope.within_reach(vertex, residual, active.vertices.values())
        if not active.move(vertex, here, residual, variant, polytope.room):
            break
    return End(active.weights(polytope.n), value, gap, step, stop)


class _Active:
    """The active vertices and their shares, which sum to 1."""

    def __init__(self, start: Vertex) -> None:
        self.vertices = {start.key: start}
        self.shares = {start.key: 1.0}

    def point(self) -> NDArray[np.float64]:
        """Return the weighted sum of the vertices' points."""
        shares = np.fromiter(self.shares.values(), np.float64, len(self.shares))
        points = np.array([self.vertices[key].point for key in self.shares])
        return np.asarray(shares @ points)

    def weights(self, n: int) -> NDArray[np.float64]:
        """Return the weight of every candidate."""
        total = np.zeros(n)
        for key, share in self.shares.items():
            vertex = self.vertices[key]
            total[vertex.indices] += share * vertex.weight
        return total

    def move(
        self,
        vertex: Vertex,
        here: NDArray[np.float64],
        residual: NDArray[np.float64],
        variant: Variant,
        room: int,
    ) -> bool:
        """Make one step with exact line search; return whether there was one to make.

        Parameters
        ----------
        vertex
            The vertex to walk to.
        here, residual
            What :meth:`point` returns, and the target less it, shape (d,).
        variant
            ``"plain"``, ``"away"`` or ``"pairwise"``.
        room
            Most vertices that may be active.
        """
        ahead = vertex.point - here
        if variant != "plain":
            worst = min(self.shares, key=lambda key: float(residual @ self.vertices[key].point))
            share, worst_point = self.shares[worst], self.vertices[worst].point
        if variant == "away" and share < 1.0:
            away = here - worst_point
            if residual @ away > residual @ ahead:
                length = _line_search(residual, away, share / (1.0 - share))
                self._scale(1.0 + length)
                self._give(worst, -length)
                return length > 0.0
        key = vertex.key
        if key not in self.vertices and len(self.shares) >= room:
            return False
        if variant == "pairwise":
            length = _line_search(residual, vertex.point - worst_point, share)
        else:
            length = _line_search(residual, ahead, 1.0)
        if length <= 0.0:
            return False
        if variant == "pairwise":
            self._give(worst, -length)
        else:
            self._scale(1.0 - length)
        self.vertices[key] = vertex
        self._give(key, length)
        return True

    def _scale(self, factor: float) -> None:
        for key in list(self.shares):
            self.shares[key] *= factor
            self._tidy(key)

    def _give(self, key: bytes, share: float) -> None:
        self.shares[key] = self.shares.get(key, 0.0) + share
        self._tidy(key)

    def _tidy(self, key: bytes) -> None:
        if self.shares[key] <= _GONE:
            del self.shares[key], self.vertices[key]


def _line_search(
    residual: NDArray[np.float64], direction: NDArray[np.float64], longest: float
) -> float:
    """Return the step that minimizes the distance to the target along a direction."""
    square = float(direction @ direction)
    return min(longest, max(0.0, float(residual @ direction) / square)) if square > 0.0 else 0.0
