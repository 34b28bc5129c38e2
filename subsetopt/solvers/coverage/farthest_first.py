"""K-center by farthest-first traversal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.constraints.partial_subset import Partial, seconds_to_complete
from subsetopt.inputs import checked_choice
from subsetopt.kernels.coverage.gains import farthest
from subsetopt.objectives import KCenter
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.coverage.growth import completed_by
from subsetopt.status import StopReason

__all__ = ["FarthestFirst"]

# Coordinates that are read between two looks at the clock, in about a millisecond.
_NUMBERS = 1 << 20


@dataclass(frozen=True, slots=True)
class FarthestFirst:
    """Take the sample that is farthest from those taken, k times.

    Parameters
    ----------
    start
        The first sample: ``"random"``, or ``"central"``, the one nearest the mean.

    Raises
    ------
    OptionError
        If ``start`` is neither.

    Notes
    -----
    Any k + 1 samples at least r apart prove that the optimal radius is at least r/2 in a metric:
    two of them share a center. With the size as the only constraint, and with ``include``, the
    radius is hence at most twice the optimum; under other constraints only the bound remains. For
    cosine, half a squared Euclidean distance of unit vectors, the factor is 4. O(n k d).
    Deterministic for a seed. One iteration is one sample taken.

    References
    ----------
    Gonzalez, Clustering to minimize the maximum intercluster distance, Theor. Comput. Sci. 1985;
    Sener & Savarese, ICLR 2018.
    """

    start: str = "random"

    def __post_init__(self) -> None:
        checked_choice("start", self.start, ("random", "central"))

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the samples taken, and half the smallest distance between them as the bound."""
        objective = problem.objective
        assert isinstance(objective, KCenter)
        deadline = context.deadline.less(seconds_to_complete(problem.constraints))
        state, nearest = Partial(problem.constraints), _Nearest(objective.points, deadline)
        nearest.centers.extend(int(item) for item in problem.constraints.forced)
        separation, complete = math.inf, True
        while state.slots > 0 and (allowed := state.allowed()).size:
            pick = None if deadline.expired() else self._pick(nearest, allowed, context)
            if pick is None:
                complete = False
                break
            state.take(pick)
            separation = min(separation, float(nearest.squares[pick]))
            nearest.centers.append(pick)
        iterations = problem.k - state.slots
        if not complete:
            chosen = completed_by(state, nearest.squares, deadline)
            return RawResult(chosen, stop_reason=StopReason.TIME, iterations=iterations)
        chosen = state.completed()
        if chosen is None or not chosen.size:
            return RawResult(None, infeasible=chosen is not None)
        bound = None
        # k + 1 samples make the proof: with fewer taken there is none.
        if state.slots == 0:
            last = nearest.farthest(np.arange(problem.n))
            if last is not None:
                square = min(separation, float(nearest.squares[last]))
                bound = objective.distance(0.25 * square * (1.0 - 1e-12))
        return RawResult(chosen, bound=bound, iterations=iterations)

    def _pick(
        self, nearest: _Nearest, allowed: NDArray[np.int64], context: SolveContext
    ) -> int | None:
        """Return the next sample, None when time is up."""
        if nearest.centers:
            return nearest.farthest(allowed)
        if self.start == "random":
            return int(context.generator().choice(allowed))
        return nearest.central(allowed)


class _Nearest:
    """Squared distances of points to the nearest center, as far as they had to be looked at."""

    def __init__(self, points: NDArray[np.float64], deadline: Deadline) -> None:
        self.points, self.deadline = points, deadline
        self.centers: list[int] = []
        self.squares = np.full(points.shape[0], np.inf)
        self._seen = np.zeros(points.shape[0], dtype=np.int64)

    def farthest(self, allowed: NDArray[np.int64]) -> int | None:
        """Return the allowed point that is farthest from the centers, None when time is up."""
        expired = self.deadline.expired if self.deadline.limited else None
        centers = np.array(self.centers)
        return farthest(self.points, centers, allowed, self.squares, self._seen, expired)

    def central(self, allowed: NDArray[np.int64]) -> int | None:
        """Return the allowed point nearest the mean of all points, None when time is up."""
        n, d = self.points.shape
        step = n if not self.deadline.limited else max(1, _NUMBERS // max(d, 1))
        total, squares = np.zeros(d), np.empty(allowed.size)
        for first in range(0, n, step):
            if self.deadline.expired():
                return None
            total += self.points[first : first + step].sum(axis=0)
        for first in range(0, allowed.size, step):
            if self.deadline.expired():
                return None
            few = allowed[first : first + step]
            squares[first : first + step] = np.square(self.points[few] - total / n).sum(axis=1)
        return int(allowed[np.argmin(squares)])
