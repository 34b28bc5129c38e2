"""Scored matching by its Lagrangian: a dual bound and the cheapest exchanges near its optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.inputs import checked_integer
from subsetopt.kernels import lagrangian as kernel
from subsetopt.objectives import ScoredMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.scored.dual import Dual, Flips, Rules, Units, total_of
from subsetopt.status import StopReason

__all__ = ["Lagrangian"]

# Nodes of the enumeration, and pairs of the repair, between two looks at the clock; they take about
# 50 microseconds.
_NODES = 5_000
_PAIRS = 20_000
# Pairs that are looked at for one swap of the repair.
_SAMPLE = 4_096
# This many pairs take the time of one node.
_PAIRS_PER_NODE = 4
# The price below which sets are enumerated grows by this factor from pass to pass.
_WIDEN = 1.6
# Parts that the problem is split into, at most, where the root alone does not close it.
_PARTS = 24
# Splits that are tried for them, at most, and the nodes that take as long as one split.
_SPLITS, _NODES_PER_SPLIT = 40, 2_000
# Seconds per candidate that it takes to find what the losses are multiples of, and to order the
# candidates by price, with no look at the clock.
_NARROWING, _ORDERING = 2e-7, 2.5e-7
# The share of the time after which a subset within the band is no longer looked for first; pairs
# that are looked at for one swap of this search, and pairs in all, whatever the clock says: so many
# per candidate, and no more than take a millisecond.
_FIRST_SHARE = 0.5
_FIRST_SAMPLE = 256
_LEAST_PER_CANDIDATE, _LEAST = 2, 100_000
# Where a gap has at least this many losses on either side, the number of losses above it that are
# chosen is split by, rather than single ones.
_FEWEST = 2


@dataclass(frozen=True, slots=True)
class Lagrangian:
    r"""Search around the optimum of the Lagrangian, whose value bounds every subset.

    .. math:: D(\lambda) = \max_{z} \; (s - \lambda l) \cdot z + \max(\lambda U, \lambda L)

    with the band :math:`L \le l \cdot z \le U` relaxed and every size and quota kept: one greedy
    (a top-k) per :math:`\lambda`. D is convex and piecewise linear, and its minimum is found by
    intersecting the lines of the last subsets above and below the band. There every other subset
    is the optimal one with some candidates flipped in or out, each at a price of at least 0, its
    reduced score; the sum of the prices is what the subset loses against D at least. Sets of flips
    are enumerated by their total price, in passes under a growing limit: the first subset found
    within the band is near-optimal, and a completed pass tightens the bound by its limit. Where
    that does not end soon, the problem is split: by how many losses above the widest gap are
    chosen, then by single candidates. Where half of the work ends without a proof, swaps repair
    the subset into the band and improve it. Losses that are multiples of a number have sums that
    are, too, and the band is narrowed to these.

    Parameters
    ----------
    work
        Nodes of the enumeration, and as much for the repair, when neither a time limit nor
        ``max_iterations`` is given; at least 1.

    Raises
    ------
    OptionError
        If ``work`` is not an integer of at least 1.

    Notes
    -----
    Takes every constraint; a capacity is not in the Lagrangian, which leaves the bound valid. The
    bound is on the right side always; an enumeration that ends proves the optimum, or that no
    subset lies within the band. ``extras`` has the ``multiplier``. One iteration is a node, or
    four pairs of the repair. Deterministic for a seed under a work limit. Under a time limit the
    repair comes first, until a subset lies within the band; where there is no time for the
    Lagrangian of many candidates, there is no bound.

    References
    ----------
    Fisher, The Lagrangian relaxation method for solving integer programming problems, Management
    Science 1981.
    """

    work: int = 400_000

    def __post_init__(self) -> None:
        checked_integer("work", self.work, 1)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits, with the dual bound."""
        assert isinstance(problem.objective, ScoredMatching)
        search = _Search(problem, context, self.work)
        if search.complete and search.best is None:
            return RawResult(None, infeasible=True, extras={"why": search.why})
        try:
            stop = search.run()
        except KeyboardInterrupt:
            stop = StopReason.INTERRUPTED
        lacking = search.complete and search.best is None
        extras: dict[str, object] = {"why": search.why} if lacking else {}
        if search.root is not None and not lacking:
            extras["multiplier"] = search.multiplier(search.root)
        return RawResult(
            search.best,
            bound=search.bound(),
            stop_reason=stop,
            iterations=search.used,
            infeasible=lacking,
            extras=extras,
        )


class _Search:
    """The enumeration of flips around duals, of the whole problem and then of its parts."""

    def __init__(self, problem: Problem, context: SolveContext, default_work: int) -> None:
        assert isinstance(problem.objective, ScoredMatching)
        self.objective, self.k, self.context = problem.objective, problem.k, context
        self.rules = rules = Rules.of(problem.constraints)
        self.units = Units.of(self.objective, self.k)
        self.used = 0
        self.limit: int | None = context.max_iterations
        if self.limit is None and not context.deadline.limited:
            self.limit = 2 * default_work
        self.default_work = default_work
        self.best: NDArray[np.int64] | None = None
        self.root: Dual | None = None
        self.top = math.inf
        self.parts: list[Flips] = []
        self.turn = 0  # which part the pass is at
        self.price = 0.0  # what sets cost less than in this pass, against the top
        self.proved = 0.0  # what every subset but the best loses at least against the top
        self.complete = False
        self.why = "no subset lies within the band"
        if context.warm_start is not None:
            self.offer(context.warm_start)
        deadline = context.deadline
        if deadline.limited and self.best is None:
            self._find_first()
        if not rules.given.at_most and deadline.remaining() > _NARROWING * problem.n:
            self.units = self.units.narrowed(self.objective, self.k)
        if self.units.window[0] > self.units.window[1]:
            self.complete, self.why = True, "losses are multiples of a number, and the band of none"
            return
        if not deadline.expired():
            self._begin(Dual.minimize(rules.given, self.units, deadline))

    def _begin(self, root: Dual | str | None) -> None:
        """Set up the enumeration around the dual of the whole problem, as far as there is time."""
        if isinstance(root, str):
            self.complete, self.why = True, root
        elif root is not None:
            self.root, self.top = root, root.bound
            self.offer(root.chosen)
            if root.bound <= self.value():
                self.complete = True
            elif self._has_time():
                self.parts = [Flips(self.rules, root)]
                self.price = self._first_price()

    def _has_time(self) -> bool:
        """Whether there is time to put the candidates in the order of their prices."""
        return self.context.deadline.remaining() > _ORDERING * self.rules.given.n

    def run(self) -> StopReason:
        """Enumerate around the root, then in parts; repair; then enumerate on."""
        if not (self.complete or self.parts):
            return self._repair(1 << 62) if self.root is not None else StopReason.TIME
        work = self.default_work if self.limit is None else (self.limit + 1) // 2
        early = work // 16
        divisions = [self._count_large, self._split]
        for share in (early, early, work - 2 * early):
            stop = self._enumerate(share)
            if self.complete or stop is StopReason.TIME:
                return stop
            # Where no loss can be told to be large, single candidates are split by at once.
            while divisions and not divisions.pop(0)():
                pass
        stop = self._repair(work if self.limit is None else self.limit - self.used)
        if stop is StopReason.TIME or self.limit is not None:
            return stop
        return self._enumerate(1 << 62)

    def bound(self) -> float | None:
        """Return the proved bound, in the units of the scores; None where there is none."""
        if self.root is None or (self.complete and self.best is None):
            return None
        proved = self.top - self.value() if self.complete else self.proved
        return (self.top - proved + self.root.rounding()) * self.units.score_unit

    def multiplier(self, root: Dual) -> float:
        """Return the multiplier of the sum of losses, in score per loss."""
        units = root.units
        return root.multiplier * units.score_unit / units.loss_unit

    def value(self) -> float:
        """Return the score of the best subset in units; minus infinity without one."""
        return -math.inf if self.best is None else total_of(self.units.scores, self.best)

    def offer(self, indices: NDArray[np.int64]) -> None:
        """Keep a subset if it is feasible and better."""
        if total_of(self.units.scores, indices) <= self.value():
            return
        indices = np.sort(indices)
        broken = self.rules.given.violations(indices)
        if not broken and not self.objective.violations(indices, self.k):
            self.best = indices

    def _first_price(self) -> float:
        best = max(self.parts, key=lambda part: part.dual.bound)
        return max(float(best.prices[:6].sum()), 1e-12 * best.span)

    def _enumerate(self, work: int) -> StopReason:
        """Run passes under growing prices until all is proved or the work is done."""
        end = self.used + work
        while not self.complete:
            if self.top - self.value() <= self.proved:
                self.complete = True
                break
            if self.context.deadline.expired():
                return StopReason.TIME
            if self.used >= end:
                return StopReason.ITERATION
            part = self.parts[self.turn]
            price = self.price - (self.top - part.dual.bound)
            visited, done = part.visit(price, self.value(), min(_NODES, end - self.used))
            self.used += max(visited, 1)
            if (found := part.found()) is not None:
                self.offer(found)
            if done:
                self.turn += 1
                self._end_pass()
        return StopReason.COMPLETED

    def _end_pass(self) -> None:
        """After the last part: take the proof down, and begin again with a higher price."""
        if self.turn < len(self.parts):
            return
        self.proved = max(self.proved, min(self.price, self.top - self.value()))
        lowest = [self.price - (self.top - part.dual.bound) - part.span for part in self.parts]
        self.complete = min(lowest, default=1.0) > 0.0
        self._restart(self.price * _WIDEN if self.price > 0.0 else math.inf)

    def _restart(self, price: float) -> None:
        self.turn, self.price = 0, price
        for part in self.parts:
            part.restart()

    def _count_large(self) -> bool:
        """Split by how many of the large losses are chosen, where a wide gap tells them apart.

        Counts are tried outward from the root's. The minimum of the Lagrangian is concave in the
        count: a direction ends where it has fallen below the best score, or no subset is left.
        """
        large = self._large()
        if large is None:
            return False
        assert self.root is not None
        parts: list[Flips] = []
        start, end = int(large[self.root.chosen].sum()), min(self.k, int(large.sum()))
        for counts in (range(start, -1, -1), range(start + 1, end + 1)):
            before = -math.inf
            for count in counts:
                if len(parts) > _PARTS or self._spent():
                    return False
                rules = self.rules.counted(large, count)
                self.used += _NODES_PER_SPLIT
                dual = Dual.minimize(rules.given, self.units, self.context.deadline)
                if dual is None or self._spent_time():
                    return False
                if isinstance(dual, str):
                    if before > -math.inf:
                        break
                    continue
                self.offer(dual.chosen)
                if dual.bound > self.value():
                    parts.append(Flips(rules, dual))
                elif dual.bound <= before:
                    break
                before = dual.bound
        self._divide(parts)
        return True

    def _spent(self) -> bool:
        """Whether the work or the time is used up."""
        return (self.limit is not None and self.used >= self.limit) or self._spent_time()

    def _spent_time(self) -> bool:
        """Whether there is no time for another dual and its prices."""
        return self.context.deadline.limited and not self._has_time()

    def _large(self) -> NDArray[np.bool_] | None:
        """Return which losses lie above the widest gap; None where that tells nothing."""
        free, losses = self.rules.given.free, self.units.losses
        if self.rules.given.quotas is not None or free.size < 2 * _FEWEST:
            return None
        order = np.sort(losses[free])
        at = int(np.argmax(np.diff(order)))
        low, high = self.units.window
        if min(at + 1, free.size - at - 1) < _FEWEST or order[at + 1] - order[at] <= high - low:
            return None
        above: NDArray[np.bool_] = losses > order[at]
        return above

    def _split(self) -> bool:
        """Fix candidates in and out, best part first, where one large loss makes a dual weak."""
        leaves: list[Flips] = []
        for _ in range(_SPLITS):
            full = len(self.parts) + len(leaves) >= _PARTS
            if not self.parts or full or self._spent():
                break
            part = max(self.parts, key=lambda part: part.dual.bound)
            self.parts.remove(part)
            if part.items.size < 2:
                leaves.append(part)
                continue
            self.used += _NODES_PER_SPLIT
            halves = self._halves(part)
            if halves is None:
                leaves.append(part)
                break
            self.parts += halves
        self._divide(self.parts + leaves)
        return True

    def _halves(self, part: Flips) -> list[Flips] | None:
        """Return a part with one candidate fixed in, and out; None where time is up."""
        halves: list[Flips] = []
        for inside in (False, True):
            rules = part.rules.fixed(part.pivot(), inside)
            if self._spent_time():
                return None
            dual = Dual.minimize(rules.given, self.units, self.context.deadline)
            if dual is None:
                return None
            if isinstance(dual, str):
                continue
            self.offer(dual.chosen)
            if dual.bound > self.value():
                halves.append(Flips(rules, dual))
        return halves

    def _divide(self, parts: list[Flips]) -> None:
        """Go on with parts that hold every better subset."""
        self.parts = parts
        old, self.top = self.top, max([self.value()] + [part.dual.bound for part in parts])
        self.proved = max(0.0, self.proved - (old - self.top))
        if not parts:
            self.complete = True
            return
        self._restart(max(self._first_price(), _WIDEN * self.proved))

    def _find_first(self) -> None:
        """Repair a feasible subset until it is within the band, or a share of the time is up."""
        start = self.rules.given.cheapest
        assert not isinstance(start, str)
        self.offer(start)
        if self.best is not None:
            return
        repairing = _Repair(self, start, _FIRST_SAMPLE)
        deadline = self.context.deadline
        share = Deadline(_FIRST_SHARE * deadline.remaining(), deadline.clock)
        least = min(_LEAST_PER_CANDIDATE * self.rules.given.n, _LEAST)
        while self.best is None and not repairing.stuck:
            if repairing.looked >= least and share.expired():
                return
            self.used += repairing.run(min(_PAIRS, least))

    def _repair(self, work: int) -> StopReason:
        """Swap into the band and for score, from the best subset or the root's."""
        assert self.root is not None
        start = self.root.chosen if self.best is None else self.best
        repairing = _Repair(self, start, _SAMPLE)
        while work > 0 and not repairing.stuck:
            if self.context.deadline.expired():
                return StopReason.TIME
            spent = repairing.run(min(_PAIRS, work * _PAIRS_PER_NODE))
            self.used, work = self.used + spent, work - spent
        return StopReason.ITERATION


class _Repair:
    """Swaps from a subset into the band, and for score within it.

    Attributes
    ----------
    stuck
        Whether there is nothing to swap.
    looked
        Pairs looked at.
    """

    def __init__(self, search: _Search, start: NDArray[np.int64], sample: int) -> None:
        rules, units = search.rules, search.units
        self.search, self.sample, self.looked = search, sample, 0
        self.forced = rules.given.forced
        member, fixed = np.zeros((2, rules.given.n), dtype=np.bool_)
        member[start], fixed[self.forced] = True, True
        inside = np.flatnonzero(member & ~fixed)
        outside = rules.given.free[~member[rules.given.free]]
        self.stuck = not (inside.size and outside.size)
        self.best = inside.copy()
        self.score = search.value() - total_of(units.scores, self.forced)
        self.rng = np.array([search.context.entropy], dtype=np.uint64)
        counts = rules.quotas.counts(start)
        totals = np.array([total_of(units.losses, start), total_of(rules.costs, start)])
        window, k = np.array(units.window), rules.given.k
        self.arrays = (
            (units.scores, units.losses, rules.quotas.codes, rules.costs),
            (window, rules.capacity, 0, k, rules.quotas.low, rules.quotas.high),
            (inside, outside, counts, totals, self.best),
        )

    def run(self, pairs: int) -> int:
        """Look at some pairs and offer what is better; return the work in nodes."""
        repair: Callable[..., tuple[float, int]] = kernel.repair
        score, looked = repair(*self.arrays, self.score, self.rng, self.sample, pairs)
        self.looked += looked
        if score > self.score:
            self.score = score
            self.search.offer(np.concatenate([self.forced, self.best]))
        return -(-looked // _PAIRS_PER_NODE)
