"""The front door: one way in for every solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt import registry
from subsetopt.auto import Auto
from subsetopt.budget import Deadline
from subsetopt.certificate import check_indices
from subsetopt.errors import (
    OptionError,
    ProblemError,
    SolverError,
    SolverLicenseError,
    SolverUnavailableError,
    UnsupportedProblemError,
)
from subsetopt.inputs import checked_choice, checked_integer
from subsetopt.judge import NO_INDICES, judge, value_of
from subsetopt.objectives import MeanMatching
from subsetopt.problem import Cardinality, Problem, Quotas, as_index_array, size_from_rate
from subsetopt.seeding import Seed, entropy_from
from subsetopt.solution import Solution
from subsetopt.solvers.base import RawResult, SolveContext, Solver
from subsetopt.status import Status, StopReason

__all__ = ["OnInterrupt", "WarmStart", "select", "size_of", "solve"]

WarmStart = ArrayLike | Solution | str | None
OnInterrupt = Literal["raise", "return"]

_AUTO = Auto()
# Seconds kept back from a solver for judging its answer: a constant, and a part per candidate.
_JUDGING = 250e-6
_JUDGING_PER_CANDIDATE = 4e-9
# The largest share of a time limit that is kept back.
_JUDGING_SHARE = 0.125
# With more candidates than this the check of the constraints can take all of the time, and seconds
# per candidate that preparing a search takes at least.
_MANY = 10_000
_PREPARING = 5e-8
# The largest work limit that is handed down; a larger one is none, but may not fit into 64 bits.
_MOST_WORK = 1 << 53


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
    on_interrupt: OnInterrupt = "raise",
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
    deadline = Deadline.of(time_limit)
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
        problem,
        solver,
        deadline,
        max_iterations,
        seed,
        warm_start,
        options,
        backend_params,
        on_interrupt,
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
    on_interrupt: OnInterrupt = "raise",
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
    on_interrupt
        What Ctrl-C does once the search has ended for it: ``"raise"`` raises KeyboardInterrupt,
        whose attribute ``solution`` is the best answer so far; ``"return"`` returns that answer,
        with the stop reason INTERRUPTED.

    Returns
    -------
    Solution
        Its objective, bound and status are recomputed here, whatever the solver said. Without a
        subset (NO_SOLUTION, INFEASIBLE, ERROR) indices and weights are empty. A solver that
        returns an infeasible subset, or a bound that a feasible subset refutes, is not believed:
        the status is ERROR, or the answer is the warm start, and ``extras["error"]`` says why.

    Raises
    ------
    ProblemError
        If the problem or the warm start is malformed.
    OptionError
        If a limit, seed or option is not acceptable.
    SolverNotFoundError, SolverUnavailableError, SolverLicenseError, UnsupportedProblemError
        If the named solver, or every one of a list, cannot be used for this problem.
    SolverError
        If the solver breaks down and there is no warm start to return.
    KeyboardInterrupt
        On Ctrl-C, with ``on_interrupt="raise"``.

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
        max_iterations = checked_integer("max_iterations", max_iterations, 0, also=" or None")
        max_iterations = min(max_iterations, _MOST_WORK)
    if not isinstance(on_interrupt, str) or on_interrupt != "raise":
        checked_choice("on_interrupt", on_interrupt, ("raise", "return"))
    if options is not None:
        options = _plain_values("options", options)
    if backend_params is not None:
        backend_params = _plain_values("backend_params", backend_params)
    plan = _plan(problem, solver, options, backend_params)
    entropy = entropy_from(seed)
    start: NDArray[np.int64] | None = None
    try:
        clash = _clash(problem, deadline)
        if warm_start is not None and clash is None:
            start = _warm_indices(problem, warm_start, deadline, max_iterations, entropy)
        solution = _at_once(problem, plan[0][0], deadline, start, clash)
        if solution is None:
            searching = deadline
            if deadline.limited:
                searching = deadline.less(_judging_time(problem, deadline, start))
            raw = _without_search(problem, searching, start)
            if raw is not None:
                solution = judge(problem, raw, plan[0][0], deadline, start)
            else:
                context = SolveContext(
                    searching,
                    entropy,
                    max_iterations,
                    start,
                    backend_params or {},
                )
                solution = _run(problem, plan, context)
    except KeyboardInterrupt as interrupt:
        # The solver did not stop by itself: what is left is the warm start.
        raw = RawResult(None, stop_reason=StopReason.INTERRUPTED)
        solution = getattr(interrupt, "solution", None)
        solution = solution or judge(problem, raw, plan[0][0], deadline, start)
    if solution.stop_reason is StopReason.INTERRUPTED and on_interrupt == "raise":
        raise _interrupt(solution)
    return solution


def _interrupt(solution: Solution) -> KeyboardInterrupt:
    """Return the exception of Ctrl-C that carries the best answer so far."""
    interrupt = KeyboardInterrupt("the search was interrupted; solution has the best answer so far")
    interrupt.solution = solution  # type: ignore[attr-defined]
    return interrupt


def _plain_values(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a dict of their own, with scalars of NumPy as those of Python."""
    if not isinstance(values, Mapping):
        raise OptionError(f"{name} must be a mapping of names to values, got {values!r}.")
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in values.items()
    }


def _at_once(
    problem: Problem,
    name: str,
    deadline: Deadline,
    start: NDArray[np.int64] | None,
    clash: str | None,
) -> Solution | None:
    """Return the answer where no search is due: without time, in a clash, or without a choice."""
    if deadline.seconds == 0.0:
        raw = RawResult(
            start, stop_reason=StopReason.TIME, solver="warm-start" if start is not None else name
        )
        return judge(problem, raw, name, deadline, None)
    if clash is not None:
        return judge(problem, _infeasible(clash), name, deadline, None)
    only = _only_subset(problem)
    if only is None:
        return None
    violations = problem.objective.violations(only, problem.k)
    raw = RawResult(only, bound=value_of(problem, only))
    if violations:
        raw = _infeasible(f"sizes leave one subset, and {violations[0]}")
    return judge(problem, raw, name, deadline, None)


def _without_search(
    problem: Problem, searching: Deadline, start: NDArray[np.int64] | None
) -> RawResult | None:
    """Return the subset that the check of the constraints found, where that took most of the time.

    Preparing a search of many candidates takes as long again. None where a search is due, and where
    the subset does not do for the objective.
    """
    if not (searching.limited and problem.constrained and problem.n > _MANY):
        return None
    if searching.remaining() > max(searching.elapsed(), _PREPARING * problem.n):
        return None
    if start is not None:
        return RawResult(None, stop_reason=StopReason.TIME)
    cheapest = problem.constraints.cheapest
    if isinstance(cheapest, str) or problem.objective.at_most:
        return None
    if problem.objective.violations(cheapest, problem.k):
        return None
    return RawResult(cheapest, stop_reason=StopReason.TIME, solver="greedy")


def _judging_time(problem: Problem, deadline: Deadline, start: NDArray[np.int64] | None) -> float:
    """Return the seconds kept back from a solver, to sort, check and recompute its answer.

    After a long search this code is out of the processor's caches and takes five times as long.
    The objective of a warm start is recomputed, too.
    """
    seconds = _JUDGING + _JUDGING_PER_CANDIDATE * problem.n
    evaluating = problem.objective.evaluation_time(problem.k, deadline.clock)
    if start is not None:
        evaluating *= 2.0
    return min(seconds, _JUDGING_SHARE * deadline.seconds) + evaluating


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
    if deadline.seconds == 0.0:
        return None
    if problem.objective.restricts:
        own = problem.objective.infeasibility(problem.k)
        if own is not None:
            return own
    return problem.constraints.infeasibility() if problem.constrained else None


def _infeasible(why: str) -> RawResult:
    """Return the result for a problem that no subset is feasible for."""
    return RawResult(None, infeasible=True, extras={"why": why})


def _only_subset(problem: Problem) -> NDArray[np.int64] | None:
    """Return the one feasible subset when sizes leave no choice, None otherwise."""
    if problem.k == 0:
        return NO_INDICES
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
    warm_start: str | Solution | ArrayLike,
    deadline: Deadline,
    max_iterations: int | None,
    entropy: int,
) -> NDArray[np.int64] | None:
    """Return a warm start as sorted feasible indices; None where it has no subset."""
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
        indices = NO_INDICES if named is None else named
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
            raw = candidate.solve(problem.centered, context)
            solution = judge(problem, raw, name, context.deadline, context.warm_start)
        except (SolverUnavailableError, SolverLicenseError, UnsupportedProblemError) as error:
            if last and solution is None:
                raise
            fallbacks.append((name, str(error)))
            continue
        except SolverError as error:
            start = context.warm_start
            if start is None or value_of(problem, start) is None:
                if last and solution is None:
                    raise
                fallbacks.append((name, str(error)))
                continue
            failure = RawResult(None, stop_reason=StopReason.OTHER, extras={"error": str(error)})
            solution = judge(problem, failure, name, context.deadline, start)
        answered = solution.has_solution and "error" not in solution.extras
        interrupted = solution.stop_reason is StopReason.INTERRUPTED
        if answered or interrupted or solution.status is Status.INFEASIBLE or last:
            break
        fallbacks.append((name, solution.extras.get("error", solution.stop_reason.value)))
    assert solution is not None
    if fallbacks:
        solution.extras["fallbacks"] = fallbacks + solution.extras.get("fallbacks", [])
    return solution
