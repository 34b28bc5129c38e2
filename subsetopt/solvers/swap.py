"""Swap search: mean matching in microseconds and often with a proof, and vector matching."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.inputs import checked_choice, checked_count, checked_integer
from subsetopt.kernels.matching import swap as kernel
from subsetopt.kernels.matching.quotas import quota_nodes, span_work
from subsetopt.kernels.matching.swap_state import BUCKETS, MOVES, STATE, Subset, Table, reset
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.seeding import entropy_from, generator_from
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.matching.bounds import sum_distance
from subsetopt.solvers.matching.pool import Pool
from subsetopt.solvers.matching.starts import feasible_start, window_start
from subsetopt.solvers.vectors.swap_search import search as search_vectors
from subsetopt.status import StopReason

__all__ = [
    "CHUNK",
    "GOAL_SHARE",
    "RESTARTS",
    "UNSORTED_ABOVE",
    "Start",
    "Swap",
    "default_work",
    "unsorted_work",
]

Start = Literal["stratified", "random", "window"]

# How the kernel restarts where any subset is feasible, by the name of the start.
RESTARTS = {"stratified": kernel.STRATIFIED, "random": kernel.UNIFORM}
# Differences looked at between two looks at the clock, about 50 microseconds.
CHUNK = 8_000
# The share of the tolerance that a search aims at: rounding in the final check then cannot undo
# the proof.
GOAL_SHARE = 0.999
# The default work limit, about 2 ms at n = 128.
_DEFAULT_WORK = 300_000
_DEFAULT_WORK_PER_CANDIDATE = 64
# With more candidates than this, a uniform subset is led to the mean before anything is sorted.
UNSORTED_ABOVE = 4096
# The constant part of the work limit of that search: one table of moves and one start. If they do
# not reach the mean, further ones do not either, but a bound may prove it out of reach.
_UNSORTED_WORK = 30_000
# Work per value after which the bound is due. It takes about as long.
_BOUND_AFTER = 2
# Seconds that the bound takes under quotas for one value looked at by the lattice or a node.
_SECONDS_PER_LOOK = 4e-9
# The number of random swaps that restart a search from a window.
_WINDOW_KICK = 8
# The largest number of random swaps that restart a constrained search: they fit in one chunk.
_LARGEST_KICK = 4_000


def default_work(n: Any) -> Any:
    """Return the default work limit for n candidates, or an array of limits for one of counts."""
    return _DEFAULT_WORK + _DEFAULT_WORK_PER_CANDIDATE * n


def unsorted_work(n: Any, k: Any) -> Any:
    """Return the work limit of the search before sorting, or an array of limits."""
    return _UNSORTED_WORK + n // 4 + 2 * k


@dataclass(frozen=True, slots=True)
class Swap:
    """Local search over one to three swaps from a random start.

    For ``MeanMatching`` it draws a random loss-stratified subset and makes the fewest swaps that
    reach the tolerance, and restarts until that, the work limit or the deadline. Ties, integers and
    decimals are proved optimal by the lattice they lie on, and targets out of reach by the interval
    of sums.

    For ``VectorMatching`` it starts from a random feasible subset (where n is large against d, from
    the flight of the cube method, whose sum is nearly right). A step takes a random member out and
    the candidate in that leaves the least residual, found among vectors of fitting norm; it is
    accepted when its residual is not far above the least of the walk (record-to-record travel).

    Parameters
    ----------
    start
        ``"stratified"``: one uniform draw from each of k consecutive strata of the sorted losses;
        ``"random"``: a uniform subset, among more than 4,096 without sorting; ``"window"``: the
        contiguous window of the sorted losses whose mean is nearest the target. With quotas or
        costs, and for vectors, a random feasible subset.
    choices
        Number of subsets within tolerance from which the one with the least sum of squared losses
        is returned, at least 1. Astronomically many subsets match the mean, and those whose loss
        rests on many samples rather than one train better; each further one costs as much as the
        first. Without effect on vectors.
    looks
        For vectors, the largest number of looks at every vector, at least 1, whatever the other
        limits. A short search ends near the random subset that it started from. None searches
        until the work or the time is used up. Without effect on losses.

    Raises
    ------
    OptionError
        If ``start`` is none of these, or ``choices`` or ``looks`` below 1.

    Notes
    -----
    One iteration is one difference of two losses looked at, about 6 ns; the default is
    ``300,000 + 64 n``. For vectors it is one coordinate looked at, 0.1 to 0.3 ns; the default is
    ``4,000,000 + 200 n d``. Deterministic for a seed under a work limit. Memory O(n), O(n d) for
    vectors.

    References
    ----------
    Dong et al., One Backward from Ten Forward, eq. 5 (the problem). Dueck, New optimization
    heuristics: the great deluge algorithm and the record-to-record travel, J. Comp. Phys. 1993.
    Deville & Tillé, Efficient balanced sampling: the cube method, Biometrika 2004.
    """

    start: Start = "stratified"
    choices: int = 1
    looks: int | None = None

    def __post_init__(self) -> None:
        checked_integer("choices", self.choices, 1)
        checked_count("looks", self.looks)
        checked_choice("start", self.start, ("stratified", "random", "window"))

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found, with a proved lower bound."""
        if isinstance(problem.objective, VectorMatching):
            return search_vectors(problem, context, self.looks)
        limit, before = _work_limit(context, problem.n), 0
        if self._needs_no_order(problem, context):
            raw = _unsorted(problem, context, limit)
            ended = raw.stop_reason is not StopReason.ITERATION
            if ended or (limit is not None and raw.iterations >= limit):
                return raw
            before = raw.iterations
            context = replace(context, warm_start=raw.indices)
        pool = Pool.of(problem)
        search = _Search(problem, pool, self.start, context, context.entropy)
        if before:
            search.go_on(before)
        stop = search.run(context, limit)
        best, work = search.subset.best, search.work
        if self.choices > 1 and stop is StopReason.TARGET:
            best, work = self._calmest(problem, pool, context, search.subset.best, work)
        return RawResult(
            pool.indices(best),
            bound=search.bound / problem.k,
            stop_reason=stop,
            iterations=work,
        )

    def _needs_no_order(self, problem: Problem, context: SolveContext) -> bool:
        """Whether the problem has no constraints and enough candidates to search unsorted."""
        return (
            self.start == "random"
            and self.choices == 1
            and problem.n > UNSORTED_ABOVE
            and context.warm_start is None
            and not problem.constrained
            and problem.cardinality == "exact"
        )

    def _calmest(
        self,
        problem: Problem,
        pool: Pool,
        context: SolveContext,
        best: NDArray[np.int64],
        work: int,
    ) -> tuple[NDArray[np.int64], int]:
        """Return the subset with the least sum of squares among several, and the total work."""
        limit = _work_limit(context, problem.n)
        squares = _squares(pool, best)
        for number in range(1, self.choices):
            remaining = None if limit is None else limit - work
            if (remaining is not None and remaining <= 0) or context.deadline.expired():
                break
            entropy = entropy_from((context.entropy, number))
            search = _Search(problem, pool, self.start, context, entropy)
            stop = search.run(context, remaining)
            work += search.work
            if stop is StopReason.INTERRUPTED:
                break
            if stop is StopReason.TARGET and _squares(pool, search.subset.best) < squares:
                best, squares = search.subset.best, _squares(pool, search.subset.best)
        return best, work


def _squares(pool: Pool, positions: NDArray[np.int64]) -> float:
    """Return the sum of squared values at positions of a pool."""
    values = pool.values[positions]
    return float(values @ values)


def _work_limit(context: SolveContext, n: int) -> int | None:
    """Return the work limit, or None where only the clock limits."""
    if context.max_iterations is None and not context.deadline.limited:
        return int(default_work(n))
    return context.max_iterations


def _unsorted(problem: Problem, context: SolveContext, limit: int | None) -> RawResult:
    """Lead a uniform subset to the mean, which mostly takes less time than sorting."""
    pool = Pool.as_given(problem)
    search = _Search(problem, pool, "random", context, context.entropy)
    enough = unsorted_work(problem.n, problem.k)
    stop = search.run(context, enough if limit is None else min(limit, enough))
    # Every candidate stands at the position of its own number.
    return RawResult(search.subset.best, bound=0.0, stop_reason=stop, iterations=search.work)


class _Scratch(threading.local):
    """Tables and states that searches of this thread can use again.

    Fresh memory would cost page faults. A search takes a pair for itself and gives it back, so that
    a search started in the midst of another (by a clock or a signal handler) has a pair of its own.
    """

    def __init__(self) -> None:
        self.free: list[tuple[Table, NDArray[Any]]] = []

    def take(self) -> tuple[Table, NDArray[Any]]:
        """Return a table and a state with arbitrary contents."""
        if self.free:
            return self.free.pop()
        table = Table(
            heads=np.zeros(BUCKETS, dtype=np.int16),
            leaving=np.zeros(MOVES, dtype=np.int32),
            entering=np.zeros(MOVES, dtype=np.int32),
            gains=np.zeros(MOVES + 1, dtype=np.float64),
        )
        return table, np.zeros(1, dtype=STATE)


_scratch = _Scratch()


class _Search:
    """One search: the arrays that the kernel works on, and the bound."""

    __slots__ = (
        "bound",
        "bound_after",
        "pool",
        "problem",
        "rng",
        "state",
        "subset",
        "table",
        "tolerance",
        "work",
    )

    def __init__(
        self, problem: Problem, pool: Pool, start: Start, context: SolveContext, entropy: int
    ) -> None:
        self.problem, self.pool = problem, pool
        self.bound, self.work = 0.0, 0
        self.bound_after = _BOUND_AFTER * pool.values.size
        self.tolerance = problem.objective.tolerance * problem.k
        self.rng = np.array([entropy], dtype=np.uint64)
        m, size, limits = pool.values.size, pool.size, pool.limits
        self.subset = subset = Subset(
            chosen=np.empty(size, dtype=np.int64),
            rest=np.empty(m - size, dtype=np.int64),
            mark=np.empty(m, dtype=np.uint8),
            counts=np.zeros(limits.low.size, dtype=np.int64),
            best=np.empty(size, dtype=np.int64),
        )
        cost = 0.0
        initial = _initial(problem, pool, start, context, entropy)
        if initial is not None:
            subset.mark[:] = 0
            subset.mark[initial] = 1
            subset.chosen[:] = initial
            subset.rest[:] = np.flatnonzero(subset.mark == 0)
            if limits.codes.size:
                subset.counts[:] = np.bincount(limits.codes[initial], minlength=limits.low.size)
            if limits.costs.size:
                cost = limits.costs[initial].sum()
        kick = min(2 * size + 8, _LARGEST_KICK)
        restart = RESTARTS.get(start, _WINDOW_KICK) if pool.plain else kick
        self.table, self.state = _scratch.take()
        reset(
            self.state, pool.target, GOAL_SHARE * self.tolerance, pool.span, cost, restart,
            initial is not None, not pool.ascending,
        )  # fmt: skip

    def go_on(self, work: int) -> None:
        """Count the work of a search before this one; the bound is then due at once."""
        self.work = work
        self.state["work"] = work
        self.bound_after = 0

    def run(self, context: SolveContext, limit: int | None) -> StopReason:
        """Search until the goal, a limit or an interrupt, and leave the best in ``subset.best``."""
        chunk = CHUNK
        bounded = False
        search: Callable[..., int] = kernel.search
        pool, table, state = self.pool, self.table, self.state
        # Calls with plain tuples take less time than those with named ones.
        parts = tuple(self.subset), tuple(pool.limits), tuple(table)
        try:
            while True:
                if limit is not None and self.work:
                    if self.work >= limit:
                        return StopReason.ITERATION
                    chunk = min(CHUNK, limit - self.work)
                outcome = search(pool.values, *parts, state, self.rng, chunk)
                self.work = int(state["work"][0])
                if outcome == kernel.REACHED:
                    return StopReason.TARGET
                if not bounded and pool.ascending and self._bound_due(context.deadline):
                    bounded = True
                    if self._prove():
                        return StopReason.TARGET
                if outcome == kernel.STUCK:
                    return StopReason.STAGNATION
                if context.deadline.expired():
                    return StopReason.TIME
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED
        finally:
            _scratch.free.append((table, state))

    def _bound_due(self, deadline: Deadline) -> bool:
        """Whether to compute the bound now: after as much work as it takes, while there is time.

        Most searches end before. Under quotas the nodes of the bound take longer.
        """
        if self.work < self.bound_after:
            return False
        if not self.pool.limits.codes.size:
            return True
        m, groups = self.pool.values.size, self.pool.limits.low.size
        looks = 4 * m + quota_nodes(groups, m) * span_work(groups, m)
        return bool(deadline.remaining() >= _SECONDS_PER_LOOK * looks)

    def _prove(self) -> bool:
        """Compute the lower bound, lift the goal to it, and return whether the best reaches it."""
        self.bound = sum_distance(self.pool, 0.01 * self.tolerance)
        goal = self.bound + GOAL_SHARE * self.tolerance
        self.state["goal"] = goal
        return bool(self.state["best_distance"][0] <= goal)


def _initial(
    problem: Problem, pool: Pool, start: Start, context: SolveContext, entropy: int
) -> NDArray[np.int64] | None:
    """Return the positions to start from, or None where the kernel draws them itself."""
    if context.warm_start is not None:
        return pool.positions(context.warm_start, problem.n)
    if not pool.plain:
        return feasible_start(problem, pool, generator_from(entropy), context.deadline)
    return window_start(pool) if start == "window" else None
