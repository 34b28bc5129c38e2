"""Many candidates under quotas and a capacity: solved and proved as few are."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt import instances
from subsetopt.solvers.matching.pool import Pool


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
    copied = pickle.loads(pickle.dumps(problem))
    assert "prepared" not in copied.__dict__
    assert so.solve(copied, "swap", seed=0).status is so.Status.OPTIMAL
    assert np.array_equal(pool.values, np.arange(9.0))


@pytest.mark.parametrize("family", ["exponential", "integer", "far-outlier", "two-decimal"])
def test_what_is_not_found_before_sorting_is_found_after(family: str) -> None:
    n, k = 20_000, 2_000
    losses = instances.losses(family, n, k, 0)
    solution = so.select(losses, k=k, seed=0)
    assert solution.status is so.Status.OPTIMAL
    again = so.select(losses, k=k, seed=0)
    assert np.array_equal(again.indices, solution.indices)


def test_many_large_problems_have_the_answers_of_one_by_one() -> None:
    rows = [instances.losses(f, 5_000 + i, 500, i) for i, f in enumerate(["uniform", "integer"])]
    together = so.select_many(rows, rate=0.1, seed=3)
    for i, row in enumerate(rows):
        alone = so.select(row, rate=0.1, seed=(3, i))
        assert np.array_equal(together[i].indices, alone.indices)
        assert (together[i].bound, together[i].iterations) == (alone.bound, alone.iterations)


def test_losses_that_may_not_be_written_to_or_lie_apart() -> None:
    losses = np.random.default_rng(0).exponential(size=10_000)
    expected = so.select(losses, k=100, seed=0)
    apart = np.repeat(losses, 2)[::2]
    losses.setflags(write=False)
    for given in (losses, apart):
        assert np.array_equal(so.select(given, k=100, seed=0).indices, expected.indices)


def test_a_search_before_sorting_keeps_its_limits() -> None:
    losses = np.random.default_rng(0).integers(0, 50, size=10_000).astype(float)
    stopped = so.select(losses, k=100, solver="swap", options={"start": "random"},
                        max_iterations=3_000, seed=0)  # fmt: skip
    assert stopped.has_solution and stopped.iterations < 40_000
    timed = so.select(losses, k=100, time_limit=1e-4, seed=0)
    assert timed.has_solution


def test_ties_of_many_are_ordered_by_group_and_cost() -> None:
    rng = np.random.default_rng(0)
    n, k = 30_000, 3_000
    losses, groups = rng.integers(0, 9, size=n).astype(float), rng.integers(0, 5, size=n)
    costs = rng.integers(1, 4, size=n).astype(float)
    problem = so.Problem(
        so.MeanMatching(losses), k, groups=groups, quotas={0: (0, k)}, costs=costs, capacity=1e9
    )
    pool = Pool.of(problem)
    expected = np.lexsort((np.arange(n), costs, np.where(groups == 0, 0, 1), losses))
    assert np.array_equal(pool.items, expected)
    assert np.array_equal(pool.values, losses[expected])


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_the_objective_of_a_large_subset_is_that_of_its_exact_sum(shift: float) -> None:
    n, k = 60_000, 20_000
    losses = np.random.default_rng(0).exponential(size=n) + shift
    problem = so.Problem(so.MeanMatching(losses), k)
    indices = np.arange(k)
    value = problem.objective.evaluate(indices, np.full(k, 1.0 / k))
    exact = abs(math.fsum(losses) / n - math.fsum(losses[:k]) / k)
    assert value == pytest.approx(exact, abs=1e-14 * max(1.0, shift))
