# ruff: noqa: E501  (a table reads better in one row each)
"""Bad input: the error class and what its message says."""

from __future__ import annotations

import numpy as np
import pytest

import subsetopt as so

LOSSES = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: so.select(np.ones((2, 2)), k=1), so.ProblemError, r"losses must be one-dimensional.*shape \(2, 2\)"),
        (lambda: so.select(np.float32(3.0), k=1), so.ProblemError, "reduction='none'"),
        (lambda: so.select(LOSSES, k=5), so.ProblemError, "k = 5 is not possible with n = 4"),
        (lambda: so.select(LOSSES, k=-1), so.ProblemError, "k = -1 is not possible"),
        (lambda: so.select(LOSSES, k=1.5), so.ProblemError, "k must be an integer, got 1.5; for a fraction use rate"),
        (lambda: so.select(LOSSES, k=True), so.ProblemError, "k must be an integer, got True"),
        (lambda: so.select(LOSSES), so.ProblemError, "pass k .* or rate"),
        (lambda: so.select(LOSSES, k=1, rate=0.5), so.ProblemError, "k or rate, not both"),
        (lambda: so.select(LOSSES, rate=1.5), so.ProblemError, r"rate must be in \[0, 1\], got 1.5"),
        (lambda: so.select(LOSSES, rate="x"), so.ProblemError, "rate must be a number"),
        (lambda: so.select([1.0, np.nan, np.inf], k=1), so.ProblemError, r"positions 1 \(nan\), 2 \(inf\)"),
        (lambda: so.select([1e308, 1e308, 1e308], k=1), so.ProblemError, "overflows float64"),
        (lambda: so.select(["a"], k=1), so.ProblemError, "losses must be real numbers"),
        (lambda: so.select([1j], k=1), so.ProblemError, "losses must be real numbers.*complex"),
        (lambda: so.select(LOSSES, k=1, target="x"), so.ProblemError, "target must be a number or None, got 'x'"),
        (lambda: so.select(LOSSES, k=1, target=np.nan), so.ProblemError, "target must be finite"),
        (lambda: so.select(LOSSES, k=1, base_weights=[1.0]), so.ProblemError, "base_weights has 1 entries for 4"),
        (lambda: so.select(LOSSES, k=1, base_weights=[0.0] * 4), so.ProblemError, "not all 0"),
        (lambda: so.select(LOSSES, k=1, cardinality="most"), so.ProblemError, "'exact' or 'at_most', got 'most'"),
        (lambda: so.select(LOSSES, k=1, include=[4]), so.ProblemError, "include names candidate 4; valid indices are 0 to 3"),
        (lambda: so.select(LOSSES, k=1, include=[0.5]), so.ProblemError, "integer indices or a bool mask"),
        (lambda: so.select(LOSSES, k=1, exclude=[True]), so.ProblemError, r"bool mask of shape \(1,\), expected \(4,\)"),
        (lambda: so.select(LOSSES, k=1, include=[0], exclude=[0]), so.ProblemError, r"both name \[0\]"),
        (lambda: so.select(LOSSES, k=1, quotas={0: 1}), so.ProblemError, "quotas need groups"),
        (lambda: so.select(LOSSES, k=1, groups=[0], quotas={0: 1}), so.ProblemError, r"shape \(4,\), got \(1,\)"),
        (lambda: so.select(LOSSES, k=1, groups=[0] * 4, quotas={0: (2, 1)}), so.ProblemError, r"0 <= low <= high, got \(2, 1\)"),
        (lambda: so.select(LOSSES, k=1, groups=[0] * 4, quotas={0: 0.5}), so.ProblemError, "quota of group 0 must be an int"),
        (lambda: so.select(LOSSES, k=1, costs=[1.0] * 4), so.ProblemError, "costs without capacity"),
        (lambda: so.select(LOSSES, k=1, capacity=1.0), so.ProblemError, "capacity without costs"),
        (lambda: so.select(LOSSES, k=1, costs=[-1.0] * 4, capacity=1), so.ProblemError, "at least 0, got -1.0 at position 0"),
        (lambda: so.select(LOSSES, k=1, costs=[1.0], capacity=1), so.ProblemError, "costs has 1 entries for 4"),
        (lambda: so.select(LOSSES, k=1, costs=[1.0] * 4, capacity="x"), so.ProblemError, "capacity must be a number"),
        (lambda: so.Problem(LOSSES, 1), so.ProblemError, r"objective must be .*MeanMatching\(losses\), got list"),
        (lambda: so.solve(LOSSES), so.ProblemError, "solve takes a Problem, got list; .* use select"),
        (lambda: so.select(LOSSES, k=1, solver="swop"), so.SolverNotFoundError, "no solver named 'swop'. Did you mean 'swap'"),
        (lambda: so.select(LOSSES, k=1, solver=[]), so.OptionError, "empty list"),
        (lambda: so.select(LOSSES, k=1, solver=3), so.OptionError, "solver must be a name"),
        (lambda: so.select(LOSSES, k=1, solver="swap", options={"strat": "random"}), so.OptionError, "no option 'strat'. Did you mean 'start'"),
        (lambda: so.select(LOSSES, k=1, solver="swap", options={"start": "middle"}), so.OptionError, "got 'middle'"),
        (lambda: so.select(LOSSES, k=1, solver="random", options={"x": 1}), so.OptionError, "It has none"),
        (lambda: so.select(LOSSES, k=1, options={"start": "middle"}), so.OptionError, "'random', 'stratified' or 'window', got 'middle'"),
        (lambda: so.select(LOSSES, k=1, backend_params={"a": 1}), so.OptionError, "need a named solver, not 'auto'"),
        (lambda: so.select(LOSSES, k=1, solver="topk", backend_params={"a": 1}), so.OptionError, "no backend"),
        (lambda: so.select(LOSSES, k=1, time_limit=-1), so.OptionError, "at least 0 seconds, got -1"),
        (lambda: so.select(LOSSES, k=1, time_limit="x"), so.OptionError, "must be a number of seconds"),
        (lambda: so.select(LOSSES, k=1, time_limit=np.nan), so.OptionError, "at least 0 seconds"),
        (lambda: so.select(LOSSES, k=1, max_iterations=-1), so.OptionError, "max_iterations must be an integer >= 0"),
        (lambda: so.select(LOSSES, k=1, seed=-1), so.OptionError, "seeds must be nonnegative"),
        (lambda: so.select(LOSSES, k=1, seed=1.5), so.OptionError, "seed must be None"),
        (lambda: so.select(LOSSES, k=2, warm_start=[0]), so.ProblemError, "warm start is not feasible: 1 candidates chosen for k = 2"),
        (lambda: so.available_solvers(feature="warm"), so.OptionError, "Did you mean 'warm_start'"),
    ],
)  # fmt: skip
def test_misuse_raises_with_a_message_that_helps(call, error, message) -> None:
    with pytest.raises(error, match=message):
        call()


def test_an_unsupported_constraint_lists_the_solvers_that_can() -> None:
    problem = so.Problem(so.MeanMatching(LOSSES), 2, costs=[1.0] * 4, capacity=3.0)
    with pytest.raises(
        so.UnsupportedProblemError, match=r"'topk' cannot take the constraint capacity.*swap"
    ):
        so.solve(problem, "topk")
    with pytest.raises(
        so.UnsupportedProblemError, match="'swap' cannot take the objective TopScores"
    ):
        so.solve(so.Problem(so.TopScores(LOSSES), 2), "swap")


def test_every_error_is_a_subsetopt_error_and_a_builtin_one() -> None:
    pairs = {
        so.ProblemError: ValueError,
        so.OptionError: ValueError,
        so.SolverNotFoundError: LookupError,
        so.SolverUnavailableError: ImportError,
        so.SolverLicenseError: RuntimeError,
        so.UnsupportedProblemError: TypeError,
        so.SolverError: RuntimeError,
        so.NoSolutionError: RuntimeError,
        so.InfeasibleError: so.NoSolutionError,
    }
    for error, builtin in pairs.items():
        assert issubclass(error, so.SubsetOptError)
        assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("keywords", "why"),
    [
        ({"k": 2, "include": [0, 1, 2]}, "include names 3 candidates for k = 2"),
        ({"k": 2, "exclude": [0, 1, 2]}, "only 1 candidates may be chosen for k = 2"),
        ({"k": 2, "groups": [0, 0, 1, 1], "quotas": {0: 2, 1: 1}}, "at least 3 candidates, k is 2"),
        ({"k": 2, "groups": [0, 0, 1, 1], "quotas": {7: 1}}, "group 7 has 0 candidates .* asks for 1"),
        ({"k": 3, "groups": [0] * 4, "quotas": {0: (0, 1)}}, "quotas allow at most 1 candidates"),
        ({"k": 2, "groups": [0] * 4, "quotas": {0: 0}, "include": [0]}, "include names 1 of group 0, its quota allows 0"),
        ({"k": 2, "costs": [1.0] * 4, "capacity": 1.5}, "cheapest subset costs 2, above the capacity of 1.5"),
    ],
)  # fmt: skip
def test_impossible_constraints_are_a_status_that_says_why(keywords, why) -> None:
    solution = so.select(LOSSES, **keywords)
    assert solution.status is so.Status.INFEASIBLE
    assert not solution.has_solution
    assert solution.indices.size == 0
    with pytest.raises(so.InfeasibleError, match=why):
        solution.require()


def test_no_time_at_all_is_a_status_too() -> None:
    solution = so.select(LOSSES, k=2, time_limit=0)
    assert solution.status is so.Status.NO_SOLUTION
    assert solution.stop_reason is so.StopReason.TIME
    with pytest.raises(so.NoSolutionError, match="raise time_limit"):
        solution.require()


def test_inputs_are_not_changed() -> None:
    options = {"start": "random"}
    losses = np.array(LOSSES)
    so.select(losses, k=2, solver="swap", options=options, seed=0)
    assert options == {"start": "random"}
    assert losses.tolist() == LOSSES
