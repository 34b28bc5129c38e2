"""Lower bounds on the residual of mean matching that need no search."""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.matching import interval, quotas
from subsetopt.kernels.matching.lattice import lattice_distance
from subsetopt.kernels.matching.windows import Scratch
from subsetopt.objectives import MeanMatching
from subsetopt.problem import Problem
from subsetopt.solvers.matching.pool import KnownDistance, Pool

__all__ = ["interval_distance", "sum_distance"]

# Relative rounding of the sums that the bound is made of.
_ROUNDING = 64 * float(np.finfo(np.float64).eps)


def sum_distance(pool: Pool, useful_above: float) -> float:
    """Return a proved lower bound on ``|sum of a feasible subset of the pool - target|``.

    The larger of the lattice bound and the interval bound, which branches on outliers. A capacity
    is not looked at, which leaves the bound valid. The pool remembers the last answer.

    Parameters
    ----------
    pool
        The values and their target.
    useful_above
        Bounds up to this one are of no use to the caller, and may be returned as 0.
    """
    known = pool.distance
    if known is None or known.useful_above != useful_above:
        known = pool.distance = KnownDistance(useful_above, _sum_distance(pool, useful_above))
    return known.bound


def _sum_distance(pool: Pool, useful_above: float) -> float:
    values, size, target = pool.values, pool.size, pool.target
    bits, scratch = values.view(np.int64), Scratch.of(values.size)
    if not pool.limits.codes.size:
        return float(interval.plain_distance(values, bits, size, target, useful_above, scratch))
    lattice = lattice_distance(values, bits, size, target, useful_above, scratch)
    branched = quotas.quota_distance(values, pool.limits, pool.groups, size, target)
    return max(float(lattice), float(branched))


def interval_distance(problem: Problem, pool: Pool) -> float:
    """Return how far the target lies outside the interval of reachable sums; 0 inside.

    The interval is exact for sizes and quotas (the greedy is exact on a generalized matroid); a
    capacity is not looked at, which leaves the bound valid.
    """
    if not pool.limits.codes.size:
        return float(interval.interval_distance(pool.values, pool.size, pool.target))
    objective = problem.objective
    assert isinstance(objective, MeanMatching)
    smallest = problem.constraints.greedy_by(objective.values)
    largest = problem.constraints.greedy_by(-objective.values)
    if isinstance(smallest, str) or isinstance(largest, str):
        return 0.0
    values, forced = objective.values, float(objective.values[pool.forced].sum())
    low, high = float(values[smallest].sum()) - forced, float(values[largest].sum()) - forced
    magnitude = abs(pool.target) + float(np.abs(values).sum())
    return max(0.0, max(low - pool.target, pool.target - high) - _ROUNDING * magnitude)
