"""All MIP backends against enumeration, and what is particular to CP-SAT, SCIP and HiGHS."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import subsetopt as so

pytest.importorskip("ortools")
from subsetopt.solvers.mip import cpsat_, mathopt_
from subsetopt.solvers.mip.cpsat_ import CPSat
from subsetopt.solvers.mip.mathopt_ import Highs, Scip

MIP = [name for name in ("gurobi", "cpsat", "scip", "highs") if name in so.available_solvers()]
OURS = ["cpsat", "scip", "highs"]


def best_of(problem: so.Problem) -> float | None:
    """Return the optimum by looking at every subset; None when there is none."""
    sign = 1.0 if problem.objective.sense == "minimize" else -1.0
    sizes = range(problem.k + 1) if problem.cardinality == "at_most" else [problem.k]
    values = []
    for subset in itertools.chain(*(itertools.combinations(range(problem.n), m) for m in sizes)):
        indices = np.array(subset, dtype=np.int64)
        if not problem.constraints.violations(indices):
            weights = problem.objective.weights_for(indices, problem.k)
            values.append(sign * problem.objective.evaluate(indices, weights))
    return sign * min(values) if values else None


def random_values(rng: np.random.Generator, n: int) -> Any:
    kinds: list[Any] = [
        rng.exponential(size=n).astype(np.float32),
        rng.exponential(size=n),
        rng.normal(size=n).astype(np.float32),
        rng.integers(0, 10, n),
        rng.choice([0.1, 0.2, 0.7], n).astype(np.float32),
        np.zeros(n),
        np.full(n, 3.25),
        rng.exponential(size=n) * 1e300,
        rng.integers(0, 50, n) * 5e-324,
        np.append(rng.exponential(size=n - 1), 1e6),
    ]
    return kinds[int(rng.integers(len(kinds)))]


def random_problems(count: int) -> Iterator[so.Problem]:
    rng = np.random.default_rng(20240607)
    for i in range(count):
        n = int(rng.integers(2, 11))
        values = random_values(rng, n)
        objective: Any = so.TopScores(values) if i % 3 == 0 else so.MeanMatching(values)
        rules: dict[str, Any] = {}
        if rng.random() < 0.3:
            rules["cardinality"] = "at_most"
        if rng.random() < 0.3:
            rules |= {"include": [0], "exclude": [n - 1]}
        if rng.random() < 0.3:
            rules |= {"groups": rng.integers(0, 3, n), "quotas": {0: (0, 2), 1: (1, 5)}}
        if rng.random() < 0.4:
            costs = rng.integers(0, 5, n) * 0.1 if rng.random() < 0.5 else rng.exponential(size=n)
            rules |= {"costs": costs, "capacity": float(0.5 * costs.sum())}
        yield so.Problem(objective, int(rng.integers(1, n)), **rules)


@pytest.mark.parametrize("name", MIP)
def test_exact_on_everything_small(name: str) -> None:
    for problem in random_problems(150):
        best = best_of(problem)
        solution = so.solve(problem, name, time_limit=5, seed=1)
        if best is None:
            assert solution.status is so.Status.INFEASIBLE
            continue
        sign = 1.0 if problem.objective.sense == "minimize" else -1.0
        tolerance = problem.objective.tolerance
        assert solution.has_solution, problem
        assert so.verify(problem, solution), problem
        assert sign * (solution.bound - best) <= tolerance, problem
        assert sign * (solution.objective - best) >= -tolerance, problem
        if solution.status is so.Status.OPTIMAL:
            assert abs(solution.objective - best) <= tolerance, problem
        else:
            assert abs(solution.objective - best) <= 1e-6 * max(abs(best), 1.0), problem


@pytest.mark.parametrize("name", MIP)
def test_an_optimum_above_the_tolerance_is_proved(name: str) -> None:
    losses = np.array([0.0, 1.0, 2.0, 3.0, 100.0, 200.0, 400.0], dtype=np.float32)
    problem = so.Problem(so.MeanMatching(losses), k=3)
    solution = so.solve(problem, name, time_limit=10, seed=0)
    assert solution.status is so.Status.OPTIMAL
    assert solution.objective == pytest.approx(best_of(problem), rel=1e-12)
    assert solution.bound > 0.0


def test_cpsat_is_not_lost_in_the_symmetries_of_ties() -> None:
    losses = [0, 5, 4, 4, 0, 1, 9, 7, 7]
    solution = so.select(losses, k=5, solver="cpsat", time_limit=5, seed=1)
    assert solution.status is so.Status.OPTIMAL


def test_cpsat_keeps_the_optimum_of_a_knapsack() -> None:
    # Lost by the presolve of OR-Tools 9.15 when left on.
    scores = np.array(
        "0.91858625 2.4241867 0.70668846 3.7118616 0.00824874 2.8331695 1.0319046 0.03369618 "
        "0.7362112".split(),
        dtype=np.float32,
    )
    problem = so.Problem(
        so.TopScores(scores),
        6,
        "at_most",
        groups=[1, 2, 2, 2, 0, 0, 1, 0, 0],
        quotas={0: (0, 2), 1: (1, 5)},
        costs=[0.3, 0.4, 0.4, 0.2, 0.0, 0.1, 0.4, 0.2, 0.1],
        capacity=1.05,
    )
    solution = so.solve(problem, "cpsat", time_limit=5, seed=1)
    assert solution.objective == pytest.approx(best_of(problem), abs=1e-8)


def test_cpsat_reaches_float32_precision_on_the_batch_of_the_paper() -> None:
    losses = np.random.default_rng(0).exponential(size=128).astype(np.float32)
    solution = so.select(losses, k=13, solver=CPSat(work_limit=100.0), seed=0)
    assert solution.status is so.Status.OPTIMAL
    assert solution.relative_gap <= np.finfo(np.float32).eps


@pytest.mark.parametrize("name", ["scip", "highs"])
def test_a_batch_of_128_gets_a_verified_answer(name: str) -> None:
    losses = np.random.default_rng(1).exponential(size=128).astype(np.float32)
    problem = so.Problem(so.MeanMatching(losses), k=13)
    solution = so.solve(problem, name, time_limit=4, seed=0)
    assert so.verify(problem, solution)
    assert solution.relative_gap <= 1e-4


@pytest.mark.parametrize("name", MIP)
@pytest.mark.parametrize("limit", [0.02, 0.3])
def test_a_time_limit_ends_the_search(name: str, limit: float) -> None:
    losses = np.random.default_rng(3).exponential(size=128)
    so.select(losses[:10], k=2, solver=name, time_limit=20)
    solution = so.select(losses, k=13, solver=name, time_limit=limit, seed=0)
    assert solution.stop_reason is so.StopReason.TIME


def test_highs_refuses_a_limit_that_it_would_not_keep() -> None:
    losses = np.random.default_rng(5).exponential(size=1101)
    with pytest.raises(so.UnsupportedProblemError, match=r"HIGHS keeps a time limit up to 1,100"):
        so.select(losses, rate=0.1, solver="highs", time_limit=5.0)
    answer = so.select(losses, rate=0.1, solver=["highs", "swap"], time_limit=5.0, seed=0)
    assert answer.solver == "swap" and answer.extras["fallbacks"][0][0] == "highs"
    # Excluded candidates have no variable.
    few = so.select(losses, k=5, solver="highs", time_limit=0.5, exclude=np.arange(40, 1101))
    assert few.has_solution


@pytest.mark.parametrize("name", ["cpsat", "scip"])
def test_a_model_is_not_built_for_a_limit_that_it_would_outlast(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("a model was built")

    losses = np.random.default_rng(6).exponential(size=50_000)
    so.select(losses[:10], k=2, solver=name, time_limit=20)
    monkeypatch.setattr(mathopt_, "_build", never)
    monkeypatch.setattr(cpsat_, "_build", never)
    late = so.select(losses, rate=0.1, solver=name, time_limit=0.05)
    assert late.status is so.Status.NO_SOLUTION and late.stop_reason is so.StopReason.TIME


@pytest.mark.parametrize("name", MIP)
def test_without_time_the_warm_start_is_kept(name: str) -> None:
    losses = np.random.default_rng(4).exponential(size=64)
    start = np.arange(6)
    solution = so.select(losses, k=6, solver=name, time_limit=1e-4, warm_start=start)
    assert solution.indices.tolist() == start.tolist()
    assert solution.solver == "warm-start"


@pytest.mark.parametrize("name", MIP)
def test_the_warm_start_is_never_lost(name: str) -> None:
    losses = np.random.default_rng(5).exponential(size=48)
    start = so.select(losses, k=6, solver="cpsat", max_iterations=2000, seed=0)
    solution = so.select(losses, k=6, solver=name, max_iterations=1, warm_start=start, seed=0)
    assert solution.objective <= start.objective


def test_cpsat_starts_from_the_hint() -> None:
    losses = np.random.default_rng(5).exponential(size=48)
    start = np.arange(6)
    raw = CPSat().solve(
        so.Problem(so.MeanMatching(losses), k=6),
        so.SolveContext(max_iterations=0, warm_start=start),
    )
    assert raw.indices is None or raw.indices.size == 6


@pytest.mark.parametrize("name", MIP)
def test_a_work_limit_reproduces(name: str) -> None:
    losses = np.random.default_rng(6).exponential(size=64)
    runs = [so.select(losses, k=8, solver=name, max_iterations=50, seed=7) for _ in range(2)]
    assert runs[0].indices.tolist() == runs[1].indices.tolist()
    assert runs[0].bound == runs[1].bound
    assert runs[0].stop_reason in (so.StopReason.NODE, so.StopReason.ITERATION)


@pytest.mark.parametrize(
    "solver", [CPSat(work_limit=0.05), Scip(node_limit=50), Highs(node_limit=20)]
)
def test_the_default_work_limit_ends_without_a_clock(solver: Any) -> None:
    losses = np.random.default_rng(6).exponential(size=128)
    solution = so.select(losses, k=13, solver=solver, seed=0)
    assert solution.stop_reason in (so.StopReason.NODE, so.StopReason.ITERATION)


@pytest.mark.parametrize("name", OURS)
def test_unknown_backend_params_are_named(name: str) -> None:
    params = {"no_such_parameter": 1}
    with pytest.raises(so.OptionError, match="no_such_parameter"):
        so.select([1.0, 2.0, 3.5], k=1, solver=name, backend_params=params)
    assert params == {"no_such_parameter": 1}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("cpsat", {"num_workers": 1, "cp_model_presolve": False}),
        ("scip", {"separating/maxrounds": 0, "threads": 1}),
        ("highs", {"mip_heuristic_effort": 0.1, "node_limit": 100}),
    ],
)
def test_known_backend_params_are_taken(name: str, params: dict[str, Any]) -> None:
    solution = so.select([1.0, 2.0, 3.5, 9.0], k=2, solver=name, backend_params=params)
    assert solution.status is so.Status.OPTIMAL


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CPSat(threads=0), "threads must be an integer >= 1, got 0"),
        (lambda: CPSat(work_limit=-1.0), "work_limit must be a positive finite number"),
        (lambda: Scip(node_limit=0), "node_limit must be an integer >= 1, got 0"),
        (lambda: Highs(band_share=1.0), r"band_share must be within \(0, 1\), got 1.0"),
    ],
)
def test_hyperparameters_are_checked(make: Any, message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make()


def test_an_unknown_native_status_is_never_optimal() -> None:
    deadline = so.Deadline(None)
    assert cpsat_.meaning("NEW_STATUS", deadline, False) is so.StopReason.OTHER
    termination = SimpleNamespace(reason=SimpleNamespace(name="NEW_STATUS"))
    word, reason = mathopt_.meaning(SimpleNamespace(termination=termination), interrupted=False)
    assert (word, reason) == ("NEW_STATUS", so.StopReason.OTHER)


def test_the_native_word_is_kept() -> None:
    for name in OURS:
        solution = so.select([1.0, 2.0, 4.5, 9.0], k=2, solver=name, time_limit=5)
        assert solution.extras["native_status"] == "OPTIMAL"
