"""Laws of coverage: submodular, monotone, greedy within its guarantee, farthest first within 2."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import facilities, features, problems

import subsetopt as so

# A size is all that facilities() looks at.
SIZES = st.integers(1, 8).map(np.zeros)


def value(objective: so.FacilityLocation, chosen: set[int]) -> float:
    return objective.evaluate(np.array(sorted(chosen), dtype=np.int64), np.ones(len(chosen)))


@given(objective=SIZES.flatmap(facilities), data=st.data())
@settings(max_examples=150)
def test_facility_location_is_monotone_and_submodular(
    objective: so.FacilityLocation, data: st.DataObject
) -> None:
    element = st.integers(0, objective.n - 1)
    small = data.draw(st.sets(element))
    large = small | data.draw(st.sets(element))
    item = data.draw(element)
    slack = 10 * objective.tolerance + 1e-9
    assert value(objective, small) <= value(objective, large) + slack
    gain_small = value(objective, small | {item}) - value(objective, small)
    gain_large = value(objective, large | {item}) - value(objective, large)
    assert gain_large <= gain_small + slack
    assert value(objective, large) <= objective.trivial_bound + slack


@given(problem=problems(kinds=["FacilityLocation"], constrained=False, min_size=1))
@settings(max_examples=100)
def test_greedy_is_within_its_guarantee(problem: so.Problem) -> None:
    best = so.solve(problem, "exhaustive").objective
    slack = 1e-5 * problem.objective.trivial_bound + 1e-12
    for solver in ("greedy", "lazy-greedy"):
        answer = so.solve(problem, solver)
        assert answer.objective >= (1.0 - 1.0 / math.e) * best - slack
        assert answer.bound >= best - problem.objective.tolerance


@given(problem=problems(kinds=["FacilityLocation"], min_size=1))
@settings(max_examples=100)
def test_quotas_cost_greedy_no_more_than_half(problem: so.Problem) -> None:
    rules = problem.constraints
    if rules.costs is not None or rules.forced.size or rules.infeasibility() is not None:
        return
    best = so.solve(problem, "exhaustive").objective
    answer = so.solve(problem, "lazy-greedy")
    assert answer.objective >= 0.5 * best - 1e-5 * problem.objective.trivial_bound - 1e-12


@given(n=st.integers(2, 60), seed=st.integers(0, 10**6), data=st.data())
@settings(max_examples=60)
def test_lazy_greedy_is_greedy(n: int, seed: int, data: st.DataObject) -> None:
    points = np.random.default_rng(seed).normal(size=(n, 3))
    metric = data.draw(st.sampled_from(["cosine", "euclidean", "rbf", "dot"]))
    problem = so.Problem(so.FacilityLocation(points, metric=metric), data.draw(st.integers(1, n)))
    lazy, full = so.solve(problem, "lazy-greedy"), so.solve(problem, "greedy")
    assert abs(lazy.objective - full.objective) <= 1e-5 * abs(full.objective) + 1e-12


@given(data=st.data(), n=st.integers(1, 8))
@settings(max_examples=100)
def test_farthest_first_is_within_its_factor(data: st.DataObject, n: int) -> None:
    metric = data.draw(st.sampled_from(["euclidean", "cosine"]))
    objective = so.KCenter(data.draw(features(n)), metric)
    k = data.draw(st.integers(1, n))
    include = data.draw(st.sets(st.integers(0, n - 1), max_size=k))
    problem = so.Problem(objective, k, include=sorted(include) or None)
    best = so.solve(problem, "exhaustive").objective
    answer = so.solve(problem, "farthest-first", seed=0)
    factor = 2.0 if metric == "euclidean" else 4.0
    assert answer.objective <= factor * best * (1.0 + 1e-9) + 2 * objective.tolerance
    assert answer.bound <= best + objective.tolerance
