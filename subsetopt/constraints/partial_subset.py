"""A subset that grows by one candidate at a time and stays completable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints
from subsetopt.constraints.quotas import GroupQuotas

__all__ = ["Partial", "seconds_to_complete"]

_NONE = np.empty(0, dtype=np.int64)
# Seconds per candidate that completing a subset takes, and where there are quotas.
_COMPLETING, _WITHIN_QUOTAS = 3e-8, 1e-7


def seconds_to_complete(rules: Constraints) -> float:
    """Return about how many seconds to keep back under a time limit for completing a subset."""
    return rules.n * (_COMPLETING if rules.quotas is None else _WITHIN_QUOTAS)


class Partial:
    """A subset under construction, and which candidates may still be added.

    Attributes
    ----------
    rules, remaining
        The constraints, and what they leave to choose besides the forced candidates.
    slots
        How many candidates may still be added; exactly so many, unless the size is at most k.
    mask, open
        Whether each candidate is in the subset, and whether it may be added, shape (n,).
    counts
        How many candidates of each group were added, shape (groups,); empty without quotas.
    spent
        Total cost of the candidates that were added, in whole units.
    completion
        Under quotas and a capacity: what completes the subset at the least cost, once known.
    """

    def __init__(self, rules: Constraints) -> None:
        self.rules = rules
        self.remaining = remaining = rules.remaining
        self.slots = remaining.size
        self.open = np.zeros(rules.n, dtype=np.bool_)
        self.open[remaining.items] = True
        self.mask = np.zeros(rules.n, dtype=np.bool_)
        self.mask[remaining.forced] = True
        groups = 0 if remaining.quotas is None else remaining.quotas.size
        self.counts = np.zeros(groups, dtype=np.int64)
        self.spent = 0.0
        self.completion: NDArray[np.int64] | None = None

    def satisfied(self) -> bool:
        """Whether the lower quotas hold."""
        quotas = self.remaining.quotas
        return quotas is None or bool((self.counts >= quotas.low).all())

    def allowed(self) -> NDArray[np.int64]:
        """Return the candidates after which sizes, quotas and capacity can still be kept."""
        quotas, costs = self.remaining.quotas, self.remaining.costs
        if quotas is None:
            if costs is not None:
                return self._affordable(costs)
            return np.flatnonzero(self.open) if self.slots > 0 else _NONE
        if costs is not None:
            return self._affordable_within(quotas, costs)
        lacking = np.maximum(quotas.low - self.counts, 0)
        fits = self.counts < quotas.high
        if lacking.sum() >= self.slots:
            fits &= lacking > 0
        return np.flatnonzero(self.open & fits[quotas.codes])

    def _affordable(self, costs: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the candidates with which the cheapest others fit into the capacity."""
        candidates = np.flatnonzero(self.open)
        if candidates.size == 0 or self.slots == 0:
            return _NONE
        others = 0 if self.remaining.at_most else self.slots - 1
        own = costs[candidates]
        cheapest = np.sort(own)[: others + 1]
        if cheapest.size <= others:
            return _NONE
        # The cheapest ways to fill the other slots, with the candidate itself not among them.
        total = cheapest[:others].sum() if others else 0.0
        among = own <= (cheapest[others - 1] if others else -1.0)
        total_of_others = np.where(among, total + cheapest[others] - own, total)
        room = self.remaining.capacity - self.spent
        return candidates[own + total_of_others <= room]

    def _affordable_within(
        self, quotas: GroupQuotas, costs: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return the candidates whose cheapest completion fits into the capacity.

        The completions are the bases of a matroid: the cheapest one with a given candidate is the
        cheapest of all, that candidate exchanged for the dearest that may leave for it.
        """
        if self.completion is None:
            cheapest = self._cheapest()
            if isinstance(cheapest, str):
                return _NONE
            self.completion = cheapest[~self.mask[cheapest]]
        completion, codes = self.completion, quotas.codes
        counts = self.counts + quotas.counts(completion)
        dearest = np.full(quotas.size, -np.inf)
        np.maximum.at(dearest, codes[completion], costs[completion])
        # Where a group has more than it must, a candidate of any other group may take the place.
        saved = dearest[counts > quotas.low].max(initial=-np.inf)
        if self.slots > completion.size:
            saved = max(saved, 0.0)
        saved_by = np.where(counts < quotas.high, np.maximum(dearest, saved), dearest)
        room = self.remaining.capacity - self.spent - float(costs[completion].sum())
        allowed = self.open & (costs - saved_by[codes] <= room)
        allowed[completion] = True
        return np.flatnonzero(allowed)

    def _completion_after(
        self, pick: int, completion: NDArray[np.int64]
    ) -> NDArray[np.int64] | None:
        """Return what completes the subset most cheaply after a pick; None where unknown."""
        if (completion == pick).any():
            return np.asarray(completion[completion != pick])
        quotas, costs = self.remaining.quotas, self.remaining.costs
        assert quotas is not None and costs is not None
        codes, group = quotas.codes[completion], quotas.codes[pick]
        counts = self.counts + quotas.counts(completion)
        may_leave = codes == group
        if counts[group] < quotas.high[group]:
            may_leave |= (counts > quotas.low)[codes]
        if not may_leave.any():
            return completion if self.slots > completion.size else None
        dearest = completion[np.argmax(np.where(may_leave, costs[completion], -np.inf))]
        return np.asarray(completion[completion != dearest])

    def _cheapest(self) -> NDArray[np.int64] | str:
        """Return the completion of least cost, capacity not looked at, or why there is none."""
        rules = replace(self.rules, forced=self.chosen(), free=np.flatnonzero(self.open))
        return rules.cheapest

    def take(self, pick: int) -> None:
        """Add a candidate."""
        if self.completion is not None:
            self.completion = self._completion_after(pick, self.completion)
        self._move(pick, 1)

    def give_back(self, pick: int) -> None:
        """Take a candidate out again that :meth:`take` added."""
        self.completion = None
        self._move(pick, -1)

    def _move(self, pick: int, sign: int) -> None:
        self.mask[pick] = sign > 0
        self.open[pick] = sign < 0
        self.slots -= sign
        if self.remaining.quotas is not None:
            self.counts[self.remaining.quotas.codes[pick]] += sign
        if self.remaining.costs is not None:
            self.spent += sign * float(self.remaining.costs[pick])

    def chosen(self) -> NDArray[np.int64]:
        """Return the subset."""
        return np.flatnonzero(self.mask)

    def completed(self) -> NDArray[np.int64] | None:
        """Return the subset with its cheapest completion, else the cheapest subset of all.

        None when there is no feasible subset at all. Where only what is allowed was taken, the
        completion is feasible.
        """
        rules = self.rules
        if self.satisfied() and (self.slots == 0 or rules.at_most):
            chosen: NDArray[np.int64] | str = self.chosen()
        else:
            chosen = self._cheapest()
        if isinstance(chosen, str) or not rules.affords(chosen):
            chosen = rules.cheapest
        return None if isinstance(chosen, str) else chosen
