"""Subsets that grow by one candidate at a time, and the greedy solvers that grow them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import problems

import subsetopt as so
from subsetopt.constraints.partial_subset import Partial
from subsetopt.kernels import reference

WEIGHTED = ("omp", "giga", "frank-wolfe", "away-frank-wolfe", "pairwise-frank-wolfe")
SEEDS = st.integers(0, 2**32)
SIZES = st.sampled_from(["exact", "at_most"])


def feasible(problem: so.Problem) -> list[set[int]]:
    """Return every feasible subset, by looking at all."""
    rules = problem.constraints
    sizes = range(problem.k + 1) if rules.at_most else [problem.k]
    every = (c for size in sizes for c in combinations(range(problem.n), size))
    return [set(c) for c in every if not rules.violations(np.array(c, dtype=np.int64))]


@given(problem=problems(so.TopScores, max_size=7, constrained=True), data=st.data())
@settings(max_examples=400)
def test_allowed_are_those_with_a_feasible_completion(
    problem: so.Problem, data: st.DataObject
) -> None:
    if problem.costs is not None:
        # Whole numbers, so that the order of a sum does not matter.
        problem = so.Problem(
            problem.objective, problem.k, problem.cardinality, problem.include, problem.exclude,
            problem.groups, problem.quotas, np.round(problem.costs), np.floor(problem.capacity),
        )  # fmt: skip
    every = feasible(problem)
    assume(every)
    state = Partial(problem.constraints)
    while state.slots > 0:
        chosen, allowed = set(state.chosen().tolist()), set(state.allowed().tolist())
        others = set(range(problem.n)) - chosen
        assert allowed == {i for i in others if any(chosen | {i} <= whole for whole in every)}
        if not allowed:
            break
        pick = data.draw(st.sampled_from(sorted(allowed)))
        state.take(pick)
        if data.draw(st.integers(0, 5)) == 0:
            state.give_back(pick)
            break
    chosen = state.completed()
    assert chosen is not None
    assert set(state.chosen().tolist()) <= set(chosen.tolist()) and set(chosen.tolist()) in every


def spread_problem(data: st.DataObject, weights: str) -> so.Problem:
    """Draw vectors in general position, without ties, under every constraint at once."""
    n, d = data.draw(st.integers(3, 8)), data.draw(st.integers(3, 9))
    rng = np.random.default_rng(data.draw(SEEDS))
    vectors = rng.normal(size=(n, d)) * rng.exponential(size=(n, 1))
    low = data.draw(st.integers(0, 1))
    costs = rng.integers(1, 6, size=n).astype(float)
    cardinality = "at_most" if weights == "nonnegative" else data.draw(SIZES)
    problem = so.Problem(
        so.VectorMatching(vectors, weights=weights),
        data.draw(st.integers(1, n)),
        cardinality,
        include=[0] if data.draw(st.booleans()) else None,
        exclude=[n - 1] if data.draw(st.booleans()) else None,
        groups=rng.integers(0, 2, size=n),
        quotas={0: (low, low + data.draw(st.integers(0, 2)))},
        costs=costs,
        capacity=float(np.floor(data.draw(st.floats(0.2, 1.0)) * costs.sum())),
    )
    assume(problem.constraints.infeasibility() is None)
    return problem


@given(data=st.data())
@settings(max_examples=200)
def test_herding_under_constraints_is_the_naive_loop(data: st.DataObject) -> None:
    """The naive loop asks every feasible subset whether a candidate leaves one."""
    problem = spread_problem(data, "uniform")
    every = feasible(problem)
    vectors, target = problem.objective.vectors, problem.objective.target
    chosen = list(problem.constraints.forced.tolist())
    owed = (len(chosen) + 1) * target - vectors[chosen].sum(axis=0)
    begun = [list(chosen)]
    while len(chosen) < problem.k:
        fits = [i for i in range(problem.n) if i not in chosen]
        fits = [i for i in fits if any({*chosen, i} <= whole for whole in every)]
        if not fits:
            break
        pick = fits[int(np.argmax(vectors[fits] @ owed))]
        chosen.append(pick)
        owed = owed + target - vectors[pick]
        begun.append(list(chosen))
    ends = [c for c in begun if set(c) in every]
    left = [np.linalg.norm(target - vectors[c].sum(axis=0) / problem.k) for c in ends]
    assert so.solve(problem, "herding").objective == pytest.approx(min(left), rel=1e-9)


@pytest.mark.parametrize("name", WEIGHTED)
@given(problem=problems(kinds=["VectorMatching[nonnegative]"], min_size=1, constrained=True))
@settings(max_examples=100)
def test_weighted_solvers_include_first_and_refit_last(name: str, problem: so.Problem) -> None:
    options = {"refit": True} if name == "giga" else None
    answer = so.solve(problem, name, seed=0, options=options)
    assert answer.has_solution == bool(feasible(problem))
    if not answer.has_solution:
        return
    assert so.verify(problem, answer)
    objective = problem.objective
    forced = problem.constraints.forced
    unit = float(objective.norms.max())
    assume(unit > 1e-250)
    slack = 1e-7 * (unit + float(np.abs(objective.target).max()))
    best = reference.nonnegative_residual(
        objective.vectors[answer.indices] / unit, objective.target / unit
    )
    # No weights do better on the subset, so none on the included alone.
    assert answer.objective <= unit * best + slack
    alone = objective.evaluate(forced, objective.weights_for(forced, problem.k))
    assert answer.objective <= alone + slack


def greedy_twin(problem: so.Problem) -> float:
    """Return the residual of matching pursuit that asks every feasible subset before each pick."""
    objective = problem.objective
    vectors, target = objective.vectors, objective.target
    every = feasible(problem)
    forced = set(problem.constraints.forced.tolist())
    active: set[int] = set()
    residual = target
    while True:
        fits = {
            i
            for i in set(range(problem.n)) - active
            if any(active | forced | {i} <= whole for whole in every)
        }
        cosines = {i: vectors[i] @ residual / objective.norms[i] for i in fits}
        pick = max(cosines, key=lambda i: cosines[i], default=-1)
        if pick < 0 or cosines[pick] <= 1e-12:
            return float(np.linalg.norm(residual))
        rows = sorted(active | {pick})
        weights = objective.weights_for(np.array(rows), problem.k)
        active = {i for i, w in zip(rows, weights, strict=True) if w > 0.0}
        residual = target - weights @ vectors[rows]


@given(data=st.data())
@settings(max_examples=150)
def test_omp_under_constraints_is_the_naive_loop(data: st.DataObject) -> None:
    problem = spread_problem(data, "nonnegative")
    answer = so.solve(problem, "omp")
    # What completes the quotas at the end may still lower it.
    assert answer.objective <= greedy_twin(problem) * (1.0 + 1e-7) + 1e-9
    oracle = so.solve(problem, "exhaustive")
    assert answer.bound <= oracle.objective + problem.objective.tolerance


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_tight_capacity_is_used_by_what_matters(name: str) -> None:
    """Large vectors that do not fit are passed over; the small ones that do are not."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 12))
    costs = np.where(np.arange(60) < 10, 50.0, 1.0)
    vectors[:10] *= 20.0
    problem = so.Problem(
        so.VectorMatching(vectors, target=vectors[:10].mean(axis=0), weights="nonnegative"),
        10,
        costs=costs,
        capacity=59.0,
    )
    answer = so.solve(problem, name, seed=0)
    assert (answer.indices < 10).sum() <= 1 and answer.indices.size > 2
    nothing = float(np.linalg.norm(problem.objective.target))
    assert answer.objective < 0.8 * nothing


@pytest.mark.parametrize("weights", ["uniform", "nonnegative"])
@given(data=st.data())
@settings(max_examples=60)
def test_constraints_that_do_not_bind_change_nothing(weights: str, data: st.DataObject) -> None:
    n, d = data.draw(st.integers(4, 30)), data.draw(st.integers(2, 8))
    rng = np.random.default_rng(data.draw(SEEDS))
    vectors = rng.normal(size=(n, d)) * rng.exponential(size=(n, 1))
    k = data.draw(st.integers(1, n - 1))
    objective = so.VectorMatching(vectors, weights=weights)
    loose = {"groups": np.zeros(n), "quotas": {0: (0, n)}, "costs": np.ones(n), "capacity": n}
    for name in ("omp", "giga") if weights == "nonnegative" else ("herding",):
        options = {"refit": True} if name == "giga" else None
        plain = so.solve(so.Problem(objective, k), name, options=options)
        bound = so.solve(so.Problem(objective, k, **loose), name, options=options)
        assert bound.objective == pytest.approx(plain.objective, rel=1e-6, abs=1e-9)
