"""Claims of solvers: what is believed, what is an error, and what is kept when a solver errs."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from clocks import InterruptedClock
from hypothesis import given
from hypothesis import strategies as st
from strategies import problems

import subsetopt as so
from subsetopt import registry
from subsetopt.testing import assert_solver_contract

LOSSES = [1.0, 2.0, 3.0, 6.0, 4.5]


@dataclass(frozen=True)
class Fake:
    """Returns what it is made with."""

    indices: Any = (0, 1)
    bound: Any = None
    infeasible: bool = False
    error: str = ""
    interrupt: bool = False

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        if self.error:
            raise so.SolverError(self.error)
        if self.interrupt:
            raise KeyboardInterrupt
        indices = None if self.indices is None else np.array(self.indices)
        return so.RawResult(indices, bound=self.bound, infeasible=self.infeasible)


def solve(fake: Fake, **keywords: Any) -> so.Solution:
    return so.select(LOSSES, k=2, solver=fake, **keywords)


@pytest.mark.parametrize("bound", [1e9, 1.8001, math.inf])
def test_a_bound_beyond_the_objective_is_an_error_of_the_solver(bound: float) -> None:
    answer = solve(Fake(bound=bound))
    assert answer.status is so.Status.ERROR
    assert "a feasible subset has the objective 1.8" in answer.extras["error"]
    assert not answer.indices.size
    largest = so.Problem(so.TopScores(LOSSES), 2)
    assert so.solve(largest, Fake(bound=-bound)).status is so.Status.ERROR


def test_a_bound_is_compared_with_the_warm_start_too() -> None:
    better = so.select(LOSSES, k=2, solver="exhaustive")
    answer = solve(Fake(bound=1.8), warm_start=better)
    assert "error" in answer.extras
    assert answer.solver == "warm-start" and answer.objective == better.objective
    assert solve(Fake(bound=1.8)).status is so.Status.OPTIMAL  # a lie that nothing here refutes


def test_a_bound_beyond_the_objective_by_rounding_is_no_error() -> None:
    problem = so.Problem(so.MeanMatching(LOSSES), 2)
    bound = 1.8 + 0.5 * problem.objective.tolerance
    answer = so.solve(problem, Fake(bound=bound))
    assert answer.status is so.Status.OPTIMAL and answer.bound == answer.objective


@pytest.mark.parametrize("bound", [math.nan, "low", 1j])
def test_a_bound_must_be_a_number(bound: Any) -> None:
    answer = solve(Fake(bound=bound))
    assert answer.status is so.Status.ERROR
    assert "not a number" in answer.extras["error"]


@pytest.mark.parametrize("indices", [(0.0, 1.0), (True, False), ((0, 1),), (0, 7)])
def test_indices_must_be_those_of_candidates(indices: Any) -> None:
    answer = solve(Fake(indices=indices))
    assert answer.status is so.Status.ERROR
    assert "infeasible subset" in answer.extras["error"]


def test_indices_of_any_integer_type_are_taken() -> None:
    answer = solve(Fake(indices=np.array([1, 0], dtype=np.uint8)))
    assert answer.indices.dtype == np.int64 and answer.indices.tolist() == [0, 1]


def test_infeasible_is_not_believed_where_a_subset_is_known() -> None:
    answer = solve(Fake(indices=None, infeasible=True))
    assert answer.status is so.Status.ERROR
    assert "a subset satisfies all constraints" in answer.extras["error"]
    kept = solve(Fake(indices=None, infeasible=True), warm_start=[0, 1])
    assert kept.solver == "warm-start" and kept.has_solution
    # No subset lies in this band, and only a search can tell.
    narrow = so.Problem(so.ScoredMatching(LOSSES, LOSSES, 1e-3), 2)
    told = so.solve(narrow, Fake(indices=None, infeasible=True))
    assert told.status is so.Status.INFEASIBLE


@pytest.mark.parametrize(
    "fake", [Fake(error="it broke"), Fake(indices=(0, 0)), Fake(indices=None), Fake(bound=99.0)]
)
def test_a_warm_start_is_kept_when_the_solver_errs(fake: Fake) -> None:
    answer = solve(fake, warm_start=[1, 3])
    assert answer.status is so.Status.FEASIBLE
    assert answer.indices.tolist() == [1, 3] and answer.solver == "warm-start"
    assert so.verify(so.Problem(so.MeanMatching(LOSSES), 2), answer)
    assert ("error" in answer.extras) == (fake.indices is not None)


def test_without_a_warm_start_an_error_of_a_solver_is_raised() -> None:
    with pytest.raises(so.SolverError, match="it broke"):
        solve(Fake(error="it broke"))


def test_a_chain_goes_on_where_only_the_warm_start_is_left() -> None:
    chain = [Fake(error="it broke"), Fake(bound=99.0), "exhaustive"]
    answer = so.select(LOSSES, k=2, solver=chain, warm_start=[1, 3])
    assert answer.solver == "exhaustive" and answer.status is so.Status.OPTIMAL
    assert answer.extras["fallbacks"][0][1] == "it broke"
    assert len(answer.extras["fallbacks"]) == 2


def test_verify_checks_the_status() -> None:
    problem = so.Problem(so.MeanMatching(LOSSES), 2)
    best = so.solve(problem, "exhaustive")
    worse = so.solve(problem, Fake())
    for lie in (
        dataclasses.replace(worse, status=so.Status.OPTIMAL),
        dataclasses.replace(best, status=so.Status.INFEASIBLE),
        dataclasses.replace(best, n=9),
        dataclasses.replace(best, bound=math.nan),
    ):
        certificate = so.verify(problem, lie)
        assert not certificate and certificate.violations
    certificate = so.verify(problem, dataclasses.replace(worse, status=so.Status.OPTIMAL))
    assert certificate.feasible and not certificate.status_holds
    assert "differ by more than" in certificate.violations[0]


def test_verify_refutes_infeasible_where_the_constraints_do() -> None:
    problem = so.Problem(so.MeanMatching(LOSSES), 2)
    nothing = so.solve(problem, time_limit=0)
    lie = dataclasses.replace(nothing, status=so.Status.INFEASIBLE)
    assert not so.verify(problem, lie).status_holds
    assert "a subset satisfies all constraints" in so.verify(problem, lie).violations[1]
    clash = so.Problem(so.MeanMatching(LOSSES), 2, groups=[0] * 5, quotas={0: 1})
    told = so.solve(clash)
    assert told.status is so.Status.INFEASIBLE
    assert so.verify(clash, told).status_holds and not so.verify(clash, told)


@given(problem=problems())
def test_every_answer_of_auto_passes_verify(problem: so.Problem) -> None:
    answer = so.solve(problem, seed=0)
    certificate = so.verify(problem, answer)
    assert certificate.status_holds
    assert bool(certificate) == answer.has_solution


@given(problem=problems(), limit=st.sampled_from([1e-6, 1e-5, 1e-4, 1e-3]), work=st.booleans())
def test_auto_has_an_answer_under_any_limit(problem: so.Problem, limit: float, work: bool) -> None:
    if problem.objective.restricts:
        return
    keywords: dict[str, Any] = {"max_iterations": int(1e6 * limit)} if work else {}
    if not work:
        keywords["time_limit"] = limit
    answer = so.solve(problem, seed=0, **keywords)
    assert answer.has_solution or answer.status is so.Status.INFEASIBLE


def test_auto_leaves_out_what_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = np.r_[np.full(8, 100.0), np.ones(12)]
    scores = np.arange(20.0)[::-1]
    problem = so.Problem(so.TopScores(scores), 8, costs=costs, capacity=8.0)
    best = so.solve(problem, seed=0)
    made = registry.create
    for fake in (Fake(indices=range(8)), Fake(indices=range(8, 16), bound=-9.0)):
        monkeypatch.setattr(
            registry,
            "create",
            lambda name, options=None, f=fake: f if name == "exhaustive" else made(name, options),
        )
        answer = so.solve(problem, seed=0, time_limit=3600.0)
        assert so.verify(problem, answer)
        assert answer.objective == best.objective
        assert answer.extras["fallbacks"][0][0] == "exhaustive"


@pytest.fixture
def registered() -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    for name in names:
        registry.unregister_solver(name)


def _register(names: list[str], solver: type, features: frozenset[str]) -> str:
    name = solver.__name__.lower()
    so.register_solver(so.SolverSpec(name, solver, ("MeanMatching", "TopScores"), features))
    names.append(name)
    return name


@dataclass(frozen=True)
class HugeBound:
    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        return so.RawResult(np.arange(problem.k), bound=1e9)


@dataclass(frozen=True)
class OwnBound:
    """Calls its own subset optimal."""

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        indices = np.arange(problem.k)
        weights = problem.objective.weights_for(indices, problem.k)
        return so.RawResult(indices, bound=problem.objective.evaluate(indices, weights))


def keep_busy(seconds: float) -> None:
    """Use the processor for a time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def start_or_first(problem: so.Problem, context: so.SolveContext) -> so.RawResult:
    """Return the warm start, or the first k candidates."""
    start = context.warm_start
    return so.RawResult(np.arange(problem.k) if start is None else start)


@dataclass(frozen=True)
class Deaf:
    """Never looks at its deadline."""

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        keep_busy(0.01)
        return start_or_first(problem, context)


@dataclass(frozen=True)
class Late:
    """Looks at its deadline, and goes on."""

    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        context.deadline.expired()
        keep_busy(0.1)
        return start_or_first(problem, context)


@dataclass(frozen=True)
class Honest:
    def solve(self, problem: so.Problem, context: so.SolveContext) -> so.RawResult:
        return start_or_first(problem, context)


SMALL = so.Problem(so.MeanMatching([1.0, 2.0, 3.0, 6.0, 4.5, 0.2]), 2)


@pytest.mark.parametrize("problem", [SMALL, None])
@pytest.mark.parametrize(
    ("solver", "words"),
    [
        (HugeBound, "claims the bound 1e\\+09"),
        (OwnBound, "above optimum"),
        (Deaf, "never looks at its deadline"),
        (Late, "after its deadline"),
    ],
)
def test_the_contract_catches(
    solver: type, words: str, problem: so.Problem | None, registered: list[str]
) -> None:
    name = _register(registered, solver, frozenset({"warm_start"}))
    with pytest.raises(AssertionError, match=words):
        assert_solver_contract(name, problem)


def test_the_contract_draws_problems_of_every_objective_and_constraint(
    registered: list[str],
) -> None:
    assert_solver_contract(_register(registered, Honest, frozenset({"warm_start"})))
    for name in ("topk", "exhaustive", "cube", "omp"):
        assert_solver_contract(name)
    so.register_solver(so.SolverSpec("nothing", Honest, ()))
    registered.append("nothing")
    with pytest.raises(so.OptionError, match="no problems can be drawn"):
        assert_solver_contract("nothing")


def test_an_interrupt_is_raised_with_the_best_answer() -> None:
    losses = np.random.default_rng(0).random(64)
    problem = so.Problem(so.MeanMatching(losses), k=6)
    for name in ("auto", "swap", "exhaustive"):
        with pytest.raises(KeyboardInterrupt) as caught:
            so.solve(problem, name, so.Deadline(3600.0, clock=InterruptedClock(2)), seed=0)
        answer = caught.value.solution  # type: ignore[attr-defined]
        assert answer.stop_reason is so.StopReason.INTERRUPTED
        assert so.verify(problem, answer)


def test_an_interrupt_that_a_solver_does_not_catch_keeps_the_warm_start() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        solve(Fake(interrupt=True), warm_start=[1, 3])
    kept = caught.value.solution  # type: ignore[attr-defined]
    assert kept.indices.tolist() == [1, 3]
    returned = solve(Fake(interrupt=True), warm_start=[1, 3], on_interrupt="return")
    assert returned.indices.tolist() == [1, 3]
    assert returned.stop_reason is so.StopReason.INTERRUPTED
    nothing = solve(Fake(interrupt=True), on_interrupt="return")
    assert nothing.status is so.Status.NO_SOLUTION
    assert nothing.stop_reason is so.StopReason.INTERRUPTED


def test_an_interrupt_ends_a_chain_of_solvers() -> None:
    answer = so.select(
        LOSSES, k=2, solver=[Fake(interrupt=True), "exhaustive"], on_interrupt="return"
    )
    assert answer.status is so.Status.NO_SOLUTION


def test_on_interrupt_is_one_of_two_words() -> None:
    with pytest.raises(so.OptionError, match="on_interrupt must be 'raise' or 'return'"):
        so.select(LOSSES, k=2, on_interrupt="retrun")  # type: ignore[arg-type]
