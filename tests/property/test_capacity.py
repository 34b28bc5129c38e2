"""A capacity is exact for integers and decimals, and keeps to what is written for all others."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subsetopt as so
from subsetopt.constraints.capacity import Capacity

NATIVE = ("swap", "exhaustive", "exact", "lagrangian", "greedy", "herding", "random", "auto")


def problem_of(costs: object, capacity: float, k: int, scores: object = None) -> so.Problem:
    n = len(costs)
    values = np.arange(1.0, n + 1.0) if scores is None else scores
    return so.Problem(so.TopScores(values), k, costs=costs, capacity=capacity)


def allowed(problem: so.Problem) -> set[tuple[int, ...]]:
    rules = problem.constraints
    return {
        c
        for c in combinations(range(problem.n), problem.k)
        if not rules.violations(np.array(c, dtype=np.int64))
    }


@pytest.mark.parametrize("size", [8 * 2**30, 10**12, 2**50])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_no_unit_of_a_whole_number_is_exceeded(size: int, dtype: type) -> None:
    costs = np.array([size // 2, size // 2 + 1, size // 4, 7, 11], dtype=dtype)
    problem = problem_of(costs, size, 2, [5.0, 5.0, 1.0, 0.1, 0.1])
    assert (0, 1) not in allowed(problem)
    assert (0, 1) in allowed(problem_of(costs, size + 1, 2))
    for solver in ("auto", "exhaustive"):
        answer = so.solve(problem, solver, seed=0)
        assert answer.objective == pytest.approx(6.0)
        assert costs[answer.indices].sum() <= size
    over = so.Solution(
        np.array([0, 1]), np.full(2, 0.5), 5, 10.0, 10.0, so.Status.OPTIMAL,
        so.StopReason.COMPLETED, "mine", 0.0, 0.0, 0, None, {},
    )  # fmt: skip
    told = so.verify(problem, over)
    assert not told
    assert told.violations == (f"total cost {size + 1} above the capacity of {size}",)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(
    ("cost", "count", "capacity"),
    [(0.1, 3, 0.3), (0.1, 8, 0.8), (0.7, 3, 2.1), (1.1, 3, 3.3), (0.01, 7, 0.07), (0.3, 3, 0.9)],
)
def test_decimals_are_read_as_they_are_written(
    dtype: type, cost: float, count: int, capacity: float
) -> None:
    costs = np.full(count + 1, cost, dtype=dtype)
    assert so.solve(problem_of(costs, capacity, count)).has_solution
    assert so.solve(problem_of(costs, dtype(capacity), count)).has_solution
    over = so.solve(problem_of(costs, capacity, count + 1))
    assert over.status is so.Status.INFEASIBLE
    a_little_less = capacity - 1e-10
    assert so.solve(problem_of(costs, a_little_less, count)).status is so.Status.INFEASIBLE


@given(
    costs=st.lists(st.integers(0, 10**6), min_size=1, max_size=7),
    digits=st.integers(0, 9),
    data=st.data(),
)
@settings(max_examples=200)
def test_the_rule_is_that_of_exact_fractions(
    costs: list[int], digits: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, len(costs)))
    subset = data.draw(st.permutations(range(len(costs))))[:k]
    whole = max(0, sum(costs[i] for i in subset) + data.draw(st.integers(-1, 1)))
    numbers = [float(f"{cost}e-{digits}") for cost in costs]
    problem = problem_of(numbers, float(f"{whole}e-{digits}"), k)
    every = combinations(range(len(costs)), k)
    assert allowed(problem) == {c for c in every if sum(costs[i] for i in c) <= whole}


@given(
    costs=st.lists(st.floats(0.0, 1e3, allow_subnormal=False), min_size=1, max_size=12),
    scale=st.integers(-290, 290),
    data=st.data(),
)
@settings(max_examples=200)
def test_a_capacity_that_was_summed_is_met_and_little_more(
    costs: list[float], scale: int, data: st.DataObject
) -> None:
    numbers = np.ldexp(np.array(costs), scale)
    k = data.draw(st.integers(1, len(costs)))
    subset = np.sort(np.array(data.draw(st.permutations(range(len(costs))))[:k]))
    for capacity in (
        float(numbers[subset].sum()),
        math.fsum(numbers[subset]),
        sum(numbers[subset]),
    ):
        rules = problem_of(numbers, capacity, k).constraints
        assert rules.affords(subset)
        most = Fraction(capacity) * (1 + Fraction(3, 10**12))
        for chosen in combinations(range(len(costs)), k):
            total = sum((Fraction(numbers[i]) for i in chosen), Fraction(0))
            if rules.affords(np.array(chosen)):
                assert total <= most
            else:
                assert total > Fraction(capacity) * (1 - Fraction(1, 10**12))


@given(
    dtype=st.sampled_from([np.int64, np.uint64]),
    costs=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6),
    data=st.data(),
)
def test_huge_integers_never_exceed_the_capacity(
    dtype: type, costs: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(costs)))
    capacity = sum(sorted(costs)[:k]) + data.draw(st.integers(-1, 2**60))
    rules = problem_of(np.array(costs, dtype=dtype) // 4, capacity // 4, k).constraints
    for chosen in combinations(range(len(costs)), k):
        total = sum(costs[i] // 4 for i in chosen)
        if rules.affords(np.array(chosen)):
            assert total <= capacity // 4
        else:
            assert total > (capacity // 4) * (1 - 1e-14) - len(costs) * 2


@given(costs=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=20), capacity=st.floats(0.0, 60.0))
def test_costs_become_whole_numbers_with_exact_sums(costs: list[float], capacity: float) -> None:
    limit = Capacity.of(np.array(costs), capacity, len(costs))
    assert limit is not None
    assert np.array_equal(limit.costs, np.rint(limit.costs)) and limit.largest % 1.0 == 0.0
    cheap = limit.costs[limit.costs <= limit.largest]
    assert sum(map(int, cheap)) <= 2**52


@pytest.mark.parametrize("sentinel", [1e6, 1e15, 1e30, 1e300])
@pytest.mark.parametrize("solver", NATIVE)
def test_a_cost_for_never_takes_no_digit_from_the_others(sentinel: float, solver: str) -> None:
    rng = np.random.default_rng(7)
    costs = rng.random(10)
    costs[[2, 5]] = sentinel
    losses = rng.exponential(size=10)
    keep = np.array([0, 1, 8, 9])
    capacity = float(costs[keep].sum())
    objective: so.Objective = so.MeanMatching(losses)
    if solver == "lagrangian":
        objective = so.ScoredMatching(rng.random(10), losses, 10.0)
    if solver == "herding":
        objective = so.VectorMatching(losses[:, None])
    answer = so.solve(so.Problem(objective, 4, costs=costs, capacity=capacity), solver, seed=0)
    assert answer.has_solution
    assert not {2, 5} & set(answer.indices.tolist())
    assert math.fsum(costs[answer.indices]) <= capacity * (1 + 1e-12)


@given(seed=st.integers(0, 2**32), k=st.integers(1, 8))
def test_measured_costs_in_single_precision_are_added_as_they_are(seed: int, k: int) -> None:
    costs = np.random.default_rng(seed).random(8).astype(np.float32)
    rules = problem_of(costs, float(costs[:k].astype(np.float64).sum()), k).constraints
    assert rules.affords(np.arange(k))
    less = float(costs[:k].astype(np.float64).sum()) * (1 - 1e-10)
    assert not problem_of(costs, less, k).constraints.affords(np.arange(k))


def test_sums_beyond_all_integers_of_the_machine_are_compared() -> None:
    costs = np.full(8, 2**62 - 1, dtype=np.int64)
    assert so.solve(problem_of(costs, 6 * 2**62, 6)).has_solution
    assert so.solve(problem_of(costs, 5 * 2**62, 6)).status is so.Status.INFEASIBLE


def test_an_infinite_capacity_is_none() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.random(10), rng.integers(0, 3, 10)
    rules = {"groups": groups, "quotas": {0: (0, 1), 1: (0, 2)}}
    for solver in ("greedy", "swap", "exact", "exhaustive"):
        bare = so.solve(so.Problem(so.MeanMatching(values), 5, **rules), solver, seed=0)
        for capacity in (math.inf, np.float32(np.inf), 10**400):
            costly = so.Problem(
                so.MeanMatching(values), 5, **rules, costs=rng.random(10), capacity=capacity
            )
            assert so.solve(costly, solver, seed=0).objective == bare.objective


@pytest.mark.parametrize("capacity", [-math.inf, -1.0, -1, -1e-300])
@pytest.mark.parametrize("cardinality", ["exact", "at_most"])
def test_a_negative_capacity_is_infeasible(capacity: float, cardinality: str) -> None:
    for costs in ([1, 1, 1], [0.0, 0.0, 0.0]):
        problem = so.Problem(
            so.MeanMatching([1.0, 2.0, 3.0]), 1, cardinality, costs=costs, capacity=capacity
        )
        answer = so.solve(problem, seed=0)
        assert answer.status is so.Status.INFEASIBLE
        assert "above the capacity of -" in answer.extras["why"]


def test_a_total_that_rounds_to_the_capacity_is_told_in_full() -> None:
    problem = problem_of([0.1, 0.2000000000000001, 5.0], 0.3, 2)
    why = so.solve(problem).extras["why"]
    assert why == "the cheapest subset costs 0.3000000000000001, above the capacity of 0.3"
