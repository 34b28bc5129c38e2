"""Every registered solver against the exhaustive oracle, on every problem it can take."""

from __future__ import annotations

import numpy as np
import pytest
from clocks import InterruptedClock
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import designs, problems

import subsetopt as so
from subsetopt import registry
from subsetopt.testing import assert_solver_contract

ROWS = so.list_solvers()
MIP = {"gurobi", "cpsat", "scip", "highs"}
DESIGNS = [row.name for row in ROWS if row.objectives[0].startswith("SamplingDesign")]
NATIVE = [row.name for row in ROWS if row.name not in MIP and row.name not in DESIGNS]
BACKENDS = [(row.name, kind) for row in ROWS if row.name in MIP for kind in row.objectives]


def _need(name: str) -> None:
    state = registry.availability(name)
    if not state.usable:
        pytest.skip(f"{name}: {state.reason}")


@pytest.mark.parametrize("name", NATIVE)
@given(data=st.data())
@settings(max_examples=150)
def test_native_solvers_keep_the_contract(name: str, data: st.DataObject) -> None:
    problem = data.draw(problems(kinds=registry.spec_of(name).objectives))
    assume(registry.spec_of(name).obstacle(problem) is None)
    assert_solver_contract(name, problem)


@pytest.mark.parametrize("name", DESIGNS)
@given(data=st.data())
def test_designs_keep_the_contract(name: str, data: st.DataObject) -> None:
    replacement = registry.spec_of(name).objectives == ("SamplingDesign[with_replacement]",)
    assert_solver_contract(name, data.draw(designs(replacement=replacement)))


@pytest.mark.parametrize(("name", "kind"), BACKENDS)
@given(data=st.data())
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_mip_backends_keep_the_contract(name: str, kind: str, data: st.DataObject) -> None:
    _need(name)
    problem = data.draw(problems(max_size=10, kinds=[kind]))
    assume(registry.spec_of(name).obstacle(problem) is None)
    assert_solver_contract(name, problem, time_limit=2.0)


@given(problem=problems())
@settings(max_examples=100)
def test_auto_is_never_beaten_by_the_oracle_when_it_claims_a_proof(problem: so.Problem) -> None:
    answer = so.solve(problem, seed=0)
    oracle = so.solve(problem, "exhaustive")
    assert (answer.status is so.Status.INFEASIBLE) == (oracle.status is so.Status.INFEASIBLE)
    if oracle.has_solution:
        assert answer.has_solution
        assert so.verify(problem, answer)
        assert answer.status is so.Status.OPTIMAL  # tiny problems are always settled
        assert abs(answer.objective - oracle.objective) <= 2 * problem.objective.tolerance


@pytest.mark.parametrize(
    "name", [r.name for r in ROWS if r.exact and "MeanMatching" in r.objectives]
)
@given(data=st.data())
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
def test_relabelling_leaves_the_optimum_of_exact_solvers(name: str, data: st.DataObject) -> None:
    _need(name)
    problem = data.draw(problems(so.MeanMatching, min_size=1, max_size=8, constrained=False))
    order = np.array(data.draw(st.permutations(range(problem.n))))
    moved = so.Problem(so.MeanMatching(problem.objective.losses[order]), problem.k)
    first = so.solve(problem, name, time_limit=2.0)
    second = so.solve(moved, name, time_limit=2.0)
    if first.status is so.Status.OPTIMAL and second.status is so.Status.OPTIMAL:
        assert abs(first.objective - second.objective) <= 2 * problem.objective.tolerance


@pytest.mark.parametrize("name", ["swap", "exhaustive"])
def test_an_interrupt_returns_the_incumbent(name: str) -> None:
    losses = np.random.default_rng(0).random(64)  # float64: the tolerance is out of quick reach
    problem = so.Problem(so.MeanMatching(losses), k=6)
    deadline = so.Deadline(3600.0, clock=InterruptedClock(2))
    answer = so.solve(problem, name, deadline, seed=0, on_interrupt="return")
    assert answer.stop_reason is so.StopReason.INTERRUPTED
    assert answer.has_solution
    assert so.verify(problem, answer)


@pytest.mark.parametrize(
    ("name", "n", "k"), [("swap", 24, 4), ("exact", 80, 12), ("exhaustive", 64, 6)]
)
def test_an_injected_clock_ends_the_search(name: str, n: int, k: int) -> None:
    ticks = iter(range(10**6))
    # float64 losses: no subset, or none that is found at once, comes near the tolerance.
    problem = so.Problem(so.MeanMatching(np.random.default_rng(0).random(n)), k)
    answer = so.solve(problem, name, so.Deadline(5, clock=lambda: next(ticks)), seed=0)
    assert answer.stop_reason is so.StopReason.TIME
    assert answer.has_solution
    assert so.verify(problem, answer)
