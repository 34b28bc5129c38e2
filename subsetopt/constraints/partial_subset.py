"""A subset that grows by one candidate at a time and stays completable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints

__all__ = ["Partial"]

_NONE = np.empty(0, dtype=np.int64)


class Partial:
    """A subset under construction, and which candidates may still be added."""

    def __init__(self, rules: Constraints) -> None:
        self.rules = rules
        self.left = rules.k - rules.forced.size
        self.open = np.zeros(rules.n, dtype=np.bool_)
        self.open[rules.free] = True
        self.mask = np.zeros(rules.n, dtype=np.bool_)
        self.mask[rules.forced] = True
        self.spent = 0.0 if rules.costs is None else float(rules.costs[rules.forced].sum())
        groups = 0 if rules.low is None else rules.low.size
        self.count = np.zeros(groups, dtype=np.int64)
        if rules.codes is not None:
            self.count += np.bincount(rules.codes[rules.forced], minlength=groups)

        # Under quotas and a capacity: what completes the subset at the least cost, once known.
        self.rest: NDArray[np.int64] | None = None

    def satisfied(self) -> bool:
        """Whether the lower quotas hold."""
        return self.rules.low is None or bool((self.count >= self.rules.low).all())

    def allowed(self) -> NDArray[np.int64]:
        """Return the candidates after which sizes, quotas and capacity can still be kept."""
        rules = self.rules
        if rules.unbound:
            return np.flatnonzero(self.open) if self.left > 0 else _NONE
        if rules.codes is None or rules.low is None or rules.high is None:
            return self._affordable()
        if rules.costs is not None:
            return self._affordable_within_quotas(rules.codes, rules.low, rules.high, rules.costs)
        lacking = np.maximum(rules.low - self.count, 0)
        fits = self.count < rules.high
        if lacking.sum() >= self.left:
            fits &= lacking > 0
        return np.flatnonzero(self.open & fits[rules.codes])

    def _affordable(self) -> NDArray[np.int64]:
        """Return the candidates with which the cheapest others fit into the capacity."""
        rules = self.rules
        assert rules.costs is not None
        candidates = np.flatnonzero(self.open)
        if candidates.size == 0 or self.left == 0:
            return _NONE
        # The cheapest way to fill the other slots.
        others = 0 if rules.at_most else self.left - 1
        pool = np.sort(rules.costs[self.open])[: others + 1]
        room = rules.capacity - self.spent
        costs = rules.costs[candidates]
        if pool.size <= others:
            return _NONE
        # Without the candidate itself the cheapest `others` are those of the rest.
        rest = pool[:others].sum() if others else 0.0
        own = costs <= (pool[others - 1] if others else -1.0)
        rest_without = np.where(own, rest + pool[others] - costs, rest)
        return candidates[costs + rest_without <= room]

    def _affordable_within_quotas(
        self,
        codes: NDArray[np.int64],
        low: NDArray[np.int64],
        high: NDArray[np.int64],
        costs: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """Return the candidates of which the cheapest completion fits into the capacity.

        The completions are the bases of a matroid: the cheapest one with a given candidate is the
        cheapest of all, that candidate exchanged for the dearest that may leave for it.
        """
        if self.rest is None:
            cheapest = self._cheapest()
            if isinstance(cheapest, str):
                return _NONE
            self.rest = cheapest[~self.mask[cheapest]]
        rest = self.rest
        count = self.count + np.bincount(codes[rest], minlength=low.size)
        dearest = np.full(low.size, -np.inf)
        np.maximum.at(dearest, codes[rest], costs[rest])
        # Where a group has more than it must, a candidate of any other group may take the place.
        saved = dearest[count > low].max(initial=-np.inf)
        if self.left > rest.size:
            saved = max(saved, 0.0)
        saved_by = np.where(count < high, np.maximum(dearest, saved), dearest)
        room = self.rules.capacity - self.spent - float(costs[rest].sum())
        allowed = self.open & (costs - saved_by[codes] <= room)
        allowed[rest] = True
        return np.flatnonzero(allowed)

    def _rest_after(self, pick: int, rest: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return what completes the subset most cheaply after a pick; None where unknown."""
        if (rest == pick).any():
            return np.asarray(rest[rest != pick])
        rules = self.rules
        assert rules.codes is not None and rules.low is not None and rules.high is not None
        assert rules.costs is not None
        codes, group = rules.codes[rest], rules.codes[pick]
        count = self.count + np.bincount(codes, minlength=rules.low.size)
        may = codes == group
        if count[group] < rules.high[group]:
            may |= (count > rules.low)[codes]
        if not may.any():
            return rest if self.left > rest.size else None
        gone = rest[np.argmax(np.where(may, rules.costs[rest], -np.inf))]
        return np.asarray(rest[rest != gone])

    def _cheapest(self) -> NDArray[np.int64] | str:
        """Return the completion of least cost, capacity not looked at, or why there is none."""
        grown = replace(self.rules, forced=self.chosen(), free=np.flatnonzero(self.open))
        return grown.cheapest

    def take(self, pick: int) -> None:
        """Add a candidate."""
        if self.rest is not None:
            self.rest = self._rest_after(pick, self.rest)
        self._move(pick, 1)

    def give_back(self, pick: int) -> None:
        """Take a candidate out again that :meth:`take` added."""
        self.rest = None
        self._move(pick, -1)

    def _move(self, pick: int, sign: int) -> None:
        self.mask[pick] = sign > 0
        self.open[pick] = sign < 0
        self.left -= sign
        if self.rules.codes is not None:
            self.count[self.rules.codes[pick]] += sign
        if self.rules.costs is not None:
            self.spent += sign * float(self.rules.costs[pick])

    def chosen(self) -> NDArray[np.int64]:
        """Return the subset."""
        return np.flatnonzero(self.mask)

    def completed(self) -> NDArray[np.int64] | None:
        """Return the subset with its cheapest completion, else the cheapest subset of all.

        None when there is no feasible subset at all. Where only what is allowed was taken, the
        completion is feasible, but for rounding of the costs.
        """
        rules = self.rules
        if self.satisfied() and (self.left == 0 or rules.at_most):
            chosen: NDArray[np.int64] | str = self.chosen()
        else:
            chosen = self._cheapest()
        if isinstance(chosen, str) or not rules.affords(chosen):
            chosen = rules.cheapest
        return None if isinstance(chosen, str) else chosen
