"""Laws of scored matching, against every subset in turn."""

from __future__ import annotations

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
