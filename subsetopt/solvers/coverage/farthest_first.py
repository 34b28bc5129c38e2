"""K-center by farthest-first traversal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.partial_subset import Partial
from subsetopt.inputs import checked_choice
from subsetopt.kernels.coverage.gains import farthest
from subsetopt.objectives import KCenter
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["FarthestFirst"]


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
        """Return the samples taken, and half the least distance between them as the bound."""
        objective = problem.objective
        assert isinstance(objective, KCenter)
        state, nearest = Partial(problem.constraints), _Nearest(objective.points)
        for item in problem.constraints.forced:
            nearest.add(int(item))
        separation, stop = math.inf, StopReason.COMPLETED
        while state.slots > 0 and (allowed := state.allowed()).size:
            if stop is StopReason.COMPLETED:
                pick = self._pick(nearest, allowed, context)
            else:
                pick = int(allowed[np.argmax(nearest.squares[allowed])])
            if stop is StopReason.COMPLETED and context.deadline.expired():
                stop = StopReason.TIME
            state.take(pick)
            if stop is StopReason.COMPLETED:
                separation = min(separation, float(nearest.squares[pick]))
                nearest.add(pick)
        chosen = state.completed()
        if chosen is None or not chosen.size:
            return RawResult(None, infeasible=chosen is not None)
        bound = None
        # k + 1 samples make the proof: with fewer taken there is none.
        if stop is StopReason.COMPLETED and state.slots == 0:
            last = nearest.farthest(np.arange(problem.n))
            square = min(separation, float(nearest.squares[last]))
            bound = objective.distance(0.25 * square * (1.0 - 1e-12))
        return RawResult(chosen, bound=bound, stop_reason=stop, iterations=problem.k - state.slots)

    def _pick(self, nearest: _Nearest, allowed: NDArray[np.int64], context: SolveContext) -> int:
        if nearest.centers:
            return nearest.farthest(allowed)
        if self.start == "random":
            return int(context.generator().choice(allowed))
        center = nearest.points.mean(axis=0)
        squares = np.square(nearest.points[allowed] - center).sum(axis=1)
        return int(allowed[np.argmin(squares)])


class _Nearest:
    """Squared distances of points to the nearest center, as far as they had to be looked at."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        self.points = points
        self.centers: list[int] = []
        self.squares = np.full(points.shape[0], np.inf)
        self._seen = np.zeros(points.shape[0], dtype=np.int64)

    def add(self, center: int) -> None:
        self.centers.append(center)

    def farthest(self, allowed: NDArray[np.int64]) -> int:
        """Return the allowed point that is farthest from the centers."""
        centers = np.array(self.centers)
        return farthest(self.points, centers, allowed, self.squares, self._seen)
