"""A constant added to all losses changes nothing, and numbers of any size end in no false claim."""

from __future__ import annotations

import pickle
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import subsetopt as so

SOLVERS = ("auto", "exact", "exhaustive", "swap", "greedy", "frank-wolfe", "nearest-mean")


def exact_residual(losses: np.ndarray, indices: tuple[int, ...], k: int) -> Fraction:
    numbers = [Fraction(float(loss)) for loss in losses]
    return abs(sum((numbers[i] for i in indices), Fraction(0)) / k - sum(numbers) / len(numbers))


@given(
    seed=st.integers(0, 2**32),
    shift=st.integers(2, 14),
    sign=st.sampled_from([-1.0, 1.0]),
    single=st.booleans(),
    quotas=st.booleans(),
)
@settings(max_examples=120)
def test_a_constant_added_to_all_losses_makes_no_subset_optimal(
    seed: int, shift: int, sign: float, single: bool, quotas: bool
) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 10))
    k = int(rng.integers(1, n))
    losses = sign * (10.0**shift + rng.choice([1e-3, 1.0, 50.0]) * rng.exponential(size=n))
    losses = losses.astype(np.float32) if single else losses
    rules = {"groups": np.arange(n) % 2, "quotas": {0: (0, max(1, k - 1))}} if quotas else {}
    problem = so.Problem(so.MeanMatching(losses), k, **rules)
    every = [
        c
        for c in combinations(range(n), k)
        if not problem.constraints.violations(np.array(c, dtype=np.int64))
    ]
    assume(every)
    best = float(min(exact_residual(losses, c, k) for c in every))
    slack = 2e-6 * float(np.ptp(losses.astype(np.float64)))
    for solver in SOLVERS:
        answer = so.solve(problem, solver, seed=0)
        found = float(exact_residual(losses, tuple(answer.indices.tolist()), k))
        assert answer.objective == pytest.approx(found, abs=slack)
        assert answer.bound <= best + slack
        if answer.status is so.Status.OPTIMAL:
            assert found <= best + slack, solver
    assert so.solve(problem, "exact").status is so.Status.OPTIMAL


@pytest.mark.parametrize("shift", [2.0**10, 2.0**30, -(2.0**40)])
def test_the_shifted_problem_has_the_answer_of_the_plain_one(shift: float) -> None:
    losses = np.round(np.random.default_rng(3).exponential(size=24) * 1024) / 1024
    plain = so.solve(so.Problem(so.MeanMatching(losses), 7), "exact", seed=0)
    moved = so.solve(so.Problem(so.MeanMatching(losses + shift), 7), "exact", seed=0)
    assert moved.status is plain.status is so.Status.OPTIMAL
    assert moved.objective == pytest.approx(plain.objective, abs=1e-6)
    rows = np.stack([losses, losses + shift, losses[::-1] + shift])
    for answer in so.select_many(rows, k=7, seed=0):
        assert answer.objective == pytest.approx(plain.objective, abs=1e-6)


def test_a_random_subset_of_large_losses_is_not_optimal() -> None:
    rng = np.random.default_rng(0)
    for losses in (1e9 + rng.random(64), (1e5 + rng.random(64)).astype(np.float32)):
        problem = so.Problem(so.MeanMatching(losses), 8)
        assert so.solve(problem, "random", seed=0).status is so.Status.FEASIBLE


@pytest.mark.parametrize("value", [0.1, 1e9, -3.0, 1e-300])
def test_any_subset_of_equal_losses_is_optimal(value: float) -> None:
    problem = so.Problem(so.MeanMatching(np.full(1000, value)), 300)
    for solver in ("random", "swap", "exact"):
        assert so.solve(problem, solver, seed=0).status is so.Status.OPTIMAL


def test_fewer_than_k_keep_the_whole_sum() -> None:
    losses = 1e6 + np.arange(6.0)
    problem = so.Problem(so.MeanMatching(losses, target=5e5), 2, "at_most")
    answer = so.solve(problem, "exact", seed=0)
    assert answer.indices.tolist() == [0]
    assert answer.objective == 0.0


def test_a_band_is_kept_where_losses_are_large() -> None:
    rng = np.random.default_rng(1)
    losses, scores = 1e9 + rng.exponential(size=10), rng.random(10)
    for tolerance in (0.02, 0.1):
        problem = so.Problem(so.ScoredMatching(scores, losses, tolerance), 4)
        every = [c for c in combinations(range(10), 4)]
        inside = [c for c in every if exact_residual(losses, c, 4) <= Fraction(tolerance)]
        best = max((scores[list(c)].sum() for c in inside), default=None)
        for solver in ("lagrangian", "exhaustive", "auto"):
            answer = so.solve(problem, solver, seed=0)
            if best is None:
                assert answer.status is so.Status.INFEASIBLE
            else:
                assert answer.status is so.Status.OPTIMAL
                assert answer.objective == pytest.approx(best)


@given(seed=st.integers(0, 2**32), shift=st.integers(2, 12), single=st.booleans())
@settings(max_examples=60)
def test_a_constant_in_all_vectors_proves_no_optimum(seed: int, shift: int, single: bool) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(4, 9)), int(rng.integers(1, 4))
    k = int(rng.integers(1, n))
    vectors = rng.normal(size=(n, d)) + 10.0**shift * rng.choice([-1.0, 1.0, 2.0], size=d)
    vectors = vectors.astype(np.float32) if single else vectors
    problem = so.Problem(so.VectorMatching(vectors), k)
    differences = vectors.astype(np.float64) - vectors[0].astype(np.float64)
    target = differences.mean(axis=0)

    def residual(chosen: list[int]) -> float:
        return float(np.linalg.norm(target - differences[chosen].mean(axis=0)))

    best = min(residual(list(c)) for c in combinations(range(n), k))
    slack = 1e-5 * float(np.abs(differences).max())
    for solver in ("auto", "swap", "exhaustive", "herding", "frank-wolfe"):
        answer = so.solve(problem, solver, seed=0)
        found = residual(answer.indices.tolist())
        assert answer.objective == pytest.approx(found, abs=slack)
        assert answer.bound <= best + slack
        if answer.status is so.Status.OPTIMAL:
            assert found <= best + slack, solver


def test_the_form_that_solvers_are_given_is_not_saved() -> None:
    losses = 1e9 + np.random.default_rng(0).random(20)
    rules = {"groups": np.arange(20) % 2, "quotas": {0: 3}}
    problem = so.Problem(so.MeanMatching(losses), 5, **rules)
    answer = so.solve(problem, seed=0)
    assert problem.centered.constraints is problem.constraints
    assert problem.centered.objective.target == pytest.approx(problem.objective.target - losses[0])
    copied = pickle.loads(pickle.dumps(problem))
    assert "_twin" not in copied.__dict__
    assert so.solve(copied, seed=0).objective == answer.objective
    plain = so.Problem(so.MeanMatching(losses - 1e9), 5)
    assert plain.centered is plain
    fewer = so.Problem(so.MeanMatching(losses), 5, "at_most")
    assert fewer.centered is fewer
    assert fewer.objective.tolerance == pytest.approx(1.0)


KINDS = ("plain", "signed", "outlier", "tiny", "huge", "wide", "denormal", "sentinel", "large")


def numbers_of(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    values = rng.random(n)
    if kind == "signed":
        return values - 0.5
    if kind == "outlier":
        values[rng.integers(n)] *= 10.0 ** rng.integers(3, 16)
    if kind == "sentinel":
        values[rng.choice(n, 2, replace=False)] = 10.0 ** rng.integers(6, 300)
    if kind == "wide":
        values *= 10.0 ** rng.integers(-300, 300, n)
    if kind == "large":
        values += 10.0 ** rng.integers(3, 14)
    return values * {"tiny": 1e-300, "huge": 1e300, "denormal": 1e-320}.get(kind, 1.0)


@given(
    kinds=st.tuples(*[st.sampled_from(KINDS)] * 3),
    seed=st.integers(0, 2**32),
    capacity=st.booleans(),
    cardinality=st.sampled_from(["exact", "at_most"]),
)
@settings(max_examples=300)
def test_scored_matching_claims_nothing_false_at_any_magnitude(
    kinds: tuple[str, str, str], seed: int, capacity: bool, cardinality: str
) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 9))
    k = int(rng.integers(1, n))
    scores, losses, costs = (numbers_of(kind, rng, n) for kind in kinds)
    subset = np.sort(rng.choice(n, k, replace=False))
    reach = abs(float(losses[subset].mean()) - float(losses.mean()))
    tolerance = reach * float(rng.choice([1.0, 1.01, 2.0]))
    rules = {}
    if capacity:
        costs = np.abs(costs)
        rules = {"costs": costs, "capacity": float(costs[subset].sum())}
    problem = so.Problem(so.ScoredMatching(scores, losses, tolerance), k, cardinality, **rules)
    objective = problem.objective
    sizes = range(k + 1) if cardinality == "at_most" else [k]
    best = None
    for size in sizes:
        for chosen in combinations(range(n), size):
            indices = np.array(chosen, dtype=np.int64)
            inside = objective.residual(indices, k) <= objective.band + 0.25 * objective.slack
            if inside and problem.constraints.affords(indices):
                value = float(scores[indices].sum())
                best = value if best is None else max(best, value)
    for solver in ("lagrangian", "auto", "exhaustive"):
        answer = so.solve(problem, solver, seed=0)
        assert answer.status is not so.Status.ERROR
        if best is None:
            continue
        assert answer.status is not so.Status.INFEASIBLE
        assert answer.bound >= best - objective.tolerance
        if answer.status is so.Status.OPTIMAL:
            assert answer.objective >= best - 2 * objective.tolerance


def test_a_subset_at_the_edge_of_the_band_refutes_no_proof() -> None:
    losses = np.array([0.88211626, 0.7222123, 0.7922105, 0.00998298], dtype=np.float32)
    residual = abs(float(losses.astype(float).mean()) - float(losses[1]))
    edge = so.ScoredMatching(np.arange(4.0), losses, residual - 0.8 * 7.2e-8)
    problem = so.Problem(edge, 1, exclude=[0])
    assert not edge.violations(np.array([1]), 1)
    assert not edge.clearly_allows(np.array([1]), 1)
    for solver in ("lagrangian", "auto", "exhaustive"):
        assert so.solve(problem, solver, seed=0).status is not so.Status.ERROR
        warm = so.solve(problem, solver, seed=0, warm_start=[1])
        assert warm.has_solution and warm.indices.tolist() == [1]
