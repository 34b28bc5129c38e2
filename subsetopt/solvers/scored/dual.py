"""The Lagrangian of scored matching: its minimum, and candidates to flip around it, by price."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.constraints.normal_form import Constraints
from subsetopt.constraints.quotas import GroupQuotas
from subsetopt.kernels import lagrangian as kernel
from subsetopt.objectives import ScoredMatching
from subsetopt.solvers.matching.lattice import LatticeForm

__all__ = ["Dual", "Flips", "Rules", "Units", "total_of"]

_ROUNDS = 200
# A quantum of the losses below this share of the window's width narrows it by nothing.
_COARSE = 1e-3
_ROUNDING = 256 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False, slots=True)
class Units:
    """Scores, losses and the window of their sums, in units in which they are near 1."""

    scores: NDArray[np.float64]
    losses: NDArray[np.float64]
    window: tuple[float, float]
    score_unit: float
    loss_unit: float  # negative where the losses are negated

    @classmethod
    def of(cls, objective: ScoredMatching, k: int) -> Units:
        """Return the numbers of an objective for subsets of size k, or at most k."""
        score_unit = float(np.abs(objective.scores).max(initial=0.0)) or 1.0
        loss_unit = objective.matching.scale or 1.0
        low, high = objective.window(k)
        return cls(
            objective.scores / score_unit,
            objective.losses / loss_unit,
            (low / loss_unit, high / loss_unit),
            score_unit,
            loss_unit,
        )

    def narrowed(self, objective: ScoredMatching, k: int) -> Units:
        """Return the same with the window where sums of k losses can lie, which takes sorting."""
        low, high = _narrowed(objective.window(k), objective.losses, k)
        return replace(self, window=(low / self.loss_unit, high / self.loss_unit))

    def mirrored(self) -> Units:
        """Return the same with the losses negated."""
        low, high = self.window
        return Units(self.scores, -self.losses, (-high, -low), self.score_unit, -self.loss_unit)


@dataclass(frozen=True, eq=False, slots=True)
class Dual:
    """The Lagrangian at its minimum: multiplier >= 0, an optimal subset, the bound."""

    units: Units
    multiplier: float
    chosen: NDArray[np.int64]
    bound: float

    @classmethod
    def minimize(cls, rules: Constraints, units: Units, deadline: Deadline) -> Dual | str | None:
        """Return the minimum of the dual, or why no subset lies within the band.

        Out of time, the bound is the best one known, or None is returned.
        """
        start = deadline.elapsed()
        lowest, highest = rules.greedy_by(units.losses), rules.greedy_by(-units.losses)
        if isinstance(lowest, str) or isinstance(highest, str):
            return str(lowest)
        first, last = total_of(units.losses, lowest), total_of(units.losses, highest)
        slack = _ROUNDING * (1.0 + float(np.abs(units.losses).sum()))
        if first > units.window[1] + slack or last < units.window[0] - slack:
            return "every subset has a mean loss outside the band"
        # Each further subset takes about half as long as the two above.
        deadline = deadline.less(0.5 * (deadline.elapsed() - start))
        if deadline.expired():
            return None
        free = rules.best_by(-units.scores)
        total = total_of(units.losses, free)
        if total < units.window[0]:
            units, lowest, total = units.mirrored(), highest, -total
        if total <= units.window[1]:
            return cls._at(units, 0.0, free)
        return cls._descend(rules, units, free, lowest, deadline)

    @classmethod
    def _descend(
        cls,
        rules: Constraints,
        units: Units,
        above: NDArray[np.int64],
        below: NDArray[np.int64],
        deadline: Deadline,
    ) -> Dual:
        """Intersect the lines of a subset above the band and one below until none is better."""
        scores, losses, high = units.scores, units.losses, units.window[1]
        best: Dual | None = None
        for _ in range(_ROUNDS):
            width = total_of(losses, above) - total_of(losses, below)
            rise = total_of(scores, above) - total_of(scores, below)
            multiplier = max(0.0, rise / width) if width > 0.0 else 0.0
            if not math.isfinite(multiplier) or deadline.expired():
                break
            trial = rules.best_by(multiplier * losses - scores)
            dual = cls._at(units, multiplier, trial)
            if best is None or dual.bound < best.bound:
                best = dual
            line = cls._at(units, multiplier, above).bound
            if dual.bound <= line + _ROUNDING * (1.0 + abs(line)):
                break
            if total_of(losses, trial) > high:
                above = trial
            else:
                below = trial
        return best or cls._at(units, 0.0, above)

    @classmethod
    def _at(cls, units: Units, multiplier: float, chosen: NDArray[np.int64]) -> Dual:
        reduced = units.scores - multiplier * units.losses
        price = multiplier * units.window[1] if multiplier else 0.0
        return cls(units, multiplier, chosen, total_of(reduced, chosen) + price)

    def rounding(self) -> float:
        """Return how far rounding may have moved the bound."""
        high = abs(self.units.window[1]) if self.multiplier else 0.0
        magnitude = float(np.abs(self.units.scores).sum())
        magnitude += self.multiplier * (float(np.abs(self.units.losses).sum()) + high)
        return _ROUNDING * magnitude


@dataclass(frozen=True, eq=False, slots=True)
class Rules:
    """Constraints with groups and costs always there: one free group, costs of 0.

    Attributes
    ----------
    given
        The constraints.
    quotas
        How many candidates of each group a subset may have.
    costs, capacity
        Whole numbers times a power of two, near 1, so that their sums are exact.
    """

    given: Constraints
    quotas: GroupQuotas
    costs: NDArray[np.float64]
    capacity: float

    @classmethod
    def of(cls, given: Constraints) -> Rules:
        """Return the constraints completed."""
        quotas = GroupQuotas.unlimited(given.n) if given.quotas is None else given.quotas
        costs, capacity = np.zeros(given.n), math.inf
        if given.costs is not None:
            unit = math.ldexp(1.0, math.frexp(float(given.costs.mean()))[1])
            costs, capacity = given.costs / unit, given.capacity / unit
        return cls(given, quotas, costs, capacity)

    def fixed(self, item: int, inside: bool) -> Rules:
        """Return the constraints with one more candidate forced in, or left out."""
        free = self.given.free[self.given.free != item]
        forced = np.append(self.given.forced, item) if inside else self.given.forced
        return replace(self, given=replace(self.given, free=free, forced=forced))

    def counted(self, large: NDArray[np.bool_], count: int) -> Rules:
        """Return the constraints, which have no quotas, with so many of the large losses."""
        quotas = GroupQuotas.of(large, {True: (count, count)})
        return replace(self, given=replace(self.given, quotas=quotas), quotas=quotas)


class Flips:
    """Candidates to flip in or out of the dual's subset, by price, and an enumeration's state."""

    def __init__(self, rules: Rules, dual: Dual) -> None:
        units = dual.units
        self.rules, self.dual, self.chosen = rules, dual, dual.chosen
        inside = np.zeros(rules.given.n, dtype=np.bool_)
        inside[dual.chosen] = True
        prices = _prices(rules, inside, units.scores - dual.multiplier * units.losses)
        order = np.argsort(prices, kind="stable")
        self.items = items = rules.given.free[order]
        self.prices = prices = prices[order]
        signs = np.where(inside[items], -1, 1)
        moves, puts = signs * units.losses[items], signs > 0
        flips = kernel.Flips(
            prices,
            moves,
            signs * units.scores[items],
            signs,
            rules.quotas.codes[items],
            signs * rules.costs[items],
            np.concatenate([[0], np.cumsum(puts)]),
            np.concatenate([[0], np.cumsum(~puts)]),
            np.concatenate([[0.0], np.cumsum(prices[puts])]),
            np.concatenate([[0.0], np.cumsum(prices[~puts])]),
            *_reach(moves, prices),
        )
        size, total = rules.given.k, total_of(units.losses, dual.chosen)
        allowed = kernel.Allowed(
            np.array([units.window[0] - total, units.window[1] - total]),
            rules.capacity - total_of(rules.costs, dual.chosen),
            0 if rules.given.at_most else size,
            size,
            rules.quotas.low,
            rules.quotas.high,
        )
        self.base = total_of(units.scores, dual.chosen)
        self.span = float(prices.sum())
        m, counts = items.size, np.zeros(rules.quotas.size, dtype=np.int64)
        paid, moved, gained, spent = np.zeros((4, m + 1))
        self.state = kernel.Pass(
            np.zeros(1, dtype=kernel.PLACE),
            counts,
            np.zeros(m + 1, dtype=np.int64),
            paid,
            moved,
            gained,
            spent,
            np.full(m + 1, -1, dtype=np.int64),
        )
        self.arrays = (tuple(flips), tuple(allowed), tuple(self.state))
        self.restart()

    def restart(self) -> None:
        """Begin another pass, also in the midst of one."""
        self.state.counts[:] = self.rules.quotas.counts(self.chosen)
        self.state.place[0] = (0, 0, self.chosen.size)

    def visit(self, price: float, value: float, work: int) -> tuple[int, bool]:
        """Visit nodes of the pass; return how many, and whether it is complete.

        Parameters
        ----------
        price
            The total price that sets of the pass stay below.
        value
            The best score so far; sets that cannot beat it are left out.
        work
            Nodes to visit.
        """
        enumerate_flips: Callable[..., tuple[int, bool]] = kernel.enumerate_flips
        top = self.dual.bound - self.base
        visited, done = enumerate_flips(*self.arrays, value - self.base, price, top, work)
        return int(visited), bool(done)

    def found(self) -> NDArray[np.int64] | None:
        """Return the subset of the best set of flips, once."""
        best = self.state.best
        depth = int(best[-1])
        if depth < 0:
            return None
        best[-1] = -1
        return np.setxor1d(self.chosen, self.items[best[:depth]])

    def pivot(self) -> int:
        """Return the candidate with the largest loss of the two between which the dual breaks."""
        pair = self.items[:2]
        return int(pair[np.argmax(np.abs(self.dual.units.losses[pair]))])


def _reach(
    moves: NDArray[np.float64], prices: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far up, and down, flips from each position on move the sum per price at most."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(moves == 0.0, 0.0, moves / prices)
    up = np.maximum.accumulate(np.maximum(ratio, 0.0)[::-1])[::-1]
    down = np.maximum.accumulate(np.maximum(-ratio, 0.0)[::-1])[::-1]
    return np.ascontiguousarray(up), np.ascontiguousarray(down)


def _prices(
    rules: Rules, inside: NDArray[np.bool_], reduced: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what a flip of every free candidate loses at least.

    With group g's threshold t_g, between its worst candidate inside and its best outside, flips
    lose |reduced - t_g|. All groups share one threshold, but those at their lower quota may have
    a lower one and those at their upper quota a higher one: the dual of the quotas.
    """
    free = rules.given.free
    quotas = rules.quotas
    codes, within, value = quotas.codes[free], inside[free], reduced[free]
    worst, best = np.full(quotas.size, np.inf), np.full(quotas.size, -np.inf)
    np.minimum.at(worst, codes[within], value[within])
    np.maximum.at(best, codes[~within], value[~within])
    counts = quotas.counts(np.flatnonzero(inside))
    floor = float(best[counts < quotas.high].max(initial=-np.inf))
    ceiling = float(worst[counts > quotas.low].min(initial=np.inf))
    if rules.given.at_most:
        floor = max(floor, 0.0) if int(inside.sum()) == rules.given.k else 0.0
    shared = floor if math.isfinite(floor) else (ceiling if math.isfinite(ceiling) else 0.0)
    threshold = np.clip(shared, best, worst)[codes]
    prices: NDArray[np.float64] = np.where(within, value - threshold, threshold - value)
    return np.maximum(prices, 0.0)


def _narrowed(
    window: tuple[float, float], losses: NDArray[np.float64], k: int
) -> tuple[float, float]:
    """Return the part of a window where sums of k losses can lie: they may have a quantum.

    A sum is ``k base + t step`` with an integer t, and the rounding errors of k losses. The ends
    are moved to the outermost such sums; no sum is lost when they cross.
    """
    form = LatticeForm.of(np.sort(losses)) if k else None
    if form is None or form.step < _COARSE * (window[1] - window[0]):
        return window
    errors = np.sort(form.errors)
    below, above = float(errors[:k].sum()), float(errors[errors.size - k :].sum())
    slack = 1e-6 * form.step + _ROUNDING * float(np.abs(losses).sum())
    first = (window[0] - above - slack - k * form.base) / form.step
    last = (window[1] - below + slack - k * form.base) / form.step
    if not (math.isfinite(first) and math.isfinite(last)):
        return window
    low, high = (k * form.base + t * form.step for t in (math.ceil(first), math.floor(last)))
    return max(window[0], low + below - slack), min(window[1], high + above + slack)


def total_of(values: NDArray[np.float64], indices: NDArray[np.int64]) -> float:
    """Return the sum of some of the values."""
    return float(np.add.reduce(values[indices]))
