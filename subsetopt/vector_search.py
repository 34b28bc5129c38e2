"""Swap search for vector matching with uniform weights, and what it shares with other solvers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels import vector_swap as kernel
from subsetopt.kernels.cone import correlate
from subsetopt.kernels.flight import fly, land
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.starts import random_subset
from subsetopt.status import StopReason

__all__ = ["VectorPool", "descend", "projection_bound", "search"]

# Coordinates looked at between two looks at the clock: about 50 microseconds.
_CHUNK = 250_000
# The default work limit: about 2 ms at n = 128.
_DEFAULT_WORK = 4_000_000
_DEFAULT_WORK_PER_COORDINATE = 200
# A little below the tolerance, so that rounding in the final check cannot undo the proof.
_GOAL_SHARE = 0.999
# A flight leaves d + 1 of the points in between; with few more than that it decides nothing.
_POINTS_PER_COORDINATE = 8
_FLIGHT_SHARE = 0.6
_SECONDS_PER_FLIGHT_WORK = 1.8e-10
# Points looked at in one step while there is much to gain, at first.
_WINDOW = 256
_WINDOW_COORDINATES = 65_536
# How far above the least squared residual a walk may go, as exp((_UPHILL / d)**2): a ball of d
# dimensions gains volume with its radius the faster, the larger d is.
_UPHILL = 10.0
_NO_INTS = np.empty(0, dtype=np.int64)
_NO_FLOATS = np.empty(0, dtype=np.float64)
_TINY = float(np.finfo(np.float64).tiny)
_ROUNDING = 16 * float(np.finfo(np.float64).eps)


@dataclass(eq=False, slots=True)
class VectorPool:
    """Vectors to choose from in ascending order of their norms, and the sum to hit.

    Included candidates are taken out, and ``at_most`` is exact by zero vectors that stand for
    "one fewer", as in :class:`~subsetopt.pool.Pool`.

    Attributes
    ----------
    points, columns, norms
        Vectors (m, d) in units of ``unit``, the same as (d, m) float32, and their norms.
    unit
        What the vectors were divided by.
    items
        Candidate of each vector (m,); -1 for a zero vector.
    forced, size, target
        Candidates in every subset, how many to choose besides, and the sum they should have.
    codes, low, high, costs, capacity
        Constraints; empty, and infinity, without.
    """

    points: NDArray[np.float64]
    columns: NDArray[np.float32]
    norms: NDArray[np.float64]
    unit: float
    items: NDArray[np.int64]
    forced: NDArray[np.int64]
    size: int
    target: NDArray[np.float64]
    codes: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    costs: NDArray[np.float64]
    capacity: float

    @classmethod
    def of(cls, problem: Problem, objective: VectorMatching) -> VectorPool:
        """Return the pool of a problem whose constraints can be satisfied."""
        # Squares are taken in single precision.
        unit = objective.scale if objective.scale > _TINY else 1.0
        target = problem.k * objective.target
        if not problem.constrained and problem.cardinality == "exact":
            order = np.argsort(objective.norms)
            points, columns = _lay_out(objective, order, unit)
            return cls(
                points, columns, objective.norms[order] / unit, unit, order, _NO_INTS, problem.k,
                target / unit, _NO_INTS, _NO_INTS, _NO_INTS, _NO_FLOATS, math.inf,
            )  # fmt: skip
        return cls._constrained(problem, objective, target, unit)

    @classmethod
    def _constrained(
        cls, problem: Problem, objective: VectorMatching, target: NDArray[np.float64], unit: float
    ) -> VectorPool:
        rules = problem.constraints
        size = problem.k - rules.forced.size
        items = np.concatenate([np.full(size if rules.at_most else 0, -1), rules.free])
        norms = np.where(items >= 0, objective.norms[items], 0.0)
        order = np.argsort(norms, kind="stable")
        items = items[order]
        real = items >= 0
        codes = low = high = _NO_INTS
        if rules.codes is not None and rules.low is not None and rules.high is not None:
            settled = np.bincount(rules.codes[rules.forced], minlength=rules.low.size)
            low = np.maximum(rules.low - settled, 0)
            high = rules.high - settled
            high[-1] = items.size  # the free group, and the zero vectors
            codes = np.where(real, rules.codes[items], low.size - 1)
        costs, capacity = _NO_FLOATS, math.inf
        if rules.costs is not None:
            costs = np.where(real, rules.costs[items], 0.0)
            capacity = rules.capacity - math.fsum(rules.costs[rules.forced])
        points, columns = _lay_out(objective, items, unit)
        target = (target - objective.vectors[rules.forced].sum(axis=0)) / unit
        return cls(
            points, columns, norms[order] / unit, unit, items, rules.forced, size, target,
            codes, low, high, costs, capacity,
        )  # fmt: skip

    def indices(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the candidates that chosen positions stand for, forced ones too."""
        chosen = self.items[positions]
        return np.concatenate([self.forced, chosen[chosen >= 0]])

    def positions(self, indices: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return ``size`` positions that stand for a feasible subset of candidates."""
        where = np.full(n, -1, dtype=np.int64)
        real = np.flatnonzero(self.items >= 0)
        where[self.items[real]] = real
        chosen = where[indices]
        chosen = chosen[chosen >= 0]
        dummies = np.flatnonzero(self.items < 0)[: self.size - chosen.size]
        return np.concatenate([chosen, dummies])


def _lay_out(
    objective: VectorMatching, items: NDArray[np.int64], unit: float
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the vectors of some candidates by rows, and by columns in single precision."""
    points = np.empty((items.size, objective.d))
    columns = np.empty((objective.d, items.size), dtype=np.float32)
    kernel.lay_out(objective.vectors, items, unit, points, columns)
    return points, columns


class _Walk:
    """The state of one search: the arrays that the kernel works on."""

    def __init__(
        self,
        problem: Problem,
        objective: VectorMatching,
        pool: VectorPool,
        sel: NDArray[np.int64],
        entropy: int,
    ) -> None:
        self.problem, self.objective = problem, objective
        self.bound = 0.0
        m, d = pool.points.shape
        self.pool = pool
        self.best = sel.copy()
        self.ints = np.zeros(kernel.N_INTS, dtype=np.int64)
        self.floats = floats = np.zeros(kernel.N_FLOATS)
        goal = _GOAL_SHARE * problem.objective.tolerance * problem.k / pool.unit
        floats[kernel.F_GOAL] = goal * goal
        floats[kernel.F_CAPACITY] = pool.capacity
        self.ints[kernel.I_WIDTH] = max(_WINDOW, _WINDOW_COORDINATES // max(d, 1))
        floats[kernel.F_THRESHOLD] = math.exp(min(2.0, (_UPHILL / max(d, 1)) ** 2))
        count = _NO_INTS
        if pool.codes.size:
            count = np.bincount(pool.codes[sel], minlength=pool.low.size)
        if pool.costs.size:
            floats[kernel.F_COST] = pool.costs[sel].sum()
        self.arrays = (
            pool.points,
            pool.columns,
            pool.norms,
            pool.target,
            sel,
            self.best,
            np.zeros(m, dtype=np.float32),
            np.empty(m, dtype=np.float32),
            np.empty(d),
            np.empty(d, dtype=np.float32),
            self.ints,
            floats,
            np.array([entropy], dtype=np.uint64),
            pool.codes,
            pool.low,
            pool.high,
            count,
            pool.costs,
        )

    def run(self, context: SolveContext, limit: int | None) -> StopReason:
        """Search until the goal, a limit or an interrupt; the best positions stay in ``best``."""
        if self.pool.size == 0:
            return StopReason.COMPLETED
        chunk = _CHUNK
        try:
            while True:
                done = int(self.ints[kernel.I_WORK])
                if limit is not None and done:
                    if done >= limit:
                        return StopReason.ITERATION
                    chunk = min(_CHUNK, limit - done)
                outcome = kernel.search(*self.arrays, chunk)
                if outcome == kernel.REACHED or (not done and self._prove()):
                    return StopReason.TARGET
                if outcome == kernel.STUCK:
                    return StopReason.STAGNATION
                if context.deadline.expired():
                    return StopReason.TIME
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED

    def _prove(self) -> bool:
        """Find a lower bound by the residual's direction; tell whether the best is there."""
        chosen = self.pool.indices(self.best)
        self.bound = projection_bound(self.problem, self.objective, chosen)
        goal = self.bound + _GOAL_SHARE * self.objective.tolerance
        self.floats[kernel.F_GOAL] = (goal * self.problem.k / self.pool.unit) ** 2
        return bool(self.floats[kernel.F_BEST] <= self.floats[kernel.F_GOAL])


def _flight_work(pool: VectorPool) -> int:
    """Return the work of a flight: a product and an update of a square matrix for every point."""
    m, d = pool.points.shape
    return 4 * int(m) * int(d + 1) ** 2


def _flies(problem: Problem, pool: VectorPool, context: SolveContext, limit: int | None) -> bool:
    """Whether a flight is possible, of use, and well within the limits."""
    m, d = pool.points.shape
    plain = not problem.constrained and problem.cardinality == "exact"
    if not plain or m < _POINTS_PER_COORDINATE * (d + 1):
        return False
    work = _flight_work(pool)
    if limit is not None:
        return work <= _FLIGHT_SHARE * limit
    return work * _SECONDS_PER_FLIGHT_WORK <= _FLIGHT_SHARE * context.deadline.remaining()


def _flown(pool: VectorPool, context: SolveContext) -> NDArray[np.int64] | None:
    """Return positions by the flight of the cube method; None when time ran out."""
    m, d = pool.points.shape
    weights = np.full(m, pool.size / m)
    basis, inverse = np.full(d + 1, -1), np.eye(d + 1)
    rng = np.array([context.entropy], dtype=np.uint64)
    batch = max(1, 4 * _CHUNK // (4 * (d + 1) ** 2))
    for last in range(m, 0, -batch):
        fly(pool.points, weights, basis, inverse, max(0, last - batch), last, rng)
        if context.deadline.expired():
            return None
    chosen = np.empty(pool.size, dtype=np.int64)
    land(weights, pool.size, chosen)
    return chosen


def search(problem: Problem, context: SolveContext) -> RawResult:
    """Search by swaps until the tolerance, the work limit or the deadline."""
    objective = problem.objective
    assert isinstance(objective, VectorMatching)
    pool = VectorPool.of(problem, objective)
    limit = context.max_iterations
    if limit is None and not context.deadline.limited:
        limit = _DEFAULT_WORK + _DEFAULT_WORK_PER_COORDINATE * pool.points.size
    start, spent = context.warm_start, 0
    positions = None
    if start is None and _flies(problem, pool, context, limit):
        spent = _flight_work(pool)
        positions = _flown(pool, context)
    if positions is None:
        if start is None:
            start = random_subset(problem, context.generator(), context.deadline)
        positions = pool.positions(start, problem.n)
    walk = _Walk(problem, objective, pool, positions, context.entropy)
    stop = walk.run(context, None if limit is None else max(0, limit - spent))
    return RawResult(
        pool.indices(walk.best),
        bound=walk.bound,
        stop_reason=stop,
        iterations=spent + int(walk.ints[kernel.I_WORK]),
    )


def descend(
    problem: Problem, chosen: NDArray[np.int64], context: SolveContext, limit: int | None
) -> tuple[NDArray[np.int64], int, StopReason]:
    """Make improving swaps until none is left; return the subset, the work and why it ended."""
    objective = problem.objective
    assert isinstance(objective, VectorMatching)
    pool = VectorPool.of(problem, objective)
    walk = _Walk(problem, objective, pool, pool.positions(chosen, problem.n), context.entropy)
    walk.ints[kernel.I_DESCENT] = 1
    stop = walk.run(context, limit)
    return pool.indices(walk.best), int(walk.ints[kernel.I_WORK]), stop


def projection_bound(
    problem: Problem, objective: VectorMatching, chosen: NDArray[np.int64]
) -> float:
    r"""Return a lower bound on the residual of every feasible subset with weights ``1/k``.

    .. math:: \Bigl\| t - \tfrac1k \sum_{i \in S} v_i \Bigr\| \ge
              \min_{S'} \Bigl| u \cdot t - \tfrac1k \sum_{i \in S'} u \cdot v_i \Bigr|,
              \qquad \|u\| = 1

    The right side is bounded by the interval of reachable sums, exact under sizes and quotas; u is
    the direction of the residual of the subset found. Usually 0: where the residual could be made
    up from either side, no direction proves anything.
    """
    k = problem.k
    residual = objective.target - objective.vectors[chosen].sum(axis=0) / k
    largest = float(np.abs(residual).max()) if residual.size else 0.0
    if largest == 0.0:
        return 0.0
    residual = residual / largest
    direction = residual / math.sqrt(float(residual @ residual))
    # Not by BLAS: waking its threads costs more than the product.
    values = np.empty(problem.n)
    correlate(objective.vectors, direction, values)
    sums = [_extreme_sum(problem, values, sign) for sign in (1.0, -1.0)]
    if None in sums:
        return 0.0
    low, high = sums
    assert low is not None and high is not None
    target = k * float(objective.target @ direction)
    slack = _ROUNDING * objective.d * (abs(target) + k * float(objective.norms.max()))
    return max(0.0, low - target - slack, target + high - slack) / k if k else 0.0


def _extreme_sum(problem: Problem, values: NDArray[np.float64], sign: float) -> float | None:
    """Return the least sum of ``sign * values`` over sizes and quotas, capacity not counted."""
    keys = sign * values
    if not problem.constrained and problem.cardinality == "exact":
        if problem.k == problem.n:
            return float(keys.sum())
        return float(np.partition(keys, problem.k - 1)[: problem.k].sum())
    chosen = problem.constraints.greedy_by(keys)
    return None if isinstance(chosen, str) else float(keys[chosen].sum())
