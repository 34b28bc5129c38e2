"""Many candidates under quotas and a capacity: solved and proved as few are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt import instances
from subsetopt.pool import Pool


def rules(n: int, k: int) -> dict[str, Any]:
    """Quotas and a capacity that a random subset keeps with little to spare."""
    rng = np.random.default_rng(n)
    groups, costs = rng.integers(0, 4, size=n), rng.exponential(size=n)
    witness = rng.choice(n, k, replace=False)
    counts = np.bincount(groups[witness], minlength=4)
    quotas = {g: (int(c) - 1, int(c) + 1) for g, c in enumerate(counts)}
    return {
        "groups": groups,
        "quotas": quotas,
        "costs": costs,
        "capacity": 1.02 * float(costs[witness].sum()),
    }


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("family", ["exponential", "lognormal", "gaussian"])
def test_a_constrained_search_reaches_the_mean_in_a_few_looks_per_candidate(family, rate) -> None:
    n = 100_000
    losses = instances.losses(family, n, int(rate * n), 0)
    problem = so.Problem(so.MeanMatching(losses), int(rate * n), **rules(n, int(rate * n)))
    solution = so.solve(problem, "swap", seed=0, max_iterations=20 * n)
    assert solution.status is so.Status.OPTIMAL
    assert not so.verify(problem, solution).violations


def test_outliers_are_proved_under_quotas_whatever_the_size() -> None:
    n, k = 100_000, 10_000
    losses = instances.losses("far-outlier", n, k, 0)
    rest = rules(n, k)
    quotas = {"groups": rest["groups"], "quotas": rest["quotas"]}
    problem = so.Problem(so.MeanMatching(losses), k, **quotas)
    solution = so.solve(problem, "auto", seed=0, max_iterations=2_000_000)
    assert solution.status is so.Status.OPTIMAL
    assert solution.bound > 0.0


def test_what_one_solver_works_out_the_next_one_finds() -> None:
    problem = so.Problem(so.MeanMatching(np.arange(9.0)), 3)
    so.solve(problem, "swap", seed=0)
    pool = Pool.of(problem)
    assert so.solve(problem, "exact", seed=0).status is so.Status.OPTIMAL
    assert Pool.of(problem) is pool
    assert np.array_equal(pool.values, np.arange(9.0))
