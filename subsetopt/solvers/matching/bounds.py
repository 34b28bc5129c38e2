"""Lower bounds on the residual of mean matching that need no search."""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.matching import interval, quotas
from subsetopt.kernels.matching.lattice import lattice_distance
from subsetopt.objectives import MeanMatching
from subsetopt.problem import Problem
from subsetopt.solvers.matching.pool import Pool

__all__ = ["interval_distance", "sum_distance"]

_ROUNDING = 64 * float(np.finfo(np.float64).eps)


def sum_distance(pool: Pool, least: float) -> float:
    """Return a proved lower bound on ``|sum of a feasible subset of the pool - target|``.

    The larger of the lattice bound and the interval bound, which branches on outliers. Bounds not
    above ``least`` are of no use to the caller and may come back as 0. A capacity is not looked
    at, which leaves the bound valid. A pool remembers the answer for the last ``least``.
    """
    if pool.distance is None or pool.distance[0] != least:
        pool.distance = least, _sum_distance(pool, least)
    return pool.distance[1]


def _sum_distance(pool: Pool, least: float) -> float:
    bits = pool.values.view(np.int64)
    if not pool.codes.size:
        return float(interval.plain_distance(pool.values, bits, pool.size, pool.target, least))
    lattice = lattice_distance(pool.values, bits, pool.size, pool.target, least)
    branched = quotas.quota_distance(
        pool.values, pool.codes, *pool.groups, pool.low, pool.high, pool.size, pool.target
    )
    return max(float(lattice), float(branched))


def interval_distance(problem: Problem, pool: Pool) -> float:
    """Return how far the target lies outside the interval of reachable sums; 0 inside.

    The interval is exact for sizes and quotas (the greedy is exact on a generalized matroid); a
    capacity is not looked at, which leaves the bound valid.
    """
    if not pool.codes.size:
        return float(interval.interval_distance(pool.values, pool.size, pool.target))
    objective = problem.objective
    assert isinstance(objective, MeanMatching)
    smallest = problem.constraints.greedy_by(objective.values)
    largest = problem.constraints.greedy_by(-objective.values)
    if isinstance(smallest, str) or isinstance(largest, str):
        return 0.0
    values, settled = objective.values, float(objective.values[pool.forced].sum())
    low, high = float(values[smallest].sum()) - settled, float(values[largest].sum()) - settled
    magnitude = abs(pool.target) + float(np.abs(values).sum())
    return max(0.0, max(low - pool.target, pool.target - high) - _ROUNDING * magnitude)
