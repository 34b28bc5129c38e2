"""Backends on vectors, facilities and centers: limits, licenses, warm starts, what auto does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import subsetopt as so
from subsetopt import auto, registry
from subsetopt.instances import vectors
from subsetopt.solvers.base import Solver
from subsetopt.solvers.mip import mathopt_
from subsetopt.solvers.mip.constraint_rows import Frame, Rows, frame_of
from subsetopt.solvers.mip.program import Answer, Form, Limits, Program
from subsetopt.solvers.mip.search import search

MIP = [name for name in ("gurobi", "cpsat", "scip", "highs") if name in so.available_solvers()]
POINTS = vectors(60, 3, seed=1)


def hard() -> dict[str, so.Problem]:
    """Return problems that take a backend a while."""
    gaussian = np.random.default_rng(0).normal(size=(128, 10))
    return {
        "vectors": so.Problem(so.VectorMatching(gaussian), k=40),
        "facilities": so.Problem(so.FacilityLocation(vectors(40, 8)), k=6),
        "centers": so.Problem(so.KCenter(gaussian[:, :4]), k=20),
    }


def need(name: str) -> None:
    if name not in MIP:
        pytest.skip(f"{name}: {registry.availability(name).reason}")


def limited_license() -> bool:
    from subsetopt.solvers.mip import gurobi_

    with gurobi_.environment(None) as env:
        return not gurobi_.unlimited(env)


def test_rows_of_both_kinds_are_stacked() -> None:
    problem = so.Problem(so.VectorMatching(POINTS), 3, groups=np.arange(60) % 2, quotas={0: (1, 2)})
    made = frame_of(problem)
    assert isinstance(made, Frame)
    ends = np.array([0.0, 5.0])
    entries = np.array([0, 1, 1]), np.array([4, 0, 60]), np.array([2.0, 3.0, -1.0])
    matrix = made.rows(Rows(*entries, -ends, ends))
    dense = np.zeros((matrix.low.size, 61))
    dense[matrix.rows, matrix.columns] = matrix.coefficients
    assert np.array_equal(dense[0, :60], np.ones(60))
    assert np.array_equal(dense[1, :60], 1.0 - np.arange(60) % 2)
    assert matrix.low.tolist() == [3.0, 1.0, 0.0, -5.0]
    assert dense[2, 4] == 2.0 and dense[3, 0] == 3.0 and dense[3, 60] == -1.0
    assert matrix.starts.tolist() == [0, 60, 90, 91, 93]


def test_the_bound_of_a_square_is_a_little_less_than_its_root() -> None:
    nothing = np.empty(0, dtype=np.int64)
    rows = Rows(nothing, nothing, np.empty(0), np.empty(0), np.empty(0))
    program = Program(np.zeros(3), np.full(2, np.inf), rows, None, 0.0, 1e3, squares=2)
    assert program.size == 1
    for norm in (1e-2, 1.0, 50.0, 4e4):
        assert norm * (1.0 - 1e-2) / 1e3 <= program.bound(norm**2) < norm / 1e3
    assert program.bound(1e-7) == 0.0


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("limit", [0.05, 0.4])
@pytest.mark.parametrize("kind", ["vectors", "facilities", "centers"])
def test_what_a_time_limit_leaves_is_valid(name: str, limit: float, kind: str) -> None:
    problem = hard()[kind]
    so.solve(so.Problem(so.VectorMatching(POINTS[:8]), 2), name, time_limit=20)
    solution = so.solve(problem, name, time_limit=limit, seed=0)
    assert so.verify(problem, solution) or solution.stop_reason is so.StopReason.TIME


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("kind", ["vectors", "facilities", "centers"])
def test_without_time_the_warm_start_is_kept(name: str, kind: str) -> None:
    problem = hard()[kind]
    start = np.arange(problem.k)
    solution = so.solve(problem, name, time_limit=1e-4, warm_start=start)
    assert solution.indices.tolist() == start.tolist()
    assert solution.solver == "warm-start"
    assert solution.stop_reason is so.StopReason.TIME


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("kind", ["vectors", "facilities", "centers"])
def test_a_warm_start_is_never_lost(name: str, kind: str) -> None:
    problem = hard()[kind]
    start = so.solve(problem, seed=0)
    sign = 1.0 if problem.objective.sense == "minimize" else -1.0
    solution = so.solve(problem, name, max_iterations=1, warm_start=start, seed=0)
    assert sign * solution.objective <= sign * start.objective
    assert so.verify(problem, solution)


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("kind", ["vectors", "facilities", "centers"])
def test_a_work_limit_reproduces(name: str, kind: str) -> None:
    problem = hard()[kind]
    runs = [so.solve(problem, name, max_iterations=20, seed=7) for _ in range(2)]
    assert runs[0].indices.tolist() == runs[1].indices.tolist()
    assert runs[0].bound == runs[1].bound


def with_little_work(name: str) -> Solver:
    options = {"gurobi": {"work_limit": 0.1, "threads": 1}, "cpsat": {"work_limit": 0.05}}
    return registry.create(name, options.get(name, {"node_limit": 20}))


@pytest.mark.parametrize("name", MIP)
def test_the_default_work_limit_ends_without_a_clock(name: str) -> None:
    solution = so.solve(hard()["vectors"], with_little_work(name), seed=0)
    assert solution.stop_reason in (so.StopReason.NODE, so.StopReason.ITERATION)


@pytest.mark.parametrize("name", MIP)
def test_runs_share_the_work(name: str) -> None:
    problem = so.Problem(so.VectorMatching(vectors(30, 10, seed=2)), k=5)
    options = {"form": "absolute", "threads": 1} if name == "gurobi" else None
    few, more = (
        so.solve(problem, name, max_iterations=work, seed=0, options=options) for work in (10, 400)
    )
    assert few.stop_reason is not so.StopReason.COMPLETED
    assert few.iterations < more.iterations
    assert few.bound <= more.objective and more.bound <= few.objective


@pytest.mark.parametrize("kind", ["vectors", "facilities", "centers"])
def test_an_interrupted_search_returns_what_was_found(kind: str) -> None:
    problem = hard()[kind]
    found = so.solve(problem, "random" if kind == "vectors" else "auto", seed=0).indices

    def run(form: Form, start: NDArray[np.bool_] | None, left: Limits, number: int) -> Answer:
        chosen = form.frame.choice(found)
        assert chosen is not None
        return Answer([chosen], -np.inf, "INTERRUPTED", so.StopReason.INTERRUPTED, 3)

    raw = search(problem, so.SolveContext(), run)
    assert raw.stop_reason is so.StopReason.INTERRUPTED
    assert raw.iterations == 3
    assert raw.indices is not None
    objective, weights = problem.objective, np.full(problem.k, 1.0 / problem.k)
    values = [objective.evaluate(np.sort(chosen), weights) for chosen in (raw.indices, found)]
    # K-center may have begun with something better.
    assert values[0] == values[1] or (kind == "centers" and values[0] < values[1])


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("scale", [1e-290, 1e-30, 1e30, 1e150])
def test_proofs_do_not_depend_on_the_unit(name: str, scale: float) -> None:
    plain = so.Problem(so.VectorMatching(POINTS[:14]), k=4)
    scaled = so.Problem(so.VectorMatching(POINTS[:14] * scale), k=4)
    one, other = (so.solve(p, name, time_limit=20, seed=0) for p in (plain, scaled))
    assert one.status is other.status is so.Status.OPTIMAL
    assert one.indices.tolist() == other.indices.tolist()
    assert other.objective / scale == pytest.approx(one.objective)


@pytest.mark.parametrize("name", MIP)
def test_a_match_ends_with_target(name: str) -> None:
    points = np.vstack([POINTS[:6], -POINTS[:6]])
    solution = so.solve(so.Problem(so.VectorMatching(points), k=2), name, time_limit=20, seed=0)
    assert solution.status is so.Status.OPTIMAL
    assert solution.stop_reason is so.StopReason.TARGET


@pytest.mark.parametrize("name", MIP)
def test_the_optimum_of_centers_is_below_farthest_first(name: str) -> None:
    problem = so.Problem(so.KCenter(POINTS), k=5)
    first = so.solve(problem, "farthest-first", seed=0)
    solution = so.solve(problem, name, time_limit=20, seed=0)
    assert solution.status is so.Status.OPTIMAL
    assert first.bound <= solution.objective <= first.objective
    assert solution.extras["programs"] <= 13


@pytest.mark.parametrize("name", MIP)
def test_too_large_is_refused_before_work_starts(name: str) -> None:
    large = np.zeros((1001, 2))
    for objective, message in (
        (so.FacilityLocation(large), r"at most 100 samples .*got n = 1,001; use 'lazy-greedy'"),
        (so.KCenter(large), r"KCenter of at most 300 samples, got n = 1,001"),
        (so.VectorMatching(np.zeros((1001, 200))), r"at most 25,000 numbers .*1,001 x 200"),
    ):
        with pytest.raises(so.UnsupportedProblemError, match=message):
            so.solve(so.Problem(objective, 3), name, time_limit=20)


@pytest.mark.skipif("highs" not in MIP, reason="needs ortools")
@pytest.mark.parametrize("failures", [{1}, {1, 2, 3}, {3, 4, 5, 6}, {1, 2, 3, 4}])
def test_a_failing_backend_gets_further_tries(
    failures: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerances: list[float] = []
    native_call = mathopt_.call

    def call(*args: Any) -> object:
        native = args[3].highs.double_options
        tolerances.append(native["mip_feasibility_tolerance"])
        if len(tolerances) in failures:
            raise so.SolverError("HIGHS: broken")
        return native_call(*args)

    monkeypatch.setattr(mathopt_, "call", call)
    problem = so.Problem(so.VectorMatching(vectors(20, 6, seed=4)), k=5)
    if failures == {1, 2, 3, 4}:
        with pytest.raises(so.SolverError, match="HIGHS: broken"):
            so.solve(problem, "highs", time_limit=30)
        assert len(set(tolerances)) == 4
        return
    answer = so.solve(problem, "highs", time_limit=30)
    assert so.verify(problem, answer)
    if 1 in failures:
        assert answer.status is so.Status.OPTIMAL
    else:
        assert answer.stop_reason is so.StopReason.NUMERICAL
        assert answer.extras["native_status"] == "ERROR"
        assert answer.bound > 0.0


class TestGurobi:
    """What the license and the two forms of vectors change."""

    @pytest.fixture(autouse=True)
    def _needed(self) -> None:
        need("gurobi")

    def test_both_forms_end_at_one_optimum(self) -> None:
        problem = so.Problem(so.VectorMatching(vectors(24, 4, seed=3)), k=6)
        forms = [{"form": "quadratic"}, {"form": "absolute"}, {}]
        answers = [so.solve(problem, "gurobi", time_limit=30, options=form) for form in forms]
        assert all(answer.status is so.Status.OPTIMAL for answer in answers)
        assert len({tuple(answer.indices) for answer in answers}) == 1
        assert answers[0].extras["programs"] == 1 < answers[1].extras["programs"]

    def test_nonnegative_weights_are_proved(self) -> None:
        objective = so.VectorMatching(vectors(14, 6), weights="nonnegative")
        problem = so.Problem(objective, k=3, include=[2])
        answer = so.solve(problem, "gurobi", time_limit=30)
        oracle = so.solve(problem, "exhaustive")
        assert answer.status is so.Status.OPTIMAL
        assert answer.objective == pytest.approx(oracle.objective, rel=1e-9)
        message = "absolute values cannot bound nonnegative weights; use form='quadratic'"
        with pytest.raises(so.UnsupportedProblemError, match=message):
            so.solve(problem, "gurobi", options={"form": "absolute"})

    def test_the_license_is_told_and_gone_around(self) -> None:
        if not limited_license():
            pytest.skip("the license here is not limited in size")
        facility = so.Problem(so.FacilityLocation(POINTS), k=4)
        with pytest.raises(so.SolverLicenseError, match="60 candidates make 3,660 variables"):
            so.solve(facility, "gurobi", time_limit=20)
        many = so.Problem(so.VectorMatching(vectors(300, 4)), k=5)
        with pytest.raises(so.SolverLicenseError, match=r"304 variables.*form='absolute'"):
            so.solve(many, "gurobi", time_limit=20, options={"form": "quadratic"})
        answer = so.solve(many, "gurobi", time_limit=0.3)
        assert so.verify(many, answer)
        weighted = so.Problem(so.VectorMatching(vectors(300, 4), weights="nonnegative"), k=2)
        with pytest.raises(so.SolverLicenseError, match=r"604 variables.*solver='omp'"):
            so.solve(weighted, "gurobi", time_limit=20)

    def test_the_license_takes_what_the_message_says(self) -> None:
        for n in (44, 45):
            problem = so.Problem(so.FacilityLocation(vectors(n, 3)), k=4)
            if n == 44 or not limited_license():
                answer = so.solve(problem, "gurobi", time_limit=30)
                assert answer.status is so.Status.OPTIMAL
            else:
                with pytest.raises(so.SolverLicenseError, match="facility location of 44"):
                    so.solve(problem, "gurobi", time_limit=30)

    def test_an_unknown_form_is_refused(self) -> None:
        problem = so.Problem(so.VectorMatching(POINTS), k=3)
        message = "form must be 'auto', 'quadratic' or 'absolute', got 'square'"
        with pytest.raises(so.OptionError, match=message):
            so.solve(problem, "gurobi", options={"form": "square"})


@pytest.mark.skipif("highs" not in MIP, reason="needs ortools")
def test_auto_proves_facilities_where_a_license_is_too_small() -> None:
    problem = so.Problem(so.FacilityLocation(POINTS), k=4)
    answer = so.solve(problem, time_limit=30, seed=0)
    assert answer.status is so.Status.OPTIMAL
    if "gurobi" in MIP and limited_license():
        assert answer.extras["fallbacks"][0][0] == "gurobi"


@pytest.mark.skipif(not MIP, reason="needs a mixed-integer backend")
def test_auto_proves_what_backends_can() -> None:
    for objective, k in (
        (so.KCenter(POINTS), 5),
        (so.VectorMatching(vectors(30, 10, seed=1)), 5),
    ):
        assert so.solve(so.Problem(objective, k), time_limit=20, seed=0).status is so.Status.OPTIMAL


def due(problem: so.Problem, seconds: float | None) -> bool:
    return auto._backend_due(problem, so.SolveContext(so.Deadline(seconds)))


def test_auto_leaves_hopeless_vectors_to_swap() -> None:
    small = so.Problem(so.VectorMatching(vectors(30, 10)), k=5)
    assert due(small, 2.0) and not due(small, 0.5) and not due(small, None)
    assert not due(so.Problem(so.VectorMatching(vectors(128, 10)), k=13), 60.0)
    assert not due(so.Problem(so.FacilityLocation(np.zeros((500, 2))), k=5), 60.0)
    parts = [auto._part(so.Deadline(8.0), share).seconds for share in (0.25, 0.5, 1.0)]
    assert all(first < second for first, second in pairwise(parts))
    assert parts[2] == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("kind", ["mean", "vectors", "zeros"])
def test_a_target_far_beyond_all_values_is_no_trouble(name: str, kind: str) -> None:
    values = {"mean": np.arange(5.0), "vectors": np.eye(5, 3), "zeros": np.zeros((4, 2))}[kind]
    for size in (1e29, 1e248):
        if kind == "mean":
            objective = so.MeanMatching(values * 1e-281, -size)
        else:
            objective = so.VectorMatching(values * 1e-281, np.full(values.shape[1], size))
        answer = so.solve(so.Problem(objective, 2), name, time_limit=20.0, seed=0)
        assert answer.has_solution and answer.bound <= answer.objective


@pytest.mark.parametrize("name", MIP)
def test_a_band_around_denormal_losses_is_searched(name: str) -> None:
    losses = np.array([-29.0, 0.0, 5.0]) * 5e-324
    problem = so.Problem(so.ScoredMatching([0.9, 0.5, 0.1], losses, 2e-322), 1)
    answer = so.solve(problem, name, time_limit=20.0, seed=0)
    assert answer.status is so.Status.OPTIMAL and answer.indices.tolist() == [0]
