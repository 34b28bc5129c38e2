"""Laws of scored matching, against every subset in turn."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems

import subsetopt as so

SCORED = ("ScoredMatching",)


@given(problem=problems(kinds=SCORED), work=st.sampled_from([None, 1, 50, 500]))
@settings(max_examples=150)
def test_the_bound_is_on_the_right_side_whatever_the_work(
    problem: so.Problem, work: int | None
) -> None:
    oracle = so.solve(problem, "exhaustive")
    answer = so.solve(problem, "lagrangian", max_iterations=work, seed=0)
    slack = 1e-9 * (1.0 + abs(oracle.objective)) if oracle.has_solution else 0.0
    if not oracle.has_solution:
        assert not answer.has_solution
    elif answer.has_solution:
        assert answer.objective <= oracle.objective + slack
        assert answer.bound >= oracle.objective - slack - problem.objective.tolerance
    else:
        assert answer.status is so.Status.NO_SOLUTION


@given(problem=problems(kinds=SCORED, constrained=False, min_size=1))
@settings(max_examples=60)
def test_a_wider_band_is_never_worse(problem: so.Problem) -> None:
    objective = problem.objective
    wide = so.ScoredMatching(objective.scores, objective.losses, 2.0 * objective.band)
    narrow = so.solve(problem, "lagrangian", seed=0)
    wider = so.solve(so.Problem(wide, problem.k), "lagrangian", seed=0)
    if narrow.has_solution:
        assert wider.bound >= narrow.objective - objective.tolerance


@given(problem=problems(kinds=SCORED, constrained=False, min_size=1))
@settings(max_examples=60)
def test_without_a_band_it_is_top_scores(problem: so.Problem) -> None:
    objective = problem.objective
    reach = 1e3 * (objective.matching.scale + 1e-300) * problem.n
    free = so.Problem(so.ScoredMatching(objective.scores, objective.losses, reach), problem.k)
    answer = so.solve(free, "lagrangian", seed=0)
    top = so.solve(so.Problem(so.TopScores(objective.scores), problem.k), "topk")
    assert answer.status is so.Status.OPTIMAL
    assert abs(answer.objective - top.objective) <= 2 * objective.tolerance


@given(
    kind=st.sampled_from(["two clusters", "two negative clusters", "integer", "two-decimal"]),
    n=st.integers(4, 13),
    work=st.sampled_from([40, 400, 40_000]),
    band=st.sampled_from([0.0, 1e-6, 1e-3, 0.05, 0.2]),
    costs=st.booleans(),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
@settings(max_examples=200)
def test_counting_large_losses_and_narrowing_the_band_lose_no_subset(
    kind: str, n: int, work: int, band: float, costs: bool, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    k = data.draw(st.integers(1, n - 1))
    if kind == "integer":
        losses = rng.integers(0, 6, n).astype(np.float32)
    elif kind == "two-decimal":
        losses = np.round(rng.exponential(size=n), 2).astype(np.float32)
    else:
        large = 5.0 + 0.3 * rng.normal(size=n)
        losses = np.where(rng.random(n) < 0.4, large, 0.05 * rng.exponential(size=n))
        losses *= -1.0 if "negative" in kind else 1.0
    objective = so.ScoredMatching(rng.normal(size=n), losses, band * float(np.abs(losses).mean()))
    rules = {"costs": rng.random(n), "capacity": 0.6 * k} if costs else {}
    problem = so.Problem(objective, k, **rules)
    oracle = so.solve(problem, "exhaustive")
    answer = so.solve(problem, "lagrangian", seed=0, options={"work": work})
    if not oracle.has_solution:
        assert not answer.has_solution
        return
    slack = objective.tolerance + 1e-9
    assert answer.status is not so.Status.INFEASIBLE
    assert answer.bound >= oracle.objective - slack
    if answer.status is so.Status.OPTIMAL:
        assert abs(answer.objective - oracle.objective) <= 2.0 * slack
