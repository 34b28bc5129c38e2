"""Feasible subsets to start from, as positions of a pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.constraints import Constraints
from subsetopt.pool import Pool
from subsetopt.problem import Problem

__all__ = ["affordable_subset", "feasible_start", "random_subset", "window_start"]


def window_start(pool: Pool) -> NDArray[np.int64]:
    """Return the contiguous window of the sorted values whose sum is nearest the target."""
    cumulated = np.concatenate([[0.0], np.cumsum(pool.values)])
    sums = cumulated[pool.size :] - cumulated[: cumulated.size - pool.size]
    first = int(np.argmin(np.abs(sums - pool.target)))
    return np.arange(first, first + pool.size)


def feasible_start(
    problem: Problem, pool: Pool, rng: np.random.Generator, deadline: Deadline
) -> NDArray[np.int64]:
    """Return a random subset that keeps every constraint of a feasible problem."""
    return pool.positions(random_subset(problem, rng, deadline), problem.n)


def random_subset(
    problem: Problem, rng: np.random.Generator, deadline: Deadline | None = None
) -> NDArray[np.int64]:
    """Return a random feasible subset of candidates, uniform where sizes alone constrain."""
    # Negative keys, so that "at most" takes as many as it may.
    return affordable_subset(problem.constraints, rng.random(problem.n) - 1.0, deadline)


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
        When to settle for the cheapest subset.
    """
    chosen = rules.greedy_by(keys)
    assert not isinstance(chosen, str)
    if rules.costs is None or rules.affords(chosen):
        return chosen
    span = max(float(rules.costs.max()), 1e-300)
    for weight in (0.25, 1.0, 4.0, 16.0, 64.0):
        if deadline is not None and deadline.expired():
            break
        chosen = rules.greedy_by(keys + weight * rules.costs / span)
        assert not isinstance(chosen, str)
        if rules.affords(chosen):
            return chosen
    cheapest = rules.cheapest
    assert not isinstance(cheapest, str)
    return cheapest
