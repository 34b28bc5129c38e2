"""Frank-Wolfe for mean matching: the relaxation, a rounding, and a polish by swaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.bounds import interval_distance
from subsetopt.errors import OptionError
from subsetopt.kernels.swap import best_single_swap
from subsetopt.objectives import MeanMatching
from subsetopt.pool import Pool
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.starts import random_subset
from subsetopt.status import StopReason

__all__ = ["FrankWolfe"]

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class FrankWolfe:
    r"""Minimize the squared residual over the capped simplex, then round and polish.

    .. math:: \min_w \tfrac12 \bigl(t - \textstyle\sum_i w_i l_i\bigr)^2, \qquad
              0 \le w_i \le 1/k, \; \sum_i w_i = 1

    (``sum w <= 1`` with ``cardinality="at_most"``, quotas as bounds on sums.) The linear oracle is
    a top-k, exact under quotas. It starts at a random vertex: the point ``w = 1/n`` would already
    be optimal and tell nothing. Rounding keeps the k largest weights; swaps polish.

    Parameters
    ----------
    max_polish
        Largest number of single swaps after rounding, at least 0.

    Raises
    ------
    OptionError
        If ``max_polish`` is not a nonnegative integer.

    Notes
    -----
    ``extras["fw_gap"]`` is the Frank-Wolfe gap, in squared loss units: it certifies convergence to
    the relaxation only. The relaxation's own optimum is the bound; it is 0 unless the target lies
    outside the reachable means. One iteration is one call of the oracle or one swap.

    References
    ----------
    Jaggi, Revisiting Frank-Wolfe, ICML 2013. Dong et al., One Backward from Ten Forward, eq. 5.
    """

    max_polish: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.max_polish, bool) or not (
            isinstance(self.max_polish, int) and self.max_polish >= 0
        ):
            raise OptionError(f"max_polish must be an integer >= 0, got {self.max_polish!r}.")

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the rounded and polished subset."""
        objective = problem.objective
        assert isinstance(objective, MeanMatching)
        weights, gap, steps, stop = _relax(problem, objective, context)
        pool = Pool.of(problem)
        chosen = problem.constraints.greedy_by(_rounding_keys(weights, problem))
        assert not isinstance(chosen, str)
        if stop is StopReason.COMPLETED:
            chosen, swaps, stop = self._polish(problem, pool, chosen, context, steps)
            steps += swaps
        bound = interval_distance(problem, pool) / problem.k
        return RawResult(
            chosen, bound=bound, stop_reason=stop, iterations=steps, extras={"fw_gap": gap}
        )

    def _polish(
        self,
        problem: Problem,
        pool: Pool,
        chosen: NDArray[np.int64],
        context: SolveContext,
        steps: int,
    ) -> tuple[NDArray[np.int64], int, StopReason]:
        """Make the best single swap, within groups, until none helps."""
        mark = np.zeros(pool.values.size, dtype=np.uint8)
        mark[pool.positions(chosen, problem.n)] = 1
        residual = pool.target - float(pool.values[mark == 1].sum())
        tolerance = problem.objective.tolerance * problem.k
        limit = self.max_polish
        if context.max_iterations is not None:
            limit = min(limit, max(0, context.max_iterations - steps))
        stop = StopReason.STAGNATION
        swaps = 0
        while abs(residual) > 0.5 * tolerance:
            if swaps >= limit:
                stop = StopReason.ITERATION
                break
            if context.deadline.expired():
                stop = StopReason.TIME
                break
            i, j = _best_swap(pool, mark, residual)
            step = float(pool.values[j] - pool.values[i]) if i >= 0 else 0.0
            if i < 0 or abs(residual - step) >= abs(residual):
                break
            mark[i], mark[j] = 0, 1
            residual -= step
            swaps += 1
        else:
            stop = StopReason.TARGET
        return pool.indices(np.flatnonzero(mark)), swaps, stop


def _relax(
    problem: Problem, objective: MeanMatching, context: SolveContext
) -> tuple[NDArray[np.float64], float, int, StopReason]:
    """Run Frank-Wolfe with exact line search; return weights, gap and oracle calls."""
    share = 1.0 / problem.k
    # Squares of losses overflow or vanish long before the losses do.
    unit = objective.scale if objective.scale > _TINY else 1.0
    values, target = objective.values / unit, objective.target / unit
    enough = 0.5 * (objective.tolerance / unit) ** 2
    weights = np.zeros(problem.n)
    weights[random_subset(problem, context.generator())] = share
    limit = 50 if context.max_iterations is None else context.max_iterations
    gap = np.inf
    for step in range(limit):
        if context.deadline.expired():
            return weights, gap * unit * unit, step, StopReason.TIME
        residual = target - float(weights @ values)
        vertex = problem.constraints.greedy_by(-residual * values)
        assert not isinstance(vertex, str)
        direction = -weights
        direction[vertex] += share
        slope = float(direction @ values)
        # The gap is <gradient, w - vertex>; the gradient is -residual * values.
        gap = max(residual * slope, 0.0)
        if gap <= enough or slope == 0.0:
            return weights, gap * unit * unit, step + 1, StopReason.COMPLETED
        weights = weights + min(1.0, residual / slope) * direction
    return weights, gap * unit * unit, limit, StopReason.COMPLETED


def _rounding_keys(weights: NDArray[np.float64], problem: Problem) -> NDArray[np.float64]:
    """Return greedy keys that keep the largest weights, and fill up when "at most" is exact."""
    return -weights if problem.cardinality == "at_most" else -weights - 1.0


def _best_swap(pool: Pool, mark: NDArray[np.uint8], residual: float) -> tuple[int, int]:
    """Return the best single swap that keeps every quota; (-1, -1) when there is none."""
    if not pool.codes.size:
        i, j, _ = best_single_swap(pool.values, mark, residual, 0.0)
        return int(i), int(j)
    best, error = (-1, -1), np.inf
    for code in range(pool.low.size):
        members = np.flatnonzero(pool.codes == code)
        if members.size == 0:
            continue
        i, j, _ = best_single_swap(pool.values[members], mark[members], residual, 0.0)
        if i >= 0:
            a, b = int(members[i]), int(members[j])
            off = abs(residual - float(pool.values[b] - pool.values[a]))
            if off < error:
                best, error = (a, b), off
    return best
