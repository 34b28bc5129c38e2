"""What a backend says is checked: wrong optima, lost subsets, lines that it prints."""

from __future__ import annotations

import ctypes
import math
import os

import numpy as np
import pytest

import subsetopt as so
from subsetopt import registry
from subsetopt.quiet import without_native_lines
from subsetopt.solvers.base import RawResult
from subsetopt.solvers.mip.constraint_rows import Frame, frame_of
from subsetopt.solvers.mip.linear_form import LinearForm
from subsetopt.solvers.mip.program import Answer, Form, Limits
from subsetopt.solvers.mip.review import reviewed
from subsetopt.solvers.mip.search import search

MIP = [name for name in ("gurobi", "cpsat", "scip", "highs") if registry.availability(name).usable]


def proves(problem: so.Problem, name: str, seed: int = 0) -> None:
    """Assert that a backend proves the optimum that looking at every subset finds."""
    best = so.solve(problem, "exhaustive")
    answer = so.solve(problem, name, 20.0, seed=seed)
    assert answer.status is so.Status.OPTIMAL
    assert abs(answer.objective - best.objective) <= problem.objective.tolerance
    assert so.verify(problem, answer)


@pytest.mark.parametrize("name", MIP)
def test_quotas_of_one_keep_their_optimum(name: str) -> None:
    # CP-SAT 9.15 added the large coefficients of Booleans that exclude each other in 32 bits.
    losses = [0.538, 1.122, 0.046, 0.117, 3.791, 0.071]
    quotas = {0: (0, 1), 1: (0, 1), 2: (1, 1)}
    problem = so.Problem(so.MeanMatching(losses), 2, groups=[1, 0, 2, 2, 2, 1], quotas=quotas)
    proves(problem, name)


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("seed", [13903874, 0, 2, 3, 7, 10])
def test_losses_in_half_precision_keep_their_optimum(name: str, seed: int) -> None:
    # Gurobi 13 lost it at a feasibility tolerance of 1e-9.
    losses = "0.8188 0.002731 0.03134 0.2705 4.891 0.6558 9.938 0.6748 3.092 0.3855".split()
    proves(so.Problem(so.MeanMatching(np.array(losses, dtype=np.float16)), 4), name, seed)


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("outlier", [1e6, 1e8, 1e10])
@pytest.mark.parametrize("seed", [2, 10, 16])
def test_one_loss_far_above_the_others_hides_none_of_them(
    name: str, outlier: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    losses = rng.exponential(size=11)
    losses[rng.integers(11)] = outlier
    for cardinality in ("exact", "at_most"):
        proves(so.Problem(so.MeanMatching(losses), 4, cardinality), name, seed)
    scored = so.ScoredMatching(rng.normal(size=11), losses, 0.1 * float(losses.mean()))
    problem = so.Problem(scored, 4)
    best = so.solve(problem, "exhaustive")
    answer = so.solve(problem, name, 20.0)
    assert answer.status is best.status
    assert best.status is so.Status.INFEASIBLE or answer.objective == pytest.approx(best.objective)


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("constant", [1e3, 1e6, 1e9])
def test_a_constant_added_to_all_losses_changes_no_proof(name: str, constant: float) -> None:
    values = np.random.default_rng(0).integers(0, 1000, 9) / 7.0
    proves(so.Problem(so.MeanMatching(values + constant), 4), name)
    vectors = np.random.default_rng(1).normal(size=(9, 2)) + constant
    proves(so.Problem(so.VectorMatching(vectors), 3), name)


def test_a_loss_that_no_optimal_subset_has_gets_no_variable() -> None:
    losses = np.array([1e9, 1.0, 1.1, 1.2, 1.3, 1.4])
    problem = so.Problem(so.MeanMatching(losses, target=1.15), 2)
    made = frame_of(problem)
    assert isinstance(made, Frame) and made.size == 6
    form = LinearForm.of(problem, made)
    assert form.frame.items.tolist() == [1, 2, 3, 4, 5]
    needed = so.Problem(so.MeanMatching(losses, target=5e8), 2)
    made = frame_of(needed)
    assert isinstance(made, Frame)
    form = LinearForm.of(needed, made)
    assert form.frame.forced.tolist() == [0]


# Scores, costs, capacity, k: a subset costs 3e-10 to 1e-7 of the capacity more than that.
EDGES = [
    ([5.0, 5.0, 1.0, 0.1, 0.1], [0.5, 0.5 + 6e-10, 0.25, 0.1, 0.1], 1.0, 2),
    ([7.05, 2.06, 3.05, 7.04, 2.1], [0.47, 0.51, 0.35, 0.1300000003015628, 0.47], 0.6, 2),
    (
        [3.09, 5.01, 2.01, 5.05, 5.08, 6.01, 3.06],
        [0.51, 0.55, 0.13, 0.59, 0.58, 0.4100000018279883, 0.25],
        1.5799999999999998,
        3,
    ),
    (
        [5.03, 6.01, 3.01, 6.1, 8.06, 6.09, 4.0],
        [0.5, 0.49, 0.33, 0.15, 0.5800000080778851, 0.49, 0.14],
        1.22,
        3,
    ),
]


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize(("scores", "costs", "capacity", "k"), EDGES)
def test_a_subset_just_above_the_capacity_hides_no_other(
    name: str, scores: list[float], costs: list[float], capacity: float, k: int
) -> None:
    problem = so.Problem(so.TopScores(scores), k, costs=costs, capacity=capacity)
    for seed in range(3):
        proves(problem, name, seed)


@pytest.mark.parametrize("name", MIP)
def test_costs_of_whole_numbers_are_counted_to_the_last_unit(name: str) -> None:
    costs = [2**40, 2**40 + 1, 2**39, 2**39, 7]
    for spare in (0, 1):
        problem = so.Problem(
            so.TopScores([5.0, 6.0, 1.0, 1.5, 0.0]), 2, costs=costs, capacity=2**41 + spare
        )
        proves(problem, name)


@pytest.mark.parametrize("name", MIP)
def test_an_infinite_capacity_is_none(name: str) -> None:
    proves(so.Problem(so.TopScores([1.0, 3.0, 2.0]), 2, costs=[1.0] * 3, capacity=math.inf), name)


def test_choices_that_break_a_constraint_are_cut_off_one_by_one() -> None:
    problem = so.Problem(so.TopScores(np.arange(5.0)), 2, costs=np.arange(5.0), capacity=4.5)
    asked: list[int] = []
    ended = so.StopReason.COMPLETED

    def run(form: Form, start: object, left: Limits, number: int) -> Answer:
        """Answer with the best choice that no cut excludes, whatever it costs."""
        cuts = form.frame.constraints[2:]
        asked.append(len(cuts))
        for pair in ([3, 4], [2, 4], [2, 3], [1, 4], [0, 4], [1, 3]):
            chosen = np.isin(form.frame.items, pair)
            values = [cut.coefficients @ chosen[cut.columns] for cut in cuts]
            if all(value <= cut.high for value, cut in zip(values, cuts, strict=True)):
                return Answer([chosen], -float(sum(pair)) / 4.0, "OPTIMAL", ended, 1)
        raise AssertionError("every choice was cut off")

    raw = search(problem, so.SolveContext(), run)
    assert raw.indices is not None and raw.indices.tolist() == [0, 4]
    assert asked == [0, 1, 2, 3, 4]
    assert raw.bound == pytest.approx(4.0)


def test_a_cut_excludes_one_choice_only() -> None:
    made = frame_of(so.Problem(so.TopScores(np.arange(4.0)), 2, "at_most"))
    assert isinstance(made, Frame)
    chosen = np.array([True, False, True, False])
    row = made.without([chosen]).constraints[-1]
    for bits in np.ndindex(2, 2, 2, 2):
        other = np.array(bits, dtype=np.bool_)
        assert (row.coefficients @ other > row.high) == (other == chosen).all()


MATCHING = so.Problem(so.MeanMatching([1.0, 2.0, 3.0, 6.0, 9.0]), 2)
BAND = so.Problem(so.ScoredMatching([5.0, 1.0, 2.0, 4.0], [1.0, 2.0, 3.0, 6.0], 0.5), 2)


def test_a_bound_that_a_subset_refutes_is_given_up() -> None:
    raw = RawResult(np.array([3, 4]), bound=3.3)
    checked = reviewed(MATCHING, so.SolveContext(), raw)
    assert checked.stop_reason is so.StopReason.NUMERICAL
    assert checked.bound == pytest.approx(so.solve(MATCHING, "exhaustive").objective)
    assert checked.indices is not None
    large = so.Problem(so.MeanMatching(np.random.default_rng(0).exponential(size=64)), 8)
    checked = reviewed(large, so.SolveContext(), RawResult(np.arange(8), bound=0.01))
    assert checked.stop_reason is so.StopReason.NUMERICAL and checked.bound == 0.0
    true = RawResult(np.arange(8), bound=0.0)
    assert reviewed(large, so.SolveContext(), true) is true


def test_infeasible_is_not_believed_where_a_subset_is_feasible() -> None:
    claim = RawResult(None, infeasible=True)
    checked = reviewed(BAND, so.SolveContext(), claim)
    assert not checked.infeasible and checked.indices is not None
    losses = np.random.default_rng(1).exponential(size=64)
    large = so.Problem(so.ScoredMatching(losses[::-1].copy(), losses, 0.1), 16)
    checked = reviewed(large, so.SolveContext(), claim)
    assert not checked.infeasible and checked.indices is not None


def test_infeasible_is_not_believed_where_sizes_alone_constrain() -> None:
    def run(form: Form, start: object, left: Limits, number: int) -> Answer:
        return Answer([], -math.inf, "INFEASIBLE", so.StopReason.COMPLETED, 1)

    raw = search(MATCHING, so.SolveContext(), run)
    assert not raw.infeasible and raw.stop_reason is so.StopReason.NUMERICAL
    assert raw.indices is not None and raw.indices.size == 2


def test_a_search_gives_up_a_bound_beyond_its_own_subset() -> None:
    def run(form: Form, start: object, left: Limits, number: int) -> Answer:
        chosen = np.array([True, False, True, False, False])
        return Answer([chosen], 99.0, "OPTIMAL", so.StopReason.COMPLETED, 1)

    raw = search(MATCHING, so.SolveContext(), run)
    assert raw.stop_reason is so.StopReason.NUMERICAL and raw.bound == 0.0
    assert raw.indices is not None and raw.indices.tolist() == [0, 2]


def test_lines_of_compiled_code_are_dropped_and_all_others_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    library = ctypes.CDLL(None)
    with without_native_lines(b"Highs"):
        library.printf(b"HighsMipSolverData::repaired\n")
        os.write(1, b"written at once\n")
        with without_native_lines(b"Highs"):
            library.puts(b"of another library")
        library.printf(b"Highs again\n")
    library.puts(b"after")
    library.fflush(None)
    assert capfd.readouterr().out == "written at once\nof another library\nafter\n"


@pytest.mark.skipif("highs" not in MIP, reason="needs ortools")
def test_highs_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(30):
        losses = np.exp(2.0 * np.random.default_rng(seed).normal(size=16))
        so.select(losses, 5, solver="highs", seed=0, time_limit=2.0)
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == ""
