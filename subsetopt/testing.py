"""The contract of every solver, as a function that third-party solvers can be held to."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from subsetopt import registry
from subsetopt.budget import Deadline
from subsetopt.certificate import verify
from subsetopt.errors import OptionError
from subsetopt.front import solve
from subsetopt.problem import Problem
from subsetopt.solution import Solution
from subsetopt.status import Status, StopReason

__all__ = ["assert_solver_contract"]

# Attributes of objectives that hold arrays of the caller.
_INPUTS = ("losses", "scores", "features", "similarity", "inclusion", "balance", "vectors")


def assert_solver_contract(
    name: str, problem: Problem, *, seed: int = 0, time_limit: float | None = None
) -> Solution:
    """Assert that a registered solver keeps its contract on a problem, and return its answer.

    Parameters
    ----------
    name
        Name of a registered solver that can take the problem.
    problem
        A problem small enough for ``exhaustive``; a sampling design of any size.
    seed
        Seed of the solves.
    time_limit
        Limit of each solve in seconds; without one, answers must also reproduce.

    Raises
    ------
    AssertionError
        If any law is broken: feasibility, the objective, the bound and the status against the
        exhaustive optimum, unchanged inputs, reproducibility, limits, warm starts, options. A
        design has no optimum and improves on no warm start. Its size and weights are checked, and
        that it ends with a draw under any limit.
    """
    if not problem.objective.provable:
        return _assert_design(name, problem, seed, time_limit)
    spec = registry.spec_of(name)
    oracle = solve(problem, "exhaustive")
    before = _arrays(problem)
    solution = solve(problem, name, time_limit, seed=seed)
    _assert_unchanged(name, problem, before)
    # Only exact solvers must tell whether an objective's own constraint can be met.
    settles = spec.exact or not problem.objective.restricts
    if oracle.status is Status.INFEASIBLE:
        unsure = not settles and solution.status is Status.NO_SOLUTION
        right = unsure or solution.status is Status.INFEASIBLE
        assert right, f"{name}: {solution.status} on infeasible"
        return solution
    assert solution.status is not Status.INFEASIBLE, f"{name} calls a feasible problem infeasible"
    if settles and (time_limit is None or not spec.exact):
        assert solution.has_solution, f"{name} found nothing: {solution}"
    if solution.has_solution:
        _assert_honest(name, problem, solution, oracle)
    if spec.exact and solution.stop_reason is StopReason.COMPLETED:
        assert solution.status is Status.OPTIMAL, f"{name} completed without a proof: {solution}"
    if time_limit is None:
        _assert_reproducible(name, problem, solution, seed)
    _assert_limits(name, problem, oracle)
    _assert_options(name, problem)
    return solution


def _assert_design(name: str, problem: Problem, seed: int, time_limit: float | None) -> Solution:
    """Assert what must hold of every draw of a sampling design."""
    before = _arrays(problem)
    limits = [{"time_limit": time_limit}, {"max_iterations": 1}, {"time_limit": Deadline(1e-9)}]
    for limit in limits[::-1]:
        solution = solve(problem, name, seed=seed, **limit)  # type: ignore[arg-type]
        assert solution.status is Status.FEASIBLE, f"{name}: a draw is {solution.status}"
        certificate = verify(problem, solution)
        assert certificate, f"{name}: {certificate.violations}"
        assert solution.indices.size == problem.k, f"{name} drew {solution.indices.size}"
        assert solution.weights.dtype == np.float64
    _assert_unchanged(name, problem, before)
    if time_limit is None:
        _assert_reproducible(name, problem, solution, seed)
    start = solve(problem, name, seed=seed + 1)
    warmed = solve(problem, name, time_limit, seed=seed, warm_start=start)
    assert np.array_equal(warmed.indices, solution.indices), f"{name}: a start changes the draw"
    _assert_nothing_in_no_time(name, problem)
    _assert_options(name, problem)
    return solution


def _assert_unchanged(name: str, problem: Problem, before: dict[str, Any]) -> None:
    """Assert that the input arrays are as they were."""
    for key, array in _arrays(problem).items():
        assert np.array_equal(array, before[key]), f"{name} changed {key}"


def _assert_reproducible(name: str, problem: Problem, solution: Solution, seed: int) -> None:
    """Assert that the seed gives the subset again."""
    again = solve(problem, name, seed=seed)
    assert np.array_equal(again.indices, solution.indices), f"{name}: same seed, other answer"


def _assert_nothing_in_no_time(name: str, problem: Problem) -> None:
    """Assert what a time limit of 0 returns without a warm start."""
    solution = solve(problem, name, time_limit=0)
    assert solution.status is Status.NO_SOLUTION, f"{name}: {solution.status} in no time"
    assert solution.stop_reason is StopReason.TIME


def _assert_honest(name: str, problem: Problem, solution: Solution, oracle: Solution) -> None:
    """Assert feasibility, objective, bound and status against the optimum."""
    certificate = verify(problem, solution)
    assert certificate, f"{name}: {certificate.violations}"
    tolerance = problem.objective.tolerance
    sign = 1.0 if problem.objective.sense == "minimize" else -1.0
    optimum = sign * oracle.objective
    value, bound = sign * solution.objective, sign * solution.bound
    slack = 1e-9 * abs(optimum) + 1e-3 * tolerance
    assert value >= optimum - slack, f"{name} beats the optimum: {value} < {optimum}"
    assert bound <= optimum + tolerance + slack, f"{name}: bound {bound} above optimum {optimum}"
    if solution.status is Status.OPTIMAL:
        assert value <= optimum + tolerance + slack, f"{name}: {value} is no optimum ({optimum})"
    assert solution.indices.dtype == np.int64
    assert solution.mask.sum() == solution.indices.size


def _assert_limits(name: str, problem: Problem, oracle: Solution) -> None:
    """Assert what a time limit of 0 returns, and that a warm start is never made worse."""
    _assert_nothing_in_no_time(name, problem)
    kept = solve(problem, name, time_limit=0, warm_start=oracle.indices)
    assert np.array_equal(kept.indices, oracle.indices), f"{name} lost the warm start"
    # Heuristics use all of the time where they cannot prove; backends need some time to start.
    patience = 2.0 if registry.spec_of(name).exact else 0.02
    warmed = solve(problem, name, Deadline(patience), warm_start=oracle, seed=1)
    sign = 1.0 if problem.objective.sense == "minimize" else -1.0
    worse = sign * (warmed.objective - oracle.objective)
    assert worse <= 0.0, f"{name} is worse than its warm start by {worse}"


def _assert_options(name: str, problem: Problem) -> None:
    """Assert that an unknown option raises."""
    try:
        solve(problem, name, options={"no_such_option": 1})
    except OptionError:
        return
    raise AssertionError(f"{name} accepts an unknown option")


def _arrays(problem: Problem) -> dict[str, Any]:
    """Return copies of every input array of a problem."""
    objective = problem.objective
    arrays = {f"objective.{key}": getattr(objective, key, None) for key in _INPUTS}
    for key in ("include", "exclude", "groups", "costs"):
        arrays[key] = getattr(problem, key)
    return {key: copy.deepcopy(value) for key, value in arrays.items() if value is not None}
