"""The front door: one way in for every solver, and the only place where answers are judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt import registry
from subsetopt.auto import Auto
from subsetopt.budget import Deadline
from subsetopt.certificate import check_indices, check_rows
from subsetopt.errors import (
    OptionError,
    ProblemError,
    SolverError,
    SolverLicenseError,
    SolverUnavailableError,
    UnsupportedProblemError,
)
from subsetopt.inputs import checked_integer
from subsetopt.objectives import MeanMatching, Objective
from subsetopt.objectives.mean_matching import MeanMatchingRows
from subsetopt.problem import Cardinality, Problem, Quotas, as_index_array, size_from_rate
from subsetopt.seeding import Seed, entropy_from
from subsetopt.solution import Solution, Solutions
from subsetopt.solvers.base import RawResult, RawTable, SolveContext, Solver
from subsetopt.status import Status, StopReason

__all__ = ["WarmStart", "judge", "judge_rows", "select", "size_of", "solve"]

WarmStart = ArrayLike | Solution | str | None

_NO_INDICES = np.empty(0, dtype=np.int64)
_NO_WEIGHTS = np.empty(0, dtype=np.float64)
_AUTO = Auto()
# Seconds kept back from a solver for judging its answer: a constant, and a part per candidate.
_JUDGING = 250e-6
_JUDGING_PER_CANDIDATE = 4e-9
# The largest share of a time limit that is kept back.
_JUDGING_SHARE = 0.125


def select(
    losses: ArrayLike,
    k: int | None = None,
    *,
    rate: float | None = None,
    target: float | None = None,
    base_weights: ArrayLike | None = None,
    cardinality: Cardinality = "exact",
    include: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    quotas: Quotas | None = None,
    costs: ArrayLike | None = None,
    capacity: float | None = None,
    solver: str | Solver | Sequence[str | Solver] = "auto",
    time_limit: float | Deadline | None = None,
    max_iterations: int | None = None,
    seed: Seed = None,
    warm_start: WarmStart = None,
    options: Mapping[str, Any] | None = None,
    backend_params: Mapping[str, Any] | None = None,
) -> Solution:
    """Choose k samples whose mean loss is the batch's.

    Shorthand for :func:`solve` on ``Problem(MeanMatching(losses, ...), k, ...)``; the keywords are
    those of :class:`MeanMatching`, :class:`Problem` and :func:`solve`.

    Parameters
    ----------
    losses
        Per-sample losses, shape (n,), any real dtype.
    k
        Number of samples to choose. Give k or rate, not both.
    rate
        Fraction to choose, in [0, 1]: ``k = min(n, max(1, floor(rate * n + 0.5)))``.

    Returns
    -------
    Solution
        See :func:`solve`.

    Raises
    ------
    ProblemError
        If the input is malformed, or both or none of k and rate are given.

    Examples
    --------
    >>> solution = select([3.0, 1.0, 2.0, 4.0, 0.0], k=2, seed=0)
    >>> solution.objective, solution.status
    (0.0, Status.OPTIMAL)
    """
    deadline = time_limit if isinstance(time_limit, Deadline) else Deadline(time_limit)
    objective = MeanMatching(losses, target, base_weights)
    problem = Problem(
        objective,
        size_of(objective.n, k, rate),
        cardinality,
        include,
        exclude,
        groups,
        quotas,
        costs,
        capacity,
    )
    return solve(
        problem, solver, deadline, max_iterations, seed, warm_start, options, backend_params
    )


def solve(
    problem: Problem,
    solver: str | Solver | Sequence[str | Solver] = "auto",
    time_limit: float | Deadline | None = None,
    max_iterations: int | None = None,
    seed: Seed = None,
    warm_start: WarmStart = None,
    options: Mapping[str, Any] | None = None,
    backend_params: Mapping[str, Any] | None = None,
) -> Solution:
    """Solve a problem and return a verified answer.

    Parameters
    ----------
    problem
        The objective, the number of candidates to choose, and the constraints.
    solver
        ``"auto"``, a registered name, a solver object, or a list of these, tried in order.
    time_limit
        Wall-clock seconds for everything from call to return, or a running Deadline. None is the
        solver's default work limit, never "until it succeeds". 0 returns the warm start, if any.
    max_iterations
        Work limit in the solver's own unit. Only work limits reproduce.
    seed
        None for fresh entropy, a nonnegative int, a sequence of them, or a Generator.
    warm_start
        A feasible subset to start from, which the answer is never worse than: indices, a bool
        mask, a Solution, or the name of a solver that makes one. None starts cold.
    options
        Hyperparameters of the named solver, see its page. None is its defaults.
    backend_params
        Native parameters of a MIP backend, set last and verbatim.

    Returns
    -------
    Solution
        Its objective, bound and status are recomputed here, whatever the solver said. Without a
        subset (NO_SOLUTION, INFEASIBLE, ERROR) indices and weights are empty.

    Raises
    ------
    ProblemError
        If the problem or the warm start is malformed.
    OptionError
        If a limit, seed or option is not acceptable.
    SolverNotFoundError, SolverUnavailableError, SolverLicenseError, UnsupportedProblemError
        If the named solver, or every one of a list, cannot be used for this problem.

    Examples
    --------
    >>> import subsetopt as so
    >>> so.solve(so.Problem(so.TopScores([0.1, 0.9, 0.5]), k=2)).indices
    array([1, 2])
    """
    deadline = time_limit if isinstance(time_limit, Deadline) else Deadline(time_limit)
    if not isinstance(problem, Problem):
        raise ProblemError(
            f"solve takes a Problem, got {type(problem).__name__}; for a loss vector use select."
        )
    if max_iterations is not None:
        checked_integer("max_iterations", max_iterations, 0, also=" or None")
    plan = _plan(problem, solver, options, backend_params)
    entropy = entropy_from(seed)
    clash = _clash(problem, deadline)
    start = _warm_indices(problem, warm_start, deadline, max_iterations, entropy, clash)
    name = plan[0][0]
    if deadline.seconds == 0.0:
        raw = RawResult(
            start, stop_reason=StopReason.TIME, solver="warm-start" if start is not None else name
        )
        return judge(problem, raw, name, deadline, None)
    if clash is not None:
        return judge(problem, _infeasible(clash), name, deadline, None)
    only = _only_subset(problem)
    if only is not None:
        violations = problem.objective.violations(only, problem.k)
        raw = RawResult(only, bound=_value(problem, only))
        if violations:
            raw = _infeasible(f"sizes leave one subset, and {violations[0]}")
        return judge(problem, raw, name, deadline, None)
    context = SolveContext(
        deadline.less(_judging_time(problem, deadline)),
        entropy,
        max_iterations,
        start,
        backend_params or {},
    )
    return _run(problem, plan, context)


def _judging_time(problem: Problem, deadline: Deadline) -> float:
    """Return the seconds kept back from a solver, to sort, check and recompute its answer.

    After a long search this code is out of the processor's caches and takes five times as long.
    """
    seconds = _JUDGING + _JUDGING_PER_CANDIDATE * problem.n
    return min(seconds, _JUDGING_SHARE * deadline.seconds)


def size_of(n: int, k: int | None, rate: float | None) -> int:
    """Return the size that k or rate ask for, exactly one of which is given."""
    if k is None:
        if rate is None:
            raise ProblemError("pass k (a count) or rate (a fraction of n).")
        return size_from_rate(n, rate)
    if rate is not None:
        raise ProblemError(f"pass k or rate, not both (got k={k!r}, rate={rate!r}).")
    return k


def _plan(
    problem: Problem,
    solver: str | Solver | Sequence[str | Solver],
    options: Mapping[str, Any] | None,
    backend_params: Mapping[str, Any] | None,
) -> list[tuple[str, str | Solver]]:
    """Return the chain of (name, solver or registered name) to try; names are checked now."""
    if isinstance(solver, (list, tuple)):
        if not solver:
            raise OptionError("solver is an empty list; pass at least one name.")
        if options or backend_params:
            raise OptionError("options and backend_params need a single named solver, not a list.")
        return [_plan(problem, s, None, None)[0] for s in solver]
    if not isinstance(solver, str):
        if not isinstance(solver, Solver):
            raise OptionError(
                f"solver must be a name, a solver object or a list of these, got {solver!r}."
            )
        if options:
            raise OptionError("options belong into the solver object: pass them to its class.")
        return [(type(solver).__name__, solver)]
    if solver == "auto":
        if backend_params:
            raise OptionError("backend_params need a named solver, not 'auto'.")
        return [("auto", registry.configure(Auto, "auto", options) if options else _AUTO)]
    spec = registry.spec_of(solver)
    if backend_params and not spec.requires:
        raise OptionError(f"solver {solver!r} has no backend to take backend_params.")
    if options:
        return [(solver, registry.create(solver, options))]
    return [(solver, solver)]


def _clash(problem: Problem, deadline: Deadline) -> str | None:
    """Return why the constraints clash, or None; without time None, unchecked."""
    if deadline.seconds == 0.0 or not problem.constrained:
        return None
    return problem.constraints.infeasibility()


def _infeasible(why: str) -> RawResult:
    """Return the result for a problem that no subset is feasible for."""
    return RawResult(None, infeasible=True, extras={"why": why})


def _only_subset(problem: Problem) -> NDArray[np.int64] | None:
    """Return the one feasible subset when sizes leave no choice, None otherwise."""
    if problem.k == 0:
        return _NO_INDICES
    if not problem.objective.provable or problem.objective.at_most:
        return None  # a design draws with weights of its own; so does a coreset
    if problem.constrained:
        rules = problem.constraints
        need = problem.k - rules.forced.size
        if need == 0 or (need == rules.free.size and not rules.at_most):
            return np.sort(np.concatenate([rules.forced, rules.free[:need]]))
        return None
    if problem.k == problem.n and problem.cardinality == "exact":
        return np.arange(problem.n)
    return None


def _warm_indices(
    problem: Problem,
    warm_start: WarmStart,
    deadline: Deadline,
    max_iterations: int | None,
    entropy: int,
    clash: str | None,
) -> NDArray[np.int64] | None:
    """Return a warm start as sorted feasible indices; None without one or in a clash."""
    if warm_start is None or clash is not None:
        return None
    if isinstance(warm_start, str):
        if deadline.seconds == 0.0:
            registry.spec_of(warm_start)
            return None
        solution = solve(problem, warm_start, deadline, max_iterations, entropy)
        return solution.indices if solution.has_solution else None
    if isinstance(warm_start, Solution):
        if not warm_start.has_solution:
            return None
        indices = warm_start.indices
    else:
        named = as_index_array(warm_start, problem.n, "warm_start")
        indices = _NO_INDICES if named is None else named
    violations = check_indices(problem, indices)
    if violations:
        raise ProblemError(f"the warm start is not feasible: {'; '.join(violations)}.")
    return indices


def _run(problem: Problem, plan: list[tuple[str, str | Solver]], context: SolveContext) -> Solution:
    """Try the solvers of the plan in order until one gives an answer."""
    fallbacks: list[tuple[str, str]] = []
    solution: Solution | None = None
    for position, (name, candidate) in enumerate(plan):
        last = position == len(plan) - 1
        try:
            if isinstance(candidate, str):
                registry.require_support(
                    registry.spec_of(name), problem, timed=context.deadline.limited
                )
                candidate = registry.create(name)
            raw = candidate.solve(problem, context)
            solution = judge(problem, raw, name, context.deadline, context.warm_start)
        except (
            SolverUnavailableError,
            SolverLicenseError,
            UnsupportedProblemError,
            SolverError,
        ) as error:
            if last and solution is None:
                raise
            fallbacks.append((name, str(error)))
            continue
        if solution.has_solution or solution.status is Status.INFEASIBLE or last:
            break
        fallbacks.append((name, solution.extras.get("error", solution.stop_reason.value)))
    assert solution is not None
    if fallbacks:
        solution.extras["fallbacks"] = fallbacks + solution.extras.get("fallbacks", [])
    return solution


def _value(problem: Problem, indices: NDArray[np.int64]) -> float | None:
    """Return the objective of a subset, or None where solvers choose its weights."""
    weights = problem.objective.weights_for(indices, problem.k)
    return None if weights is None else problem.objective.evaluate(indices, weights)


def judge(
    problem: Problem,
    raw: RawResult,
    name: str,
    deadline: Deadline,
    start: NDArray[np.int64] | None,
) -> Solution:
    """Turn a solver's result into an answer: recompute, verify, compare with the warm start."""
    name = raw.solver or name
    objective = problem.objective
    start_value = None if start is None else _value(problem, start)
    if raw.indices is None and start_value is None:
        status = Status.INFEASIBLE if raw.infeasible else Status.NO_SOLUTION
        return _empty(problem, status, name, deadline, raw)
    minimize = objective.sense == "minimize"
    indices, weights, value = _NO_INDICES, _NO_WEIGHTS, math.inf if minimize else -math.inf
    if raw.indices is not None:
        indices, weights, error = _checked(problem, raw.indices, raw.weights)
        if error:
            error = f"solver {name!r} returned an infeasible subset: {error}"
            return _empty(problem, Status.ERROR, name, deadline, raw, error=error)
        value = objective.evaluate(indices, weights)
    if start_value is not None and start is not None:
        better = start_value < value if minimize else start_value > value
        # A random draw stands: preferring a better start would change its probabilities.
        if raw.indices is None or (better and objective.provable):
            indices, value, name = start, start_value, "warm-start"
            own = objective.weights_for(start, problem.k)
            weights = _NO_WEIGHTS if own is None else own
    return _certified(objective, indices, weights, value, raw, name, deadline.elapsed())


def judge_rows(
    table: RawTable,
    objectives: MeanMatchingRows,
    alone: Callable[[int], Solution],
    clock: Deadline,
) -> Solutions:
    """Judge a table of answers to problems without constraints, each row when it is looked at.

    Parameters
    ----------
    table, objectives
        What the search of all rows returned, and the objective of each.
    alone
        Solves a row by itself: now where the search came to no valid end, later where the answer
        is not optimal.
    clock
        Started with the search; each row is given an equal share of the time.
    """
    valid = table.reached & check_rows(table.indices, table.places, objectives.lengths)
    answers = [None if good else alone(i) for i, good in enumerate(valid.tolist())]
    seconds = clock.elapsed() / len(answers)
    places, bounds = table.places.tolist(), table.bounds.tolist()
    iterations = table.iterations.tolist()

    def make(i: int) -> Solution:
        objective = objectives[i]
        indices = table.indices[places[i] : places[i + 1]].copy()
        weights = objective.weights_for(indices, indices.size)
        raw = RawResult(indices, None, bounds[i], StopReason.TARGET, iterations[i])
        value = objective.evaluate(indices, weights)
        answer = _certified(objective, indices, weights, value, raw, table.solver, seconds)
        return answer if answer.status is Status.OPTIMAL else alone(i)

    return Solutions(answers, make)


def _certified(
    objective: Objective,
    indices: NDArray[np.int64],
    weights: NDArray[np.float64],
    value: float,
    raw: RawResult,
    name: str,
    seconds: float,
) -> Solution:
    """Return a feasible subset of that objective value with its bound and its status."""
    trivial = objective.trivial_bound
    bound = trivial if raw.bound is None else float(raw.bound)
    # A bound beyond the objective by rounding is the objective itself.
    if objective.sense == "minimize":
        bound = min(max(bound, trivial), value)
    else:
        bound = max(min(bound, trivial), value)
    proved = objective.provable and abs(value - bound) <= objective.tolerance
    return Solution(
        indices,
        weights,
        objective.n,
        value,
        bound,
        Status.OPTIMAL if proved else Status.FEASIBLE,
        raw.stop_reason,
        name,
        raw.setup_time,
        seconds,
        raw.iterations,
        objective.scale,
        raw.extras,
    )


def _checked(
    problem: Problem, chosen: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], str]:
    """Return sorted indices, their weights, and what is wrong with them, empty if nothing is."""
    if weights is None:
        indices = np.sort(chosen)
        own = problem.objective.weights_for(indices, problem.k)
        violations = check_indices(problem, indices)
        if own is None:
            violations.append("it has no weights")
        return indices, _NO_WEIGHTS if own is None else own, "; ".join(violations)
    if weights.shape != chosen.shape:
        return chosen, weights, f"{weights.size} weights for {chosen.size} indices"
    order = chosen.argsort(kind="stable")
    indices, weights = chosen[order], weights[order]
    violations = check_indices(problem, indices)
    if not violations:
        wrong = problem.objective.weight_problem(indices, weights, problem.k)
        violations = [wrong] if wrong else []
    return indices, weights, "; ".join(violations)


def _empty(
    problem: Problem, status: Status, name: str, deadline: Deadline, raw: RawResult, **facts: str
) -> Solution:
    """Return an answer without a subset; the extras hold those of the solver and the facts."""
    return Solution(
        _NO_INDICES,
        _NO_WEIGHTS,
        problem.n,
        math.nan,
        -math.inf if problem.objective.sense == "minimize" else math.inf,
        status,
        raw.stop_reason,
        name,
        raw.setup_time,
        deadline.elapsed(),
        raw.iterations,
        problem.objective.scale,
        {**raw.extras, **facts},
    )
