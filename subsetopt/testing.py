"""The contract of every solver, as a function that third-party solvers can be held to."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from subsetopt import registry
from subsetopt.budget import Deadline
from subsetopt.certificate import verify
from subsetopt.errors import OptionError, SolverLicenseError
from subsetopt.front import solve
from subsetopt.objectives import (
    FacilityLocation,
    KCenter,
    MeanMatching,
    Objective,
    SamplingDesign,
    ScoredMatching,
    TopScores,
    VectorMatching,
    WeightedScores,
)
from subsetopt.problem import Problem
from subsetopt.solution import Solution
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.spec import SolverSpec
from subsetopt.status import Status, StopReason

__all__ = ["assert_solver_contract"]

# Attributes of objectives that hold arrays of the caller.
_INPUTS = ("losses", "scores", "features", "similarity", "inclusion", "balance", "vectors")


# How many problems are drawn for each kind of objective, and their sizes.
_DRAWS = 6
_SMALLEST, _LARGEST = 5, 9
# The number of candidates, and of chosen ones, where the deadline is tried.
_MANY, _CHOSEN = 200, 20
# Seconds that a solver may take without a look at its deadline, and after one that tells it that
# the time is up. The least of several tries counts, so that other work on the machine does not.
_WITHOUT_LOOK = 1e-3
_AFTER_END = 0.05
_TRIES = 5


def assert_solver_contract(
    name: str, problem: Problem | None = None, *, seed: int = 0, time_limit: float | None = None
) -> Solution:
    """Assert that a registered solver keeps its contract on a problem, and return its answer.

    Parameters
    ----------
    name
        Name of a registered solver that can take the problem.
    problem
        A problem small enough for ``exhaustive``; a sampling design of any size. None draws
        several of every objective in the solver's row, under constraints that the row declares.
    seed
        Seed of the solves, and of the problems that are drawn.
    time_limit
        Limit of each solve in seconds; without one, answers must also reproduce.

    Returns
    -------
    Solution
        The answer to the problem; without one, to the last that was drawn.

    Raises
    ------
    AssertionError
        If any law is broken: feasibility, the objective, the bound and the status against the
        exhaustive optimum, unchanged inputs, reproducibility, limits, warm starts, options. A
        design has no optimum and improves on no warm start. Its size and weights are checked, and
        that it ends with a draw under any limit.
    OptionError
        If there is no problem, and the row names no objective that problems can be drawn of.
    """
    spec = registry.spec_of(name)
    if problem is not None:
        solution = _assert_contract(name, problem, seed, time_limit)
        _assert_deadline(name, type(problem.objective).__name__)
        return solution
    makers = [key for key in _MAKERS if _lists(spec, key)]
    if not makers:
        raise OptionError(
            f"no problems can be drawn for solver {name!r}, which takes "
            f"{', '.join(spec.objectives) or 'no objective'}; pass one."
        )
    for key in makers:
        for drawn in _drawn_problems(spec, key, seed):
            solution = _assert_contract(name, drawn, seed, time_limit)
        _assert_deadline(name, key)
    return solution


def _lists(spec: SolverSpec, key: str) -> bool:
    """Whether a row takes the objectives of a key of the makers."""
    return any(listed.partition("[")[0] == key for listed in spec.objectives)


def _drawn_problems(spec: SolverSpec, key: str, seed: int) -> Iterator[Problem]:
    """Yield small problems that a solver takes, every other one under constraints."""
    rng = np.random.default_rng([seed, *key.encode()])
    drawn = 0
    for attempt in range(20 * _DRAWS):
        n = int(rng.integers(_SMALLEST, _LARGEST, endpoint=True))
        k = int(rng.integers(1, n))
        constrained = attempt % 2 == 1 and key != "SamplingDesign"
        rules = _drawn_constraints(spec, rng, n, k) if constrained else {}
        problem = Problem(_MAKERS[key](rng, n, k), k, **rules)
        if spec.obstacle(problem) is None:
            yield problem
            drawn += 1
        if drawn == _DRAWS:
            return


def _drawn_constraints(
    spec: SolverSpec, rng: np.random.Generator, n: int, k: int
) -> dict[str, Any]:
    """Return constraints that a solver's row declares, most of which can be met."""
    rules: dict[str, Any] = {}
    order = rng.permutation(n)
    if "include" in spec.features:
        rules["include"] = order[:1]
    if "exclude" in spec.features and k < n - 1:
        rules["exclude"] = order[-1:]
    if "quotas" in spec.features:
        rules["groups"] = np.arange(n) % 2
        rules["quotas"] = {0: (0, (k + 1) // 2)}
    if "capacity" in spec.features:
        rules["costs"] = rng.integers(1, 9, n)
        rules["capacity"] = int(np.sort(rules["costs"])[: k + 1].sum() + rules["costs"].max())
    return rules


def _vectors(rng: np.random.Generator, n: int, k: int) -> Objective:
    uniform = bool(rng.integers(2))
    return VectorMatching(rng.normal(size=(n, 2)), weights="uniform" if uniform else "nonnegative")


def _design(rng: np.random.Generator, n: int, k: int) -> Objective:
    return SamplingDesign(np.full(n, k / n), rng.random(n))


_MAKERS: dict[str, Callable[[np.random.Generator, int, int], Objective]] = {
    "MeanMatching": lambda rng, n, k: MeanMatching(rng.exponential(size=n)),
    "VectorMatching": _vectors,
    "TopScores": lambda rng, n, k: TopScores(rng.normal(size=n)),
    "WeightedScores": lambda rng, n, k: WeightedScores(rng.exponential(size=n)),
    "ScoredMatching": lambda rng, n, k: ScoredMatching(rng.random(n), rng.exponential(size=n), 0.5),
    "FacilityLocation": lambda rng, n, k: FacilityLocation(rng.normal(size=(n, 2))),
    "KCenter": lambda rng, n, k: KCenter(rng.normal(size=(n, 2))),
    "SamplingDesign": _design,
}


class _ExpiredClock:
    """A clock that counts its readings; from the second on, every time limit has passed."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return 0.0 if self.readings == 1 else math.inf


def _assert_deadline(name: str, key: str) -> None:
    """Assert that a solver looks at its deadline before long, and stops when time is up."""
    spec = registry.spec_of(name)
    if key not in _MAKERS:
        return
    rng = np.random.default_rng(0)
    problem = Problem(_MAKERS[key](rng, _MANY, _CHOSEN), _CHOSEN)
    if spec.obstacle(problem) is not None or not registry.availability(name).usable:
        return
    solver = registry.create(name)
    least, looks = math.inf, 0
    for _ in range(_TRIES):
        clock = _ExpiredClock()
        context = SolveContext(Deadline(1.0, clock))
        begin = time.perf_counter()
        try:
            solver.solve(problem, context)
        except SolverLicenseError:
            return
        least = min(least, time.perf_counter() - begin)
        looks = clock.readings - 1
        if least <= _WITHOUT_LOOK:
            return
    assert looks, f"{spec.name} works for {least:.3g} s and never looks at its deadline"
    assert least <= _AFTER_END, f"{spec.name} works for {least:.3g} s after its deadline"


def _assert_contract(name: str, problem: Problem, seed: int, time_limit: float | None) -> Solution:
    """Assert the contract on one problem, all but the deadline, and return the answer."""
    if not problem.objective.provable:
        return _assert_design(name, problem, seed, time_limit)
    spec = registry.spec_of(name)
    oracle = solve(problem, "exhaustive")
    before = _arrays(problem)
    solution = solve(problem, name, time_limit, seed=seed)
    _assert_unchanged(name, problem, before)
    assert solution.status is not Status.ERROR, f"{name}: {solution.extras.get('error')}"
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
    assert "error" not in warmed.extras, f"{name}: {warmed.extras['error']}"
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
