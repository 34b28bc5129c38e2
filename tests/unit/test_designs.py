"""Sampling designs: messages, weights, limits, what auto chooses."""

from __future__ import annotations

import numpy as np
import pytest
from clocks import InterruptedClock

import subsetopt as so
from subsetopt.kernels.designs import cube

PI = so.inclusion_probabilities([4.0, 1.0, 1.0, 2.0, 0.5, 1.5], 3)


@pytest.mark.parametrize(
    ("scores", "k", "message"),
    [
        ([1.0, -2.0], 1, r"scores must be at least 0, got -2.0 at position 1"),
        ([1.0, np.nan], 1, r"scores must be finite"),
        ([1.0, 2.0], 3, r"k = 3 is not possible with n = 2 scores"),
        ([1.0, 2.0], 1.0, r"k must be an integer, got 1.0"),
        ([1.0, 2.0], True, r"k must be an integer, got True"),
        ([[1.0, 2.0]], 1, r"scores must be one-dimensional"),
    ],
)
def test_malformed_scores_are_refused(scores: object, k: object, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        so.inclusion_probabilities(scores, k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, -0.1],), r"inclusion must be within \[0, 1\], got -0.1 at position 1"),
        (([0.5, 1.5],), r"inclusion must be within \[0, 1\], got 1.5 at position 1"),
        (([0.5, -0.5], None, True), r"inclusion must be at least 0, got -0.5 at position 1"),
        (([0.5, 0.5], [1.0]), r"balance must have one row per candidate, shape \(2,\) or \(2, p\)"),
        (([0.5, 0.5], [[1.0, 2.0], [np.inf, 1.0]]), r"column 0 of balance must be finite"),
        (([0.5, 0.5], [1e308, -1e308]), r"the sum of column 0 of balance overflows"),
        (([0.5, 0.5], None, "yes"), r"replacement must be True or False, got 'yes'"),
    ],
)
def test_malformed_designs_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        so.SamplingDesign(*arguments)  # type: ignore[arg-type]


def test_inclusion_probabilities_of_denormal_scores_sum_to_k() -> None:
    smallest = float(np.finfo(np.float64).smallest_subnormal)
    scores = np.array([31, 2, 25, 28, 23, 37, 20, 24]) * smallest
    found = so.inclusion_probabilities(scores, 6)
    assert found.sum() == pytest.approx(6.0, abs=1e-12)
    assert found == pytest.approx(so.inclusion_probabilities(scores / smallest, 6), abs=1e-12)


def test_the_size_must_be_the_sum() -> None:
    with pytest.raises(so.ProblemError, match="k = 2, but inclusion sums to 3; it must sum to k"):
        so.Problem(so.SamplingDesign(PI), 2)
    with pytest.raises(so.ProblemError, match="it must sum to k or to 1"):
        so.Problem(so.SamplingDesign(PI, replacement=True), 2)
    assert so.Problem(so.SamplingDesign(PI.astype(np.float32)), 3).k == 3


def test_draw_probabilities_and_expected_counts_mean_the_same() -> None:
    counts = so.Problem(so.SamplingDesign(PI, replacement=True), 3)
    chances = so.Problem(so.SamplingDesign(PI / 3, replacement=True), 3)
    first, second = so.solve(counts, seed=1), so.solve(chances, seed=1)
    assert np.array_equal(first.indices, second.indices)
    assert np.allclose(first.weights, second.weights)
    assert np.allclose(first.weights, 1.0 / (6 * PI[first.indices]))


def test_repeated_draws_appear_repeatedly() -> None:
    problem = so.Problem(so.SamplingDesign([0.98, 0.01, 0.01], replacement=True), 3)
    answer = so.solve(problem, seed=0)
    assert answer.solver == "multinomial"
    assert answer.indices.tolist() == [0, 0, 0]
    assert np.allclose(answer.weights, 1 / (3 * 0.98 * 3))
    assert so.verify(problem, answer)
    assert answer.mask.tolist() == [True, False, False]


def test_auto_balances_where_there_is_something_to_balance() -> None:
    assert so.choose_solver(so.Problem(so.SamplingDesign(PI), 3)).name == "systematic"
    assert so.choose_solver(so.Problem(so.SamplingDesign(PI, PI), 3)).name == "cube"
    drawn = so.Problem(so.SamplingDesign(PI, PI, replacement=True), 3)
    assert so.choose_solver(drawn).name == "multinomial"
    assert so.solve(drawn, time_limit=1.0).status is so.Status.FEASIBLE


def test_designs_are_told_apart_before_work_starts() -> None:
    with pytest.raises(so.UnsupportedProblemError, match="Solvers that can: systematic, cube"):
        so.solve(so.Problem(so.SamplingDesign(PI), 3), "multinomial")
    with pytest.raises(so.UnsupportedProblemError, match="the constraint exclude"):
        so.solve(so.Problem(so.SamplingDesign(PI), 3, exclude=[1]), "cube")


@pytest.mark.parametrize("solver", ["systematic", "cube"])
def test_probabilities_of_0_and_1_decide(solver: str) -> None:
    pi = np.array([1.0, 0.0, 0.5, 0.5, 1e-13, 1.0 - 1e-13])
    for balance in (None, np.arange(6.0)):
        problem = so.Problem(so.SamplingDesign(pi, balance), 3)
        for seed in range(20):
            answer = so.solve(problem, solver, seed=seed)
            assert {0, 5} < set(answer.indices.tolist()) <= {0, 2, 3, 5}


def test_the_objective_is_the_largest_relative_deviation() -> None:
    balance = np.array([[1.0, 1.0], [2.0, -1.0], [3.0, 0.5]])
    design = so.SamplingDesign([0.5, 0.5, 1.0], balance)
    problem = so.Problem(design, 2)
    answer = so.solve(problem, "systematic", seed=0)
    totals = (balance[answer.indices] / design.inclusion[answer.indices, None]).sum(axis=0)
    # The second total, 0.5, is less than its magnitudes, 2.5.
    expected = max(abs(totals[0] - 6.0) / 6.0, abs(totals[1] - 0.5) / 2.5)
    assert answer.objective == pytest.approx(expected)
    assert design.evaluate(np.array([0, 2]), np.zeros(2)) == 1.0
    assert so.SamplingDesign([1.0], [0.0]).evaluate(np.array([0]), np.ones(1)) == 0.0


def test_what_was_tampered_with_does_not_verify() -> None:
    problem = so.Problem(so.SamplingDesign(PI), 3)
    answer = so.solve(problem, seed=0)
    for name, wrong in (("weights", answer.weights * 1.01), ("indices", answer.indices[:2])):
        fields = {"indices": answer.indices, "weights": answer.weights, name: wrong}
        if name == "indices":
            fields["weights"] = answer.weights[:2]
        tampered = so.Solution(
            fields["indices"], fields["weights"], 6, answer.objective, answer.bound,
            answer.status, answer.stop_reason, answer.solver,
        )  # fmt: skip
        assert not so.verify(problem, tampered)


def test_a_warm_start_only_stands_in_when_there_is_no_time() -> None:
    problem = so.Problem(so.SamplingDesign(PI, PI**2), 3)
    start = so.solve(problem, seed=5)
    kept = so.solve(problem, "cube", time_limit=0, warm_start=start)
    assert np.array_equal(kept.indices, start.indices)
    never = so.Problem(so.SamplingDesign([1.0, 0.0, 0.5, 0.5]), 2)
    with pytest.raises(so.ProblemError, match="drawn with inclusion probability 0"):
        so.solve(never, "cube", warm_start=[0, 1])
    with pytest.raises(so.ProblemError, match="not drawn with inclusion probability 1"):
        so.solve(never, "cube", warm_start=[2, 3])


def test_an_interrupt_ends_the_flight_with_a_draw() -> None:
    rng = np.random.default_rng(0)
    pi = so.inclusion_probabilities(rng.random(5000), 500)
    problem = so.Problem(so.SamplingDesign(pi, rng.random((5000, 3))), 500)
    deadline = so.Deadline(3600.0, clock=InterruptedClock(4))
    answer = so.solve(problem, "cube", deadline, seed=0, on_interrupt="return")
    assert answer.stop_reason is so.StopReason.INTERRUPTED
    assert 0 < answer.iterations < 5000
    assert so.verify(problem, answer)


def test_many_designs_at_once() -> None:
    problems = [so.Problem(so.SamplingDesign(PI, PI**2), 3)] * 3
    answers = so.solve_many(problems, seed=4)
    for i, answer in enumerate(answers):
        assert np.array_equal(answer.indices, so.solve(problems[i], seed=(4, i)).indices)


@pytest.mark.parametrize("name", ["cube", "systematic"])
def test_unknown_orders_are_refused(name: str) -> None:
    with pytest.raises(so.OptionError, match="order must be"):
        so.solve(so.Problem(so.SamplingDesign(PI), 3), name, options={"order": "sorted"})


def test_compiled_code_returns_no_arrays() -> None:
    """They would be made by calls of Python, which a pending interrupt can turn into a crash."""
    rng = np.random.default_rng(0)
    for n in (40, 5000):
        pi = so.inclusion_probabilities(rng.random(n), n // 10)
        problem = so.Problem(so.SamplingDesign(pi, rng.random((n, 3))), n // 10)
        so.solve(problem, "cube", seed=0)
    returned = {
        name: str(signature.return_type)
        for name in ("add_column", "draw", "fly", "land", "restart")
        for signature in getattr(cube, name).nopython_signatures
    }
    assert returned.keys() == {"add_column", "draw", "fly", "land", "restart"}
    assert not [name for name, kind in returned.items() if "rray" in kind]


def test_a_flight_that_is_out_of_time_before_it_starts_is_drawn_systematically() -> None:
    rng = np.random.default_rng(0)
    pi = so.inclusion_probabilities(rng.random(60_000), 500)
    problem = so.Problem(so.SamplingDesign(pi, rng.random((60_000, 9))), 500)
    ticks = iter(range(10**6))
    deadline = so.Deadline(5.0, clock=lambda: next(ticks))
    answer = so.solve(problem, "cube", deadline, seed=0)
    assert answer.stop_reason is so.StopReason.TIME
    assert answer.iterations == 0
    assert so.verify(problem, answer)
