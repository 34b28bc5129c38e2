"""Scored matching: the band as a hard constraint, the dual bound, the exact backends."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import subsetopt as so
from subsetopt import registry

RNG = np.random.default_rng(5)
SCORES, LOSSES = RNG.exponential(size=14), RNG.exponential(size=14)


def brute(problem: so.Problem) -> float | None:
    """Return the best score within the band by its definition; None where there is none."""
    objective, k = problem.objective, problem.k
    mean = objective.losses.mean()
    values = [
        objective.scores[list(c)].sum()
        for c in combinations(range(problem.n), k)
        if abs(mean - objective.losses[list(c)].sum() / k) <= objective.band * (1 + 1e-9)
    ]
    return max(values, default=None)


@pytest.mark.parametrize("name", ["lagrangian", "exhaustive", "gurobi", "cpsat", "scip", "highs"])
@pytest.mark.parametrize("tolerance", [0.0, 0.002, 0.05, 10.0])
def test_every_solver_finds_the_optimum_or_proves_that_there_is_none(
    name: str, tolerance: float
) -> None:
    state = registry.availability(name)
    if not state.usable:
        pytest.skip(f"{name}: {state.reason}")
    problem = so.Problem(so.ScoredMatching(SCORES, LOSSES, tolerance), k=5)
    answer, best = so.solve(problem, name, seed=0), brute(problem)
    if best is None:
        assert answer.status is so.Status.INFEASIBLE
    else:
        assert answer.status is so.Status.OPTIMAL
        assert answer.objective == pytest.approx(best, rel=1e-9)
        assert so.verify(problem, answer)


def test_a_subset_outside_the_band_is_not_feasible() -> None:
    problem = so.Problem(so.ScoredMatching(SCORES, LOSSES, 1e-3), k=5)
    top = so.solve(so.Problem(so.TopScores(SCORES), 5), "topk")
    certificate = so.verify(problem, top)
    assert not certificate and not certificate.feasible
    assert "the mean loss is off by" in certificate.violations[0]
    with pytest.raises(so.ProblemError, match="warm start is not feasible: the mean loss is off"):
        so.solve(problem, warm_start=top.indices)


def test_a_solver_that_leaves_the_band_is_caught() -> None:
    class Liar:
        """Returns the top scores."""

        def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
            return so.RawResult(np.argsort(-SCORES)[:5])

    answer = so.solve(so.Problem(so.ScoredMatching(SCORES, LOSSES, 1e-3), k=5), Liar())
    assert answer.status is so.Status.ERROR
    assert "the mean loss is off by" in answer.extras["error"]


def test_the_one_subset_that_sizes_leave_is_judged_too() -> None:
    objective = so.ScoredMatching([1.0, 2.0], [0.0, 1.0], 0.1)
    assert so.solve(so.Problem(objective, k=2)).status is so.Status.OPTIMAL
    answer = so.solve(so.Problem(objective, k=1, include=[1]))
    assert answer.status is so.Status.INFEASIBLE
    assert "sizes leave one subset, and the mean loss is off by 0.5" in answer.extras["why"]


@pytest.mark.parametrize("cardinality", ["exact", "at_most"])
def test_no_sample_has_the_mean_0_where_losses_are_near_each_other(cardinality: str) -> None:
    losses = 1e6 + np.arange(4.0)
    problem = so.Problem(so.ScoredMatching(np.ones(4), losses, 10.0), 0, cardinality)
    assert problem.objective.residual(np.empty(0, np.int64), 0) == losses.mean()
    for solver in ("auto", "lagrangian", "exhaustive"):
        assert so.solve(problem, solver).status is so.Status.INFEASIBLE
    wide = so.Problem(so.ScoredMatching(np.ones(4), losses, 2e6), 0, cardinality)
    assert so.solve(wide).status is so.Status.OPTIMAL


def test_a_band_out_of_reach_is_proved_at_once() -> None:
    losses = np.array([100.0] + [0.0] * 40)
    answer = so.solve(so.Problem(so.ScoredMatching(np.ones(41), losses, 0.1), k=4), "lagrangian")
    assert answer.status is so.Status.INFEASIBLE
    assert answer.extras["why"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [1.0], 0.1), "losses has 1 entries for 2 scores"),
        (([1.0], [1.0], -0.1), "tolerance must be finite and at least 0"),
        (([1.0], [1.0], float("nan")), "tolerance must be finite and at least 0"),
        (([1.0], [1.0], "small"), "tolerance must be a number"),
        (([float("inf")], [1.0], 0.1), "scores must be finite"),
    ],
)
def test_malformed_input_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        so.ScoredMatching(*arguments)


@pytest.mark.parametrize("work", [0, True, 1.5])
def test_malformed_work_is_refused(work: object) -> None:
    problem = so.Problem(so.ScoredMatching(SCORES, LOSSES, 0.1), k=5)
    with pytest.raises(so.OptionError, match="work must be an integer >= 1"):
        so.solve(problem, "lagrangian", options={"work": work})


def test_auto_takes_the_lagrangian() -> None:
    problem = so.Problem(so.ScoredMatching(SCORES, LOSSES, 0.1), k=5)
    assert so.choose_solver(problem).name == "lagrangian"
    assert so.solve(problem, seed=0).status is so.Status.OPTIMAL


@pytest.mark.parametrize("seed", range(40))
def test_large_instances_are_near_optimal_and_bounded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(64, 257))
    k = max(2, int(n * rng.choice([0.1, 0.25, 0.5])))
    losses = rng.exponential(size=n)
    scores = rng.exponential(size=n) if seed % 2 else rng.random(n) * losses
    problem = so.Problem(so.ScoredMatching(scores, losses, 1e-3 * losses.mean()), k)
    answer = so.solve(problem, "lagrangian", seed=0)
    assert so.verify(problem, answer)
    assert answer.relative_gap <= 0.01
    # The multiplier's own Lagrangian, computed here, bounds the answer from above.
    low, high = (k * (losses.mean() + sign * 1e-3 * losses.mean()) for sign in (-1, 1))
    multiplier = answer.extras["multiplier"]
    best = np.sort(scores - multiplier * losses)[-k:].sum()
    dual = best + max(multiplier * low, multiplier * high)
    assert answer.objective <= dual + 1e-6
    assert answer.bound <= dual + 1e-6


def test_little_work_still_gives_a_right_bound() -> None:
    rng = np.random.default_rng(3)
    losses, scores = rng.lognormal(0, 1.5, 96), rng.exponential(size=96)
    problem = so.Problem(so.ScoredMatching(scores, losses, 1e-5), k=12)
    best = so.solve(problem, "lagrangian", seed=0)
    for work in (0, 100, 1_000, 10_000):
        answer = so.solve(problem, "lagrangian", max_iterations=work, seed=0)
        if answer.has_solution:
            assert answer.objective <= best.bound + 1e-9
            assert answer.bound >= best.objective - 1e-9


def test_two_clusters_of_losses_are_solved_by_counting_one() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        large = rng.random(200) < 0.2
        losses = np.where(large, rng.normal(5.0, 0.5, 200), rng.exponential(0.05, 200))
        objective = so.ScoredMatching(rng.exponential(size=200), losses, 1e-3 * losses.mean())
        assert so.solve(so.Problem(objective, 40), "lagrangian").status is so.Status.OPTIMAL


def test_a_band_between_two_sums_that_integers_have_is_proved_empty() -> None:
    losses = np.random.default_rng(0).integers(0, 10, size=101).astype(np.float64)
    assert (50 * losses.mean()) % 1.0 > 0.1
    answer = so.solve(so.Problem(so.ScoredMatching(np.ones(101), losses, 1e-4), 50), "lagrangian")
    assert answer.status is so.Status.INFEASIBLE
    assert "multiples" in answer.extras["why"]
