"""A subset that grows by one candidate at a time and stays completable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints import Constraints

__all__ = ["Partial"]


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

    def satisfied(self) -> bool:
        """Whether the lower quotas hold."""
        return self.rules.low is None or bool((self.count >= self.rules.low).all())

    def allowed(self) -> NDArray[np.int64]:
        """Return the candidates after which sizes, quotas and (nearly) capacity can be kept."""
        rules = self.rules
        open_ = self.open
        if rules.codes is not None and rules.low is not None and rules.high is not None:
            lacking = np.maximum(rules.low - self.count, 0)
            fits = self.count < rules.high
            if lacking.sum() >= self.left:
                fits &= lacking > 0
            open_ = open_ & fits[rules.codes]
        candidates = np.flatnonzero(open_)
        if rules.costs is None or candidates.size == 0:
            return candidates
        # The cheapest way to fill the other slots, quotas not counted.
        others = 0 if rules.at_most else self.left - 1
        pool = np.sort(rules.costs[self.open])[: others + 1]
        room = rules.capacity - self.spent
        costs = rules.costs[candidates]
        if pool.size <= others:
            return candidates[:0]
        # Without the candidate itself the cheapest `others` are those of the rest.
        rest = pool[:others].sum() if others else 0.0
        own = costs <= (pool[others - 1] if others else -1.0)
        rest_without = np.where(own, rest + pool[others] - costs, rest)
        return candidates[costs + rest_without <= room]

    def take(self, pick: int) -> None:
        """Add a candidate."""
        self.mask[pick] = True
        self.open[pick] = False
        self.left -= 1
        if self.rules.codes is not None:
            self.count[self.rules.codes[pick]] += 1
        if self.rules.costs is not None:
            self.spent += float(self.rules.costs[pick])

    def chosen(self) -> NDArray[np.int64]:
        """Return the subset."""
        return np.flatnonzero(self.mask)

    def completed(self) -> NDArray[np.int64] | None:
        """Return the subset if it is feasible, else the cheapest feasible one, if there is any.

        Time may run out, and quotas and capacity together may lead into a dead end.
        """
        rules = self.rules
        if self.satisfied() and (self.left == 0 or rules.at_most):
            return self.chosen()
        return None if isinstance(rules.cheapest, str) else rules.cheapest
