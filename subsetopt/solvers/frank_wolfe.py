"""Frank-Wolfe, plain, with away steps and pairwise: the relaxation, a rounding, a polish."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import OutOfTimeError
from subsetopt.constraints.partial_subset import Partial, seconds_to_complete
from subsetopt.constraints.subsets import affordable_subset, random_subset
from subsetopt.inputs import checked_integer
from subsetopt.kernels.matching.swap import best_single_swap
from subsetopt.objectives import MeanMatching, VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.matching.bounds import interval_distance
from subsetopt.solvers.matching.pool import Pool
from subsetopt.solvers.vectors.polytope import CappedSimplex, End, Variant, WeightedCone, minimize
from subsetopt.solvers.vectors.swap_search import descend, projection_bound
from subsetopt.solvers.vectors.units import divided
from subsetopt.status import StopReason

__all__ = ["AwayFrankWolfe", "FrankWolfe", "PairwiseFrankWolfe"]

_TINY = float(np.finfo(np.float64).tiny)
# What rounding may add to the relaxed value (in units of the scale); it is taken off the bound.
_ROUNDING = 1e-12
# Seconds per candidate that it takes to sort losses, and to order them under constraints.
_SORTING, _ORDERING = 1e-7, 3e-7
# Seconds per number of the vectors that reading them takes.
_READING = 1e-9


@dataclass(frozen=True, slots=True)
class _Relaxing:
    """What the three variants share: the option, and the steps from relaxation to polish."""

    variant: ClassVar[Variant]

    max_polish: int = 64

    def __post_init__(self) -> None:
        checked_integer("max_polish", self.max_polish, 0)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the rounded and polished subset."""
        return _solve(problem, context, self.variant, self.max_polish)


@dataclass(frozen=True, slots=True)
class FrankWolfe(_Relaxing):
    r"""Minimize the squared residual over a polytope, then round and polish.

    Uniform weights, over the capped simplex (``sum w <= 1`` with ``cardinality="at_most"``, quotas
    as bounds on sums):

    .. math:: \min_w \tfrac12 \bigl\| t - \textstyle\sum_i w_i v_i \bigr\|^2, \qquad
              0 \le w_i \le 1/k, \; \sum_i w_i = 1

    The linear oracle is a top-k, exact under quotas. The search starts at a random vertex, since
    the point ``w = 1/n`` would already be optimal and favor no sample. A capacity is left out of
    the relaxation. Rounding keeps the k largest weights, preferring cheap samples until the costs
    fit; swaps polish.

    Nonnegative weights, over the Hilbert coreset polytope :math:`w \ge 0, \sum_i \sigma_i w_i =
    \sigma / n` with :math:`\sigma_i = \|v_i\|` and :math:`\sigma = \sum_i \sigma_i`, until one
    more vertex would make more than k; a vertex after which quotas or the capacity could no longer
    be kept is passed over. The weights of the active vertices are then fitted again by nonnegative
    least squares.

    Parameters
    ----------
    max_polish
        Largest number of single swaps after rounding, at least 0. For vectors one swap counts as
        one look at every coordinate.

    Raises
    ------
    OptionError
        If ``max_polish`` is not a nonnegative integer.

    Notes
    -----
    ``extras["fw_gap"]`` is the Frank-Wolfe gap, in squared units of the losses or vectors. It
    certifies convergence to the relaxation only. For uniform weights the relaxation's residual,
    less the gap, is a bound; it is 0 unless the target is out of reach. One iteration is one call
    of the oracle or one swap; the default is 50 calls, or 2k if that is more.

    References
    ----------
    Jaggi, Revisiting Frank-Wolfe, ICML 2013. Campbell & Broderick, Automated scalable Bayesian
    inference via Hilbert coresets, JMLR 2019. Dong et al., One Backward from Ten Forward, eq. 5.
    """

    variant: ClassVar[Variant] = "plain"


@dataclass(frozen=True, slots=True)
class AwayFrankWolfe(_Relaxing):
    """Frank-Wolfe that may also walk away from its worst active vertex.

    As :class:`FrankWolfe`, except that a step leads away from an active vertex where that promises
    more than a step towards a new one. The gap then falls at a geometric rate.

    Parameters
    ----------
    max_polish
        As for :class:`FrankWolfe`.

    Raises
    ------
    OptionError
        If ``max_polish`` is not a nonnegative integer.

    References
    ----------
    Lacoste-Julien & Jaggi, On the global linear convergence of Frank-Wolfe optimization variants,
    NeurIPS 2015.
    """

    variant: ClassVar[Variant] = "away"


@dataclass(frozen=True, slots=True)
class PairwiseFrankWolfe(_Relaxing):
    """Frank-Wolfe that moves weight from its worst active vertex to the best vertex.

    As :class:`FrankWolfe`, except that a step changes two vertices and leaves the others alone,
    which keeps the weights sparse. The gap falls at a geometric rate. Option and reference are
    those of :class:`AwayFrankWolfe`.
    """

    variant: ClassVar[Variant] = "pairwise"


def _solve(problem: Problem, context: SolveContext, variant: Variant, max_polish: int) -> RawResult:
    """Relax, round, polish; a random subset where time is up before that begins."""
    try:
        return _relaxed(problem, context, variant, max_polish)
    except OutOfTimeError:
        chosen = random_subset(problem.constraints, context.generator(), context.deadline)
        return RawResult(chosen, stop_reason=StopReason.TIME)


def _relaxed(
    problem: Problem, context: SolveContext, variant: Variant, max_polish: int
) -> RawResult:
    """Relax, round, polish; raises OutOfTimeError where time is up before that begins."""
    objective = problem.objective
    assert isinstance(objective, (MeanMatching, VectorMatching))
    if isinstance(objective, MeanMatching):
        vectors, target = objective.values[:, None], np.array([objective.target])
    else:
        vectors, target = objective.vectors, objective.target
    # The squares of large or small values overflow or vanish: solve in units of the scale.
    unit = max(objective.scale, float(np.abs(target).max(initial=0.0)))
    unit = unit if unit > _TINY else 1.0
    deadline = context.deadline.less(seconds_to_complete(problem.constraints))
    vectors, target = divided(vectors, unit, deadline), target / unit
    enough = 0.5 * (objective.tolerance / unit) ** 2
    if isinstance(objective, VectorMatching) and objective.weights == "nonnegative":
        cone = WeightedCone(problem, vectors, target, deadline)
        end = minimize(cone, variant, deadline, _limit(problem, context), enough)
        return _sparse(problem, end, unit)
    polytope = CappedSimplex(problem, vectors, target, context.generator(), deadline)
    end = minimize(polytope, variant, deadline, _limit(problem, context), enough)
    keys = _rounding_keys(end.weights)
    chosen = affordable_subset(problem.constraints, keys, context.deadline)
    steps, stop = end.steps, end.stop
    if stop is StopReason.COMPLETED:
        chosen, swaps, stop = _polish(problem, objective, chosen, context, steps, max_polish)
        steps += swaps
    bound = unit * math.sqrt(max(0.0, 2.0 * (end.value - end.gap) - _ROUNDING)) * (1.0 - _ROUNDING)
    if context.deadline.remaining() > _preparing_time(problem, objective):
        bound = max(bound, _own_bound(problem, objective, chosen))
    return RawResult(
        chosen,
        bound=bound,
        stop_reason=stop,
        iterations=steps,
        extras={"fw_gap": end.gap * unit * unit},
    )


def _sparse(problem: Problem, end: End, unit: float) -> RawResult:
    """Return the support of a sparse point of the cone; the objective fits its weights."""
    state = Partial(problem.constraints)
    for item in np.flatnonzero((end.weights > 0.0) & state.open):
        state.take(int(item))
    return RawResult(
        state.completed(),  # with the candidates that quotas still ask for
        stop_reason=end.stop,
        iterations=end.steps,
        extras={"fw_gap": end.gap * unit * unit},
    )


def _limit(problem: Problem, context: SolveContext) -> int:
    """Return the number of calls of the oracle."""
    return max(50, 2 * problem.k) if context.max_iterations is None else context.max_iterations


def _preparing_time(problem: Problem, objective: MeanMatching | VectorMatching) -> float:
    """Return about how many seconds it takes to prepare swaps, or the bound, of a subset."""
    if isinstance(objective, MeanMatching):
        return (_ORDERING if problem.constrained else _SORTING) * problem.n
    return float(_READING * objective.n * objective.d)


def _own_bound(
    problem: Problem, objective: MeanMatching | VectorMatching, chosen: NDArray[np.int64]
) -> float:
    """Return the bound by the interval of reachable sums."""
    if isinstance(objective, MeanMatching):
        return interval_distance(problem, Pool.of(problem)) / problem.k
    return projection_bound(problem, objective, chosen)


def _polish(
    problem: Problem,
    objective: MeanMatching | VectorMatching,
    chosen: NDArray[np.int64],
    context: SolveContext,
    steps: int,
    limit: int,
) -> tuple[NDArray[np.int64], int, StopReason]:
    """Make swaps until none helps or a limit is reached."""
    if context.deadline.remaining() < _preparing_time(problem, objective):
        return chosen, 0, StopReason.TIME
    if context.max_iterations is not None:
        limit = min(limit, max(0, context.max_iterations - steps))
    if isinstance(objective, MeanMatching) and problem.costs is None:
        return _polish_scalar(problem, chosen, context, limit)
    if limit == 0:
        return chosen, 0, StopReason.ITERATION
    if isinstance(objective, MeanMatching):
        objective = VectorMatching(objective.values[:, None], target=[objective.target])
        problem = _with(problem, objective)
    size = objective.n * objective.d
    chosen, work, stop = descend(problem, chosen, context, limit * size)
    return chosen, min(limit, -(-work // max(size, 1))), stop


def _with(problem: Problem, objective: VectorMatching) -> Problem:
    """Return the problem with another objective; the swaps of vectors can keep to a capacity."""
    return Problem(
        objective, problem.k, problem.cardinality, problem.include, problem.exclude,
        problem.groups, problem.quotas, problem.costs, problem.capacity,
    )  # fmt: skip


def _polish_scalar(
    problem: Problem, chosen: NDArray[np.int64], context: SolveContext, limit: int
) -> tuple[NDArray[np.int64], int, StopReason]:
    """Make the best single swap, within groups, until none helps."""
    pool = Pool.of(problem)
    mark = np.zeros(pool.values.size, dtype=np.uint8)
    mark[pool.positions(chosen, problem.n)] = 1
    residual = pool.target - float(pool.values[mark == 1].sum())
    tolerance = problem.objective.tolerance * problem.k
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


def _rounding_keys(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return keys from -1 to 0 by which the greedy keeps the largest weights."""
    largest = float(weights.max(initial=0.0))
    return -weights / largest if largest > 0.0 else -weights


def _best_swap(pool: Pool, mark: NDArray[np.uint8], residual: float) -> tuple[int, int]:
    """Return the best single swap that keeps every quota; (-1, -1) when there is none."""
    if not pool.limits.codes.size:
        i, j, _ = best_single_swap(pool.values, mark, residual, 0.0)
        return int(i), int(j)
    best, smallest = (-1, -1), np.inf
    for code in range(pool.limits.low.size):
        members = np.flatnonzero(pool.limits.codes == code)
        if members.size == 0:
            continue
        i, j, _ = best_single_swap(pool.values[members], mark[members], residual, 0.0)
        if i >= 0:
            a, b = int(members[i]), int(members[j])
            error = abs(residual - float(pool.values[b] - pool.values[a]))
            if error < smallest:
                best, smallest = (a, b), error
    return best
