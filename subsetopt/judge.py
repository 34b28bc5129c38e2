"""The one place where answers are judged: what a solver returned becomes a Solution or an error."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.certificate import check_indices, check_rows, feasible_subset
from subsetopt.objectives import Objective
from subsetopt.objectives.mean_matching import MeanMatchingRows
from subsetopt.problem import Problem
from subsetopt.solution import Solution, Solutions
from subsetopt.solvers.base import RawResult, RawTable
from subsetopt.status import Status, StopReason

__all__ = ["NO_INDICES", "false_claim", "judge", "judge_rows", "value_of", "wrong_subset"]

NO_INDICES = np.empty(0, dtype=np.int64)
_NO_WEIGHTS = np.empty(0, dtype=np.float64)
_INT64 = np.dtype(np.int64)


# A subset with its weights and its objective.
_Answer = tuple[NDArray[np.int64], NDArray[np.float64], float]


def judge(
    problem: Problem,
    raw: RawResult,
    name: str,
    deadline: Deadline,
    start: NDArray[np.int64] | None,
) -> Solution:
    """Turn a solver's result into an answer: recompute, verify, compare with the warm start.

    A subset that is infeasible, and a bound or a proof of infeasibility that a feasible subset
    refutes, are an error of the solver. The warm start is then the answer, where there is one.
    """
    name = raw.solver or name
    objective = problem.objective
    kept = None if start is None else _kept(problem, start)
    own: _Answer | None = None
    error: str | None = None
    if raw.indices is not None:
        own, error = _checked(problem, raw.indices, raw.weights)
        if error is not None:
            error = f"solver {name!r} returned an infeasible subset: {error}"
    if error is None and (raw.infeasible or raw.bound is not None):
        answers = [answer for answer in (own, kept) if answer is not None]
        if objective.restricts:
            answers = [a for a in answers if objective.clearly_allows(a[0], problem.k)]
        known = [answer[2] for answer in answers]
        if (claim := false_claim(problem, raw, known)) is not None:
            error = f"solver {name!r} {claim}"
    if error is not None:
        raw = RawResult(
            None,
            stop_reason=raw.stop_reason,
            iterations=raw.iterations,
            setup_time=raw.setup_time,
            extras={**raw.extras, "error": error},
        )
        own = None
    if own is None and kept is None:
        status = Status.INFEASIBLE if raw.infeasible else Status.NO_SOLUTION
        return _empty(problem, status if error is None else Status.ERROR, name, deadline, raw)
    if kept is not None:
        # A random draw stands: preferring a better start would change its probabilities.
        if own is None or (objective.provable and _better(objective, kept[2], own[2])):
            own, name = kept, "warm-start"
    assert own is not None
    return _certified(objective, own, raw, name, deadline.elapsed())


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
        own = indices, weights, objective.evaluate(indices, weights)
        answer = _certified(objective, own, raw, table.solver, seconds)
        return answer if answer.status is Status.OPTIMAL else alone(i)

    return Solutions(answers, make)


def value_of(problem: Problem, indices: NDArray[np.int64]) -> float | None:
    """Return the objective of a subset, or None where solvers choose its weights."""
    weights = problem.objective.weights_for(indices, problem.k)
    return None if weights is None else problem.objective.evaluate(indices, weights)


def wrong_subset(problem: Problem, raw: RawResult) -> str | None:
    """Return what is wrong with the subset of a result, or None; also where there is none."""
    if raw.indices is None:
        return None
    subset = _weighted(problem, raw.indices, raw.weights)
    return subset if isinstance(subset, str) else None


def false_claim(problem: Problem, raw: RawResult, known: list[float]) -> str | None:
    """Return what is false about a result's bound or infeasibility, or None.

    Parameters
    ----------
    problem
        The problem.
    raw
        The result. Its subset is not looked at.
    known
        Objectives of clearly feasible subsets. A proved bound lies on the right side of all of
        them.
    """
    if raw.infeasible and (known or feasible_subset(problem, clearly=True) is not None):
        return "calls the problem infeasible, but a subset satisfies all constraints"
    objective = problem.objective
    if raw.bound is None or not objective.provable:
        return None
    try:
        bound = float(raw.bound)
    except (TypeError, ValueError):
        bound = math.nan
    minimize = objective.sense == "minimize"
    for value in known:
        excess = bound - value if minimize else value - bound
        if excess > objective.tolerance:
            return (
                f"claims the bound {bound:.6g}, but a feasible subset has the objective "
                f"{value:.6g}: no proved bound is {'above' if minimize else 'below'} it"
            )
    return f"returned the bound {raw.bound!r}, which is not a number" if bound != bound else None


def _better(objective: Objective, first: float, second: float) -> bool:
    """Whether the first of two objectives is the better one."""
    return first < second if objective.sense == "minimize" else first > second


def _kept(problem: Problem, start: NDArray[np.int64]) -> _Answer | None:
    """Return a warm start as an answer, or None where solvers choose the weights."""
    weights = problem.objective.weights_for(start, problem.k)
    if weights is None:
        return None
    return start, weights, problem.objective.evaluate(start, weights)


def _certified(
    objective: Objective, own: _Answer, raw: RawResult, name: str, seconds: float
) -> Solution:
    """Return a feasible subset with its bound, which is no false claim, and its status."""
    (indices, weights, value), trivial = own, objective.trivial_bound
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
) -> tuple[_Answer | None, str | None]:
    """Return a subset, sorted, with weights and objective, or what is wrong with it."""
    subset = _weighted(problem, chosen, weights)
    if isinstance(subset, str):
        return None, subset
    return (*subset, problem.objective.evaluate(*subset)), None


def _weighted(
    problem: Problem, chosen: NDArray[np.int64], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | str:
    """Return a subset, sorted, with its weights, or what is wrong with it."""
    objective = problem.objective
    if type(chosen) is not np.ndarray or chosen.dtype != _INT64 or chosen.ndim != 1:
        if not isinstance(chosen, np.ndarray) or chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            return f"it is no vector of integers but {chosen!r:.80}"
        chosen = np.array(chosen, dtype=np.int64)
    if weights is None:
        indices = chosen.copy()
        indices.sort()  # takes half the time of np.sort for a small subset
        own = objective.weights_for(indices, problem.k)
        if own is None:
            return "it has no weights"
        violations = check_indices(problem, indices)
    else:
        if weights.shape != chosen.shape:
            return f"{weights.size} weights for {chosen.size} indices"
        order = chosen.argsort(kind="stable")
        indices, own = chosen[order], weights[order]
        violations = check_indices(problem, indices)
        if not violations:
            wrong = objective.weight_problem(indices, own, problem.k)
            violations = [wrong] if wrong else []
    if violations:
        return "; ".join(violations)
    return indices, own


def _empty(
    problem: Problem, status: Status, name: str, deadline: Deadline, raw: RawResult
) -> Solution:
    """Return an answer without a subset."""
    return Solution(
        NO_INDICES,
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
        raw.extras,
    )
