"""Subsets that a search starts from, as positions of a pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.constraints.subsets import random_subset
from subsetopt.problem import Problem
from subsetopt.solvers.matching.pool import Pool

__all__ = ["feasible_start", "window_start"]


def window_start(pool: Pool) -> NDArray[np.int64]:
    """Return the contiguous window of the sorted values whose sum is nearest the target."""
    cumulated = np.concatenate([[0.0], np.cumsum(pool.values)])
    sums = cumulated[pool.size :] - cumulated[: cumulated.size - pool.size]
    first = int(np.argmin(np.abs(sums - pool.target)))
    return np.arange(first, first + pool.size)


def feasible_start(
    problem: Problem, pool: Pool, rng: np.random.Generator, deadline: Deadline
) -> NDArray[np.int64]:
    """Return a random feasible subset of a problem whose constraints can be satisfied."""
    return pool.positions(random_subset(problem.constraints, rng, deadline), problem.n)
