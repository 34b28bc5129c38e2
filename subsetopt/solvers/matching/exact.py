"""Exact mean matching: branch and bound, dynamic programming, meet in the middle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.inputs import checked_count, checked_integer
from subsetopt.kernels.matching.branch import branch, open_distance
from subsetopt.kernels.matching.branch_constrained import (
    branch_constrained,
    open_constrained_distance,
)
from subsetopt.kernels.matching.meet_in_the_middle import list_sums, stream_chunk
from subsetopt.kernels.matching.nearest import nearest_completion
from subsetopt.kernels.matching.quotas import SPAN
from subsetopt.kernels.matching.reachable import reachable_table, walk_back
from subsetopt.kernels.matching.tree import NODE, PROGRESS, Tree
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.matching.bounds import sum_distance
from subsetopt.solvers.matching.lattice import LatticeForm
from subsetopt.solvers.matching.pool import Pool
from subsetopt.solvers.matching.starts import feasible_start
from subsetopt.status import StopReason

__all__ = ["Exact"]

# Nodes visited between two looks at the clock, which takes about 50 microseconds.
_CHUNK = 3_000
# Values looked at between two looks at the clock, under quotas or a capacity.
_CHUNK_OF_LOOKS = 15_000
# Values looked at for the bound that open nodes leave, once a search under quotas is stopped.
_OPEN_LOOKS = 50_000
# The default work limit takes about a tenth of a second.
_DEFAULT_WORK = 10_000_000
# Nodes visited before anything with a start-up cost is tried; they prove pools with outliers, and
# small ones.
_FIRST_BRANCH = 20_000
# With more values than this, and more than `_MEET_CHOSEN` of them chosen, there are more than a
# thousand million combinations to look at.
_MEET_SIZE = 50
# The number of chosen values that goes with `_MEET_SIZE`.
_MEET_CHOSEN = 10
# The largest number of combinations that are listed and sorted.
_LARGEST_LIST = 4_000_000
# The largest number of words of 64 bits in a table of reachable sums.
_LARGEST_TABLE = 8_000_000
# Most seconds per combination listed and sorted, which cannot be interrupted.
_SECONDS_PER_LISTED = 3e-7
# Most seconds per word of the table, which cannot be interrupted, either.
_SECONDS_PER_CELL = 4e-9
# Most seconds per combination whose sum is matched with the sorted ones.
_SECONDS_PER_STREAMED = 1.5e-8


class _LimitReachedError(Exception):
    """A limit was reached during some way of searching."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(reason.name)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Exact:
    """Prove the best match, by whichever way is the cheapest.

    Branch and bound on the values farthest from the median settles outliers, few distinct values,
    and every k or n - k up to 3 (its leaves are two-sums); a bitset dynamic program settles small
    integers and decimals; meet in the middle with cardinality settles n up to about 40, or k up to
    6 at n = 64. Stopped at any moment, it returns its best subset and a valid bound.

    Parameters
    ----------
    meet_limit
        Most combinations that meet in the middle may look at, at least 0; 0 turns it off. Each
        takes about 10 to 40 ns. It is not begun when the time limit leaves no room for all.
    branch_limit
        Most work of branch and bound after everything else, at least 0; None goes on to the limits
        of the call.

    Raises
    ------
    OptionError
        If a limit is not a nonnegative integer.

    Notes
    -----
    One iteration is one node, or one value or combination looked at; the default limit is ten
    million. With quotas or a capacity, branch and bound alone, at O(groups log(n)^2) per node,
    plus O(n) where the capacity is tight. Deterministic; the seed only matters for the start under
    quotas or a capacity.

    References
    ----------
    Horowitz & Sahni, Computing partitions with applications to the knapsack problem, J. ACM 1974.
    """

    meet_limit: int = 50_000_000
    branch_limit: int | None = None

    def __post_init__(self) -> None:
        checked_integer("meet_limit", self.meet_limit, 0)
        checked_count("branch_limit", self.branch_limit, 0)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the proved optimum, or the best subset and bound at the limit."""
        search = _Search(problem, context, self)
        reason = search.run()
        return RawResult(
            search.pool.indices(search.best),
            bound=max(0.0, search.bound - search.rounding) / problem.k,
            stop_reason=reason,
            iterations=search.work,
        )


class _Search:
    """The best subset, the bound and the limits that all ways of searching share.

    Values and bounds are distances of a sum from its target, k times those of the objective.
    """

    def __init__(self, problem: Problem, context: SolveContext, settings: Exact) -> None:
        self.problem, self.context, self.settings = problem, context, settings
        self.pool = pool = Pool.of(problem)
        self.tolerance = problem.objective.tolerance * problem.k
        self.rounding = 1e-14 * (float(np.abs(pool.values).sum()) + abs(pool.target))
        self.deadline: Deadline = context.deadline
        self.limit = context.max_iterations
        if self.limit is None and not self.deadline.limited:
            self.limit = _DEFAULT_WORK
        self.work = 0
        self.bound = 0.0
        self.best = self._start()
        self.value = np.array([self.distance(self.best)])

    def _start(self) -> NDArray[np.int64]:
        if self.context.warm_start is not None:
            return self.pool.positions(self.context.warm_start, self.problem.n)
        if not self.pool.plain:
            return feasible_start(self.problem, self.pool, self.context.generator(), self.deadline)
        chosen = np.empty(self.pool.size, dtype=np.int64)
        nearest_completion(self.pool.values, self.pool.target, chosen)
        return chosen

    def distance(self, positions: NDArray[np.int64]) -> float:
        """Return how far the sum of chosen positions is from the target."""
        return abs(math.fsum(self.pool.values[positions]) - self.pool.target)

    def run(self) -> StopReason:
        """Try the ways in order of cost until the gap is closed or a limit is reached."""
        try:
            self.look_at_the_clock()  # setting up takes long for many candidates
            self.raise_bound(sum_distance(self.pool, 0.01 * self.tolerance))
            if self.closed():
                return StopReason.TARGET
            self.look_at_the_clock()
            tree = _Branch(self)
            if not self.pool.plain:
                return self._finish(tree)
            for way in (partial(tree.run, _FIRST_BRANCH), self._reachable, self._meet):
                way()
                if self.closed():
                    return StopReason.COMPLETED
            return self._finish(tree)
        except _LimitReachedError as stop:
            return stop.reason
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED

    def _finish(self, tree: _Branch) -> StopReason:
        tree.run(self.settings.branch_limit)
        return StopReason.COMPLETED if self.closed() else StopReason.STAGNATION

    def raise_bound(self, bound: float) -> None:
        """Take over a proved lower bound."""
        self.bound = max(self.bound, bound)

    @property
    def goal(self) -> float:
        """The distance at which the best subset is proved optimal within tolerance."""
        return self.bound + 0.9 * self.tolerance

    def closed(self) -> bool:
        """Whether the best subset is proved."""
        return bool(self.value[0] <= self.goal)

    def offer(self, positions: NDArray[np.int64]) -> None:
        """Take over a subset when it is better."""
        value = self.distance(positions)
        if value < self.value[0]:
            self.value[0] = value
            self.best[:] = positions

    def spend(self, work: int) -> None:
        """Count work, and stop at a limit."""
        self.work += work
        if self.limit is not None and self.work >= self.limit:
            raise _LimitReachedError(StopReason.ITERATION)
        self.look_at_the_clock()

    def look_at_the_clock(self) -> None:
        """Stop at the time limit."""
        if self.deadline.expired():
            raise _LimitReachedError(StopReason.TIME)

    def affords(self, work: int, seconds: float) -> bool:
        """Whether work that cannot be interrupted fits into the limits."""
        within = self.limit is None or self.work + work <= self.limit
        return within and seconds <= 0.8 * self.deadline.remaining()

    def chunk(self, size: int = _CHUNK) -> int:
        """Return how much work may be done before the next look at the limits, at most ``size``."""
        return size if self.limit is None else max(1, min(size, self.limit - self.work))

    def _reachable(self) -> None:
        """Run a dynamic program over (count, sum) on the lattice of the values, if it is small."""
        pool = self.pool
        form = LatticeForm.of(pool.values)
        if form is None:
            return
        top = sum(form.units[pool.values.size - pool.size :].tolist())  # may exceed an int64
        words = top // 64 + 1
        cells = (pool.values.size + 1) * (pool.size + 1) * words
        if cells > _LARGEST_TABLE or not self.affords(cells // 8, cells * _SECONDS_PER_CELL):
            return
        table = np.zeros((pool.values.size + 1, pool.size + 1, words), dtype=np.uint64)
        reachable_table(form.units, pool.size, words, table)
        bits = np.unpackbits(table[-1, pool.size].view(np.uint8), bitorder="little")
        sums = np.flatnonzero(bits)
        offsets = pool.size * form.base + sums * form.step - pool.target
        nearest = int(np.argmin(np.abs(offsets)))
        self.offer(walk_back(form.units, pool.size, int(sums[nearest]), table))
        errors = np.sort(form.errors)
        above = max(0.0, float(errors[errors.size - pool.size :].sum()))
        below = min(0.0, float(errors[: pool.size].sum()))
        # The true sums lie within [below, above] of the lattice's.
        outside = np.maximum(offsets + below, -(offsets + above))
        self.raise_bound(max(0.0, float(outside.min()) - self.rounding))
        self.spend(cells // 8)

    def _meet(self) -> None:
        """Run meet in the middle with cardinality, if the limits allow it."""
        pool = self.pool
        m = pool.values.size
        flip = 2 * pool.size > m
        size = m - pool.size if flip else pool.size
        if m > _MEET_SIZE and size > _MEET_CHOSEN:
            return  # counting that many combinations takes long, too
        target = math.fsum(pool.values) - pool.target if flip else pool.target
        half_a, half_b = np.arange(0, m, 2), np.arange(1, m, 2)
        counts = [c for c in range(size + 1) if c <= half_a.size and size - c <= half_b.size]
        sizes = [(math.comb(half_a.size, c), math.comb(half_b.size, size - c)) for c in counts]
        listed = max(min(pair) for pair in sizes)
        total = sum(max(pair) for pair in sizes)
        seconds = listed * _SECONDS_PER_LISTED + total * _SECONDS_PER_STREAMED
        if (
            total > self.settings.meet_limit
            or listed > _LARGEST_LIST
            or not self.affords(listed, seconds)
        ):
            return
        for c, (in_a, in_b) in zip(counts, sizes, strict=True):
            stored = (half_a, c, in_a) if in_a <= in_b else (half_b, size - c, in_b)
            streamed = (half_b, size - c) if in_a <= in_b else (half_a, c)
            self._meet_at(stored, streamed, target, flip)
            if self.closed():
                return
        self.raise_bound(float(self.value[0]))

    def _meet_at(
        self,
        stored: tuple[NDArray[np.int64], int, int],
        streamed: tuple[NDArray[np.int64], int],
        target: float,
        flip: bool,
    ) -> None:
        """Match the sums of one half, sorted, with those of the other, streamed.

        Parameters
        ----------
        stored
            Positions of the half that is sorted, how many of them to choose, and the number of
            such combinations.
        streamed
            Positions of the other half, and how many of them to choose.
        target
            The sum to hit.
        flip
            Whether the positions found are those to leave out.
        """
        values = self.pool.values
        half, count, total = stored
        sums = list_sums(values[half], count, total)
        order = np.argsort(sums)
        sums = sums[order]
        self.spend(total)
        other, other_count = streamed
        stream = np.ascontiguousarray(values[other])
        comb = np.arange(other_count)
        best = np.empty(other_count, dtype=np.int64)
        done = False
        while not done:
            _, match, looked, done = stream_chunk(
                stream, comb, sums, target, float(self.value[0]), best, self.goal, self.chunk()
            )
            if match >= 0:
                completion = half[unrank(int(order[match]), half.size, count)]
                chosen = np.concatenate([completion, other[best]])
                if flip:
                    chosen = np.setdiff1d(np.arange(values.size), chosen)
                self.offer(chosen)
            self.spend(looked)


class _Branch:
    """The search tree of one pool, which can be interrupted and continued."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        pool = search.pool
        m, groups = pool.values.size, pool.limits.low.size
        self.tree = tree = Tree(
            nodes=np.zeros(m + 2, dtype=NODE),
            progress=np.zeros(1, dtype=PROGRESS),
            best=search.best,
            distance=search.value,
            counts=np.zeros(groups, dtype=np.int64),
            spans=np.zeros(groups, dtype=SPAN),
        )
        root = tree.nodes[0]
        root["end"], root["size"], root["target"], root["taken"] = m, pool.size, pool.target, -1
        tree.progress["center"] = pool.values[m // 2]
        tree.progress["slack"] = self.slack

    def run(self, limit: int | None) -> None:
        """Search until the tree is exhausted, the gap closed or ``limit`` work done."""
        search = self.search
        started = search.work
        try:
            while True:
                work, finished = self._step()
                exhausted = finished and self._depth < 0
                if exhausted or search.closed():
                    if exhausted:
                        search.raise_bound(float(search.value[0]) - self.slack)
                    search.work += work
                    return
                search.spend(work)
                if limit is not None and search.work - started >= limit:
                    return
        finally:
            search.raise_bound(self._open_bound())

    @property
    def slack(self) -> float:
        """Half a tolerance; a subset that is better by less is not looked for."""
        return 0.5 * self.search.tolerance

    @property
    def _depth(self) -> int:
        """Depth of the present node; -1 once the tree is exhausted."""
        return int(self.tree.progress["depth"][0])

    def _step(self) -> tuple[int, bool]:
        """Search until the next look at the limits; return the work, and whether it is finished."""
        search, pool, progress = self.search, self.search.pool, self.tree.progress
        before = int(progress["work"][0])
        progress["goal"] = search.goal
        if pool.plain:
            finished = branch(pool.values, pool.groups.sums, self.tree, search.chunk())
        else:
            finished = branch_constrained(
                pool.values, pool.kinds, pool.limits, pool.groups, pool.by_cost, self.tree,
                search.chunk(_CHUNK_OF_LOOKS),
            )  # fmt: skip
        return int(progress["work"][0]) - before, bool(finished)

    def _open_bound(self) -> float:
        """Return the lower bound that the open nodes leave."""
        search, pool = self.search, self.search.pool
        if self._depth < 0:
            return 0.0
        if pool.plain:
            open_ = open_distance(pool.values, pool.groups.sums, self.tree)
        else:
            open_ = open_constrained_distance(
                pool.values, pool.kinds, pool.limits, pool.groups, self.tree, _OPEN_LOOKS
            )
        # A branch that was cut holds no subset better than the best by more than the slack.
        return min(float(open_), float(search.value[0]) - self.slack)


def unrank(index: int, m: int, size: int) -> NDArray[np.int64]:
    """Return the combination of ``size`` out of ``m`` at an index in lexicographic order."""
    chosen = np.empty(size, dtype=np.int64)
    candidate = 0
    for place in range(size):
        while True:
            following = math.comb(m - candidate - 1, size - place - 1)
            if index < following:
                break
            index -= following
            candidate += 1
        chosen[place] = candidate
        candidate += 1
    return chosen
