"""Feasible subsets: a random one, and one with a small total key."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.constraints.normal_form import Constraints

__all__ = ["affordable_subset", "random_subset"]

# Weights of the costs, as shares of the largest one, beside the keys; tried in this order.
_COST_WEIGHTS = (0.25, 1.0, 4.0, 16.0, 64.0)


def random_subset(
    constraints: Constraints, rng: np.random.Generator, deadline: Deadline | None = None
) -> NDArray[np.int64]:
    """Return a random feasible subset of candidates, uniform where sizes alone constrain."""
    # The keys are negative, so that "at most" takes as many candidates as it may.
    return affordable_subset(constraints, rng.random(constraints.n) - 1.0, deadline)


def affordable_subset(
    rules: Constraints, keys: NDArray[np.float64], deadline: Deadline | None = None
) -> NDArray[np.int64]:
    """Return a feasible subset with a small total key; the smallest, capacity aside, if it fits.

    The keys are minimized by the exact greedy over sizes and quotas. When that breaks the
    capacity, the keys are mixed with the costs, ever more strongly, until it holds; the cheapest
    subset of all is the last resort, also when time is up.

    Parameters
    ----------
    rules
        Constraints that can be satisfied.
    keys
        Key per candidate, shape (n,), not above 1 in magnitude.
    deadline
        When to stop mixing and return the cheapest subset; None never stops.
    """
    chosen = rules.best_by(keys)
    if rules.costs is None or rules.affords(chosen):
        return chosen
    largest = max(float(rules.costs.max()), 1e-300)
    for weight in _COST_WEIGHTS:
        if deadline is not None and deadline.expired():
            break
        chosen = rules.best_by(keys + weight * rules.costs / largest)
        if rules.affords(chosen):
            return chosen
    cheapest = rules.cheapest
    assert not isinstance(cheapest, str)
    return cheapest
