"""Swap search for vector matching with uniform weights, and what it shares with other solvers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline, OutOfTimeError
from subsetopt.constraints.remaining import ItemPool
from subsetopt.constraints.subsets import random_subset
from subsetopt.kernels.limits import UNLIMITED
from subsetopt.kernels.vectors import swap as kernel
from subsetopt.kernels.vectors.nnls import correlate
from subsetopt.kernels.vectors.products import LANES
from subsetopt.kernels.vectors.start import draw, lay_out
from subsetopt.kernels.vectors.state import STATE, First, Points, Scratch, Subset, Table
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.vectors.units import pieces, unit_of
from subsetopt.status import StopReason

__all__ = ["VectorPool", "descend", "projection_bound", "search"]

# Seconds per vector that sorting them takes.
_SORTING = 2e-7

# Units of work between two looks at the clock: 150 microseconds at n = 128 and d = 10, 12 at
# n = 4096 and d = 64.
_CHUNK = 250_000
# Fewest units of work between two looks, once little time is left.
_SHORT_CHUNK = 10_000
# The default work limit is a number of units, about 2 ms at n = 128, and some per coordinate.
_DEFAULT_WORK = 4_000_000
_DEFAULT_WORK_PER_COORDINATE = 200
# The goal is this share of the tolerance, so that rounding in the final check cannot undo a proof.
_GOAL_SHARE = 0.999
# At first, a step looks at no more points than _WINDOW, or than have _WINDOW_COORDINATES together.
_WINDOW = 256
_WINDOW_COORDINATES = 65_536
# A walk may go to exp((_UPHILL / d)**2) times its smallest squared residual, and at most to
# exp(_UPHILL_MOST) times: the larger d is, the faster a ball gains volume with its radius.
_UPHILL = 9.0
_UPHILL_MOST = 1.5
# At most this many inner products are kept, which are 64 MiB.
_KEPT = 1 << 24
# Inner products of vectors with fewer coordinates than this are not worth keeping.
_KEPT_COORDINATES = 4
# A target with an entry of more than this many mean norms, divided by n, sets the unit: the square
# of n times that has to be far below what single precision holds.
_BEYOND = 1e9
_NO_INTS = np.empty(0, dtype=np.int64)
_ROUNDING = 16 * float(np.finfo(np.float64).eps)


@dataclass(eq=False)
class VectorPool(ItemPool):
    """Vectors to choose from in ascending order of their norms, and the sum to hit.

    Attributes
    ----------
    columns, norms
        Vector at each position, shape (d, m), float32, in units of ``unit``, and its norm, shape
        (m,); 0 for a stand-in.
    unit
        What the vectors were divided by.
    target
        The sum to hit, shape (d,), in units of ``unit``: k times the objective's target, less the
        forced vectors.
    """

    columns: NDArray[np.float32]
    norms: NDArray[np.float64]
    unit: float
    target: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, objective: VectorMatching, deadline: Deadline) -> VectorPool:
        """Return the pool of a problem whose constraints can be satisfied.

        Raises OutOfTimeError where time is up before that.
        """
        if deadline.remaining() < _SORTING * problem.n:
            raise OutOfTimeError
        # Squares are taken in single precision.
        unit = unit_of(objective, _BEYOND / problem.n)
        if not problem.constrained and problem.cardinality == "exact":
            order = np.argsort(objective.norms)
            return cls(
                order, _NO_INTS, problem.k, UNLIMITED, _lay_out(objective, order, unit, deadline),
                objective.norms[order] / unit, unit,
                _sum_to_hit(problem, objective, _NO_INTS, unit),
            )  # fmt: skip
        return cls._constrained(problem, objective, unit, deadline)

    @classmethod
    def _constrained(
        cls, problem: Problem, objective: VectorMatching, unit: float, deadline: Deadline
    ) -> VectorPool:
        remaining = problem.constraints.remaining
        items = np.concatenate([remaining.stand_ins(), remaining.items])
        norms = remaining.gather(objective.norms, items, 0.0)
        order = np.argsort(norms, kind="stable")
        items = items[order]
        return cls(
            items, remaining.forced, remaining.size, remaining.limits(items),
            _lay_out(objective, items, unit, deadline), norms[order] / unit, unit,
            _sum_to_hit(problem, objective, remaining.forced, unit),
        )  # fmt: skip


def _sum_to_hit(
    problem: Problem, objective: VectorMatching, forced: NDArray[np.int64], unit: float
) -> NDArray[np.float64]:
    """Return k times the target less the forced vectors, in units, shape (d,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = problem.k * objective.target
        if forced.size:
            total = total - objective.vectors[forced].sum(axis=0)
    if np.isfinite(total).all():
        return np.asarray(total / unit)
    # The sums overflow: in units they do not, for every vector is at most n units long.
    vectors = objective.vectors[forced] / unit
    return np.asarray(problem.k * (objective.target / unit) - vectors.sum(axis=0))


def _lay_out(
    objective: VectorMatching, items: NDArray[np.int64], unit: float, deadline: Deadline
) -> NDArray[np.float32]:
    """Return the vectors of some candidates by columns in single precision."""
    columns = np.empty((objective.d, items.size), dtype=np.float32)
    for part in pieces((items.size, objective.d), deadline):
        lay_out(objective.vectors, items, 1.0 / unit, columns, part.start, part.stop)
    return columns


class _Walk:
    """The state of one search: the arrays that the kernel works on."""

    def __init__(
        self,
        problem: Problem,
        objective: VectorMatching,
        pool: VectorPool,
        members: NDArray[np.int64],
        rng: NDArray[np.uint64],
    ) -> None:
        self.problem, self.objective, self.pool = problem, objective, pool
        self.bound = 0.0
        d, m = pool.columns.shape
        points = Points(
            objective.vectors, pool.items, 1.0 / pool.unit, pool.columns, pool.norms, pool.target
        )
        subset = _subset(pool, members)
        scratch = Scratch(
            np.empty(m, dtype=np.float32),
            np.empty(d),
            np.empty(d, dtype=np.float32),
            np.empty(LANES, dtype=np.float32),
        )
        record = np.zeros(1, dtype=STATE)
        parts = (
            points,
            pool.limits,
            subset,
            _table(m, d, pool.size),
            scratch,
            First.of(pool.size, d),
        )
        self.arrays = (*(tuple(part) for part in parts), record, rng)
        self.best, self.state = subset.best, record[0]
        state = self.state
        goal = _GOAL_SHARE * problem.objective.tolerance * problem.k / pool.unit
        state["goal"] = goal * goal
        state["mean_width"] = -1.0
        state["window"] = max(_WINDOW, _WINDOW_COORDINATES // max(d, 1))
        state["threshold"] = math.exp(min(_UPHILL_MOST, (_UPHILL / max(d, 1)) ** 2))

    @property
    def work(self) -> int:
        """Return the work done so far."""
        return int(self.state["work"])

    def run(self, context: SolveContext, limit: int | None) -> StopReason:
        """Search until the goal, a limit or an interrupt; the best positions stay in ``best``."""
        if self.pool.size == 0:
            return StopReason.COMPLETED
        search: Callable[..., int] = kernel.search
        chunk, left = _CHUNK, context.deadline.remaining()
        try:
            while True:
                done = self.work
                if limit is not None and done:
                    if done >= limit:
                        return StopReason.ITERATION
                    chunk = min(chunk, limit - done)
                outcome = search(*self.arrays, chunk)
                if outcome == kernel.REACHED:
                    return StopReason.TARGET
                if outcome == kernel.STUCK:
                    return StopReason.STAGNATION
                if outcome == kernel.APPROACHED and self._prove():
                    return StopReason.TARGET
                if context.deadline.expired():
                    return StopReason.TIME
                before, left = left, context.deadline.remaining()
                chunk = _fitting(self.work - done, before - left, left)
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED

    def _prove(self) -> bool:
        """Find a lower bound by the residual's direction; tell whether the best is there."""
        if self.state["central"]:
            return False
        chosen = self.pool.indices(self.best)
        self.bound = projection_bound(self.problem, self.objective, chosen)
        goal = self.bound + _GOAL_SHARE * self.objective.tolerance
        reach = goal * self.problem.k / self.pool.unit
        # Not a power, which raises where a target lies far beyond all vectors: a product is inf.
        self.state["goal"] = reach * reach
        return bool(self.state["best"] <= self.state["goal"])


def _fitting(work: int, seconds: float, left: float) -> int:
    """Return how much work to do before the next look at the clock, the last having taken long.

    A unit of work takes several times as long in a small problem as in a large one.
    """
    if not seconds > 0.0:
        return _CHUNK
    return int(min(_CHUNK, max(_SHORT_CHUNK, work * left / seconds)))


def _subset(pool: VectorPool, members: NDArray[np.int64]) -> Subset:
    """Return the subset to start from, with what its members count and cost."""
    d, m = pool.columns.shape
    limits, counts, spent = pool.limits, _NO_INTS, np.zeros(1)
    if limits.codes.size:
        counts = np.bincount(limits.codes[members], minlength=limits.low.size)
    if limits.costs.size:
        spent[0] = limits.costs[members].sum()
    penalty = np.zeros(m, dtype=np.float32)
    return Subset(members, members.copy(), np.empty(d), penalty, counts, spent)


def _table(m: int, d: int, size: int) -> Table:
    """Return a table with rows for twice the members, if there is room and they pay."""
    rows = min(m, 2 * size + 64)
    if d < _KEPT_COORDINATES or rows * m > _KEPT or rows <= size + 1:
        rows = 0
    return Table(
        np.empty((rows, m), dtype=np.float32),
        np.full(m if rows else 0, -1),
        np.full(rows, -1),
        np.empty(m),
        np.empty(m, dtype=np.float32),
        np.empty(d, dtype=np.float32),
    )


def search(problem: Problem, context: SolveContext, looks: int | None = None) -> RawResult:
    """Search by swaps until the tolerance, the work limit or the deadline.

    ``looks`` limits the work, too, as the number of looks at every vector.
    """
    objective = problem.objective
    assert isinstance(objective, VectorMatching)
    try:
        pool = VectorPool.of(problem, objective, context.deadline)
    except OutOfTimeError:
        chosen = context.warm_start
        if chosen is None:
            chosen = random_subset(problem.constraints, context.generator(), context.deadline)
        return RawResult(chosen, stop_reason=StopReason.TIME)
    limit = context.max_iterations
    if limit is None and not context.deadline.limited:
        limit = _DEFAULT_WORK + _DEFAULT_WORK_PER_COORDINATE * pool.columns.size
    if looks is not None:
        most = looks * pool.columns.size
        limit = most if limit is None else min(limit, most)
    rng = np.array([context.entropy], dtype=np.uint64)
    walk = _Walk(problem, objective, pool, _start(problem, pool, context, rng), rng)
    stop = walk.run(context, limit)
    return RawResult(
        pool.indices(walk.best),
        bound=walk.bound,
        stop_reason=stop,
        iterations=walk.work,
    )


def _start(
    problem: Problem, pool: VectorPool, context: SolveContext, rng: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return the positions of the warm start, or of a random subset."""
    if context.warm_start is not None:
        return pool.positions(context.warm_start, problem.n)
    if problem.constrained or problem.cardinality != "exact":
        return pool.positions(random_subset(problem.constraints, context.generator()), problem.n)
    order = np.arange(problem.n)
    draw(pool.size, order, rng)
    return order[: pool.size].copy()


def descend(
    problem: Problem, chosen: NDArray[np.int64], context: SolveContext, limit: int | None
) -> tuple[NDArray[np.int64], int, StopReason]:
    """Make improving swaps until none is left; return the subset, the work and why it ended."""
    objective = problem.objective
    assert isinstance(objective, VectorMatching)
    try:
        pool = VectorPool.of(problem, objective, context.deadline)
    except OutOfTimeError:
        return chosen, 0, StopReason.TIME
    rng = np.array([context.entropy], dtype=np.uint64)
    walk = _Walk(problem, objective, pool, pool.positions(chosen, problem.n), rng)
    walk.state["descent"] = 1
    stop = walk.run(context, limit)
    return pool.indices(walk.best), walk.work, stop


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
