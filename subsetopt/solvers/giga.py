"""Greedy iterative geodesic ascent: nonnegative weights on the sphere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.cone import unit_for
from subsetopt.errors import OptionError
from subsetopt.kernels.geodesic import geodesic_steps, start_products
from subsetopt.kernels.screen import code_rows
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["GeodesicAscent"]

# Coordinates looked at between two looks at the clock: about 50 microseconds.
_CHUNK = 2_000_000
# Without a limit, between two looks for an interrupt: about a millisecond.
_LONG_CHUNK = 20 * _CHUNK


@dataclass(frozen=True, slots=True)
class GeodesicAscent:
    r"""Walk along great circles of the unit sphere towards the target's direction.

    Each of k steps picks the vector whose geodesic from the current point is best aligned with the
    one to the target,

    .. math:: \arg\max_i \Bigl\langle \frac{\hat t - \langle \hat t, y \rangle y}{\|\cdot\|},
              \frac{\hat v_i - \langle \hat v_i, y \rangle y}{\|\cdot\|} \Bigr\rangle ,

    and goes along it to the nearest point; the length is fitted at the end.

    Parameters
    ----------
    refit
        Whether to fit the weights anew on the vectors found, by nonnegative least squares: a
        smaller residual, for about as much time again. With include or quotas it is always done.

    Raises
    ------
    OptionError
        If ``refit`` is not a bool.

    Notes
    -----
    O(k n d), deterministic; the residual falls at a geometric rate. One iteration is one step; a
    step may pick a vector again, so fewer than k may be chosen.

    References
    ----------
    Campbell & Broderick, Bayesian coreset construction via greedy iterative geodesic ascent, ICML
    2018.
    """

    refit: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.refit, bool):
            raise OptionError(f"refit must be True or False, got {self.refit!r}.")

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return at most k indices and their weights."""
        objective = problem.objective
        assert isinstance(objective, VectorMatching)
        rules = problem.constraints
        allowed = rules.free[objective.norms[rules.free] > 0.0]
        steps = problem.k - rules.forced.size
        if context.max_iterations is not None:
            steps = min(steps, context.max_iterations)
        walk = _Walk(objective, allowed, _CHUNK if context.deadline.limited else _LONG_CHUNK)
        done, stop = walk.run(steps, context)
        weights = walk.weights(objective)
        support = np.flatnonzero(weights)
        chosen = allowed[support]
        if self.refit or rules.forced.size or rules.codes is not None:
            keys = np.zeros(problem.n)
            keys[chosen] = -weights[support] * objective.norms[chosen]
            kept = rules.greedy_by(keys)
            assert not isinstance(kept, str)
            return RawResult(kept, stop_reason=stop, iterations=done)
        return RawResult(chosen, weights[support], stop_reason=stop, iterations=done)


class _Walk:
    """The point on the sphere, and the weights that make it of unit vectors."""

    def __init__(self, objective: VectorMatching, allowed: NDArray[np.int64], chunk: int) -> None:
        self.allowed = allowed
        unit = unit_for(objective.norms, objective.target)
        self.norms = objective.norms[allowed] / unit
        self.vectors, self.all_norms = objective.vectors, objective.norms
        target = objective.target / unit
        self.length = math.sqrt(float(target @ target))
        self.target = target / self.length if self.length > 0.0 else target
        self.y = np.zeros(target.size)
        self.share = np.zeros(allowed.size)
        # The choice is narrowed down in integers and made in double precision.
        self.codes = np.empty((allowed.size, objective.d), dtype=np.int16)
        code_rows(objective.vectors, objective.norms, allowed, self.codes)
        self.shut = np.zeros(allowed.size, dtype=np.int8)
        self.ahead = np.empty(allowed.size, dtype=np.float32)
        products = np.empty(allowed.size, dtype=np.int32)
        start_products(self.codes, self.target, self.shut, products, self.ahead)
        self.batch = max(1, chunk // max(self.codes.size, 1))

    def run(self, steps: int, context: SolveContext) -> tuple[int, StopReason]:
        """Go along at most so many geodesics; return how many, and why it ended."""
        done = 0
        if self.length == 0.0:
            return 0, StopReason.COMPLETED
        try:
            while done < steps:
                batch = min(self.batch, steps - done)
                made = geodesic_steps(
                    self.vectors, self.all_norms, self.allowed, self.codes, self.shut,
                    self.target, self.y, self.ahead, self.share, batch,
                )  # fmt: skip
                done += made
                if made < batch:
                    break
                if context.deadline.expired():
                    return done, StopReason.TIME
        except KeyboardInterrupt:
            return done, StopReason.INTERRUPTED
        return done, StopReason.COMPLETED

    def weights(self, objective: VectorMatching) -> NDArray[np.float64]:
        """Return the weights of the vectors themselves, at the length that fits the target."""
        reach = max(0.0, float(self.target @ self.y)) * self.length
        return np.asarray(self.share * (reach / self.norms))
