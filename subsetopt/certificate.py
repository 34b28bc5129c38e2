"""Independent verification of an answer in plain NumPy float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.problem import Problem
from subsetopt.solution import Solution
from subsetopt.status import Status

__all__ = ["Certificate", "check_indices", "check_rows", "feasible_subset", "verify"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The outcome of :func:`verify`.

    Attributes
    ----------
    feasible
        Whether the subset satisfies every constraint of the problem.
    objective
        The objective recomputed from indices and weights; nan when it cannot be.
    objective_matches
        Whether the claimed objective agrees with the recomputed one within tolerance.
    bound_holds
        Whether the claimed bound lies on the right side of the recomputed objective.
    status_holds
        Whether the claimed status is possible: OPTIMAL only where objective and bound agree within
        tolerance, INFEASIBLE only where the constraints alone do not refute it.
    violations
        Every violation found, in words.
    """

    feasible: bool
    objective: float
    objective_matches: bool
    bound_holds: bool
    status_holds: bool
    violations: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether the subset is feasible and every claim holds."""
        return self.feasible and self.objective_matches and self.bound_holds and self.status_holds

    def __bool__(self) -> bool:
        return self.valid


def check_indices(problem: Problem, indices: NDArray[np.int64]) -> list[str]:
    """Return every way in which sorted ``indices`` fail to be a feasible subset, in words."""
    violations: list[str] = []
    size = indices.size
    if size:
        if indices.item(0) < 0 or indices.item(-1) >= problem.n:
            return [f"indices outside 0 to {problem.n - 1}: {indices[0]} to {indices[-1]}"]
        # Counting takes half the time of all() for a small subset.
        if size > 1 and np.count_nonzero(indices[1:] > indices[:-1]) < size - 1:
            if not problem.objective.repeats or not bool((indices[1:] >= indices[:-1]).all()):
                return ["indices repeat or are not sorted"]
    if problem.constrained:
        violations = problem.constraints.violations(indices)
    elif size > problem.k or (size < problem.k and problem.cardinality == "exact"):
        violations = [f"{size} candidates chosen for k = {problem.k}"]
    return violations + problem.objective.violations(indices, problem.k)


def check_rows(
    indices: NDArray[np.int64], places: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return for each row of a table whether its indices ascend and are in range.

    Parameters
    ----------
    indices
        Subsets of at least one candidate each, one after the other.
    places
        Where the subset of each row begins, and the end of the last, shape (rows + 1,).
    lengths
        Number of candidates of each row, shape (rows,).
    """
    valid = np.ones(indices.size, dtype=np.bool_)
    valid[1:] = indices[1:] > indices[:-1]
    valid[places[:-1]] = indices[places[:-1]] >= 0
    in_range = indices[places[1:] - 1] < lengths
    return np.logical_and.reduceat(valid, places[:-1]) & in_range


def feasible_subset(problem: Problem, *, clearly: bool = False) -> NDArray[np.int64] | None:
    """Return a feasible subset if there is one that needs no search, else None.

    None does not mean that there is no feasible subset.

    Parameters
    ----------
    problem
        The problem, with its constraints.
    clearly
        Whether the subset must keep the objective's own constraints by more than their rounding.
    """
    rules = problem.constraints
    if rules.infeasibility() is not None:
        return None
    cheapest = rules.cheapest
    assert not isinstance(cheapest, str)
    objective, k = problem.objective, problem.k
    allowed = objective.clearly_allows(cheapest, k) if clearly else True
    return cheapest if allowed and not objective.violations(cheapest, k) else None


def verify(problem: Problem, solution: Solution) -> Certificate:
    """Check what a solution claims: its subset, objective, bound and status.

    All is computed anew from the problem, the indices and the weights, in plain NumPy float64.

    Parameters
    ----------
    problem
        The problem that the solution answers.
    solution
        The answer; one without a subset is never valid.

    Returns
    -------
    Certificate
        What holds and what does not; as a bool it is True when all of it holds.

    Examples
    --------
    >>> import subsetopt as so
    >>> problem = so.Problem(so.MeanMatching([1.0, 2.0, 3.0]), k=1)
    >>> bool(so.verify(problem, so.solve(problem)))
    True
    """
    if not solution.has_solution:
        wrong = _status_problem(problem, solution)
        notes = [f"no subset: {solution.status.name}"] + ([wrong] if wrong else [])
        return Certificate(False, math.nan, False, False, wrong is None, tuple(notes))
    violations = check_indices(problem, solution.indices)
    if solution.n != problem.n:
        violations.append(f"the answer is for n = {solution.n}, the problem has n = {problem.n}")
    if solution.weights.shape != solution.indices.shape:
        violations.append(f"{solution.weights.size} weights for {solution.indices.size} indices")
    elif not np.isfinite(solution.weights).all():
        violations.append("weights are not finite")
    elif wrong := problem.objective.weight_problem(solution.indices, solution.weights, problem.k):
        violations.append(wrong)
    if violations:
        return Certificate(False, math.nan, False, False, False, tuple(violations))
    objective = problem.objective.evaluate(solution.indices, solution.weights)
    tolerance = problem.objective.tolerance
    matches = abs(objective - solution.objective) <= tolerance
    sign = 1.0 if problem.objective.sense == "minimize" else -1.0
    holds = sign * (objective - solution.bound) >= -tolerance
    notes = []
    if not matches:
        notes.append(f"objective claimed {solution.objective!r}, recomputed {objective!r}")
    if not holds:
        notes.append(f"bound {solution.bound!r} on the wrong side of objective {objective!r}")
    wrong = _status_problem(problem, solution)
    if wrong is not None:
        notes.append(wrong)
    return Certificate(True, objective, matches, holds, wrong is None, tuple(notes))


def _status_problem(problem: Problem, solution: Solution) -> str | None:
    """Return why the status of a solution cannot be true, or None; its objective is taken as is."""
    if solution.status is Status.OPTIMAL:
        if not problem.objective.provable:
            return "claimed OPTIMAL, but a random draw is never optimal"
        if not solution.gap <= problem.objective.tolerance:
            return (
                f"claimed OPTIMAL, but the objective {solution.objective!r} and the bound "
                f"{solution.bound!r} differ by more than {problem.objective.tolerance:.3g}"
            )
    elif not solution.has_solution and solution.indices.size:
        return f"claimed {solution.status.name} with {solution.indices.size} candidates chosen"
    elif solution.status is Status.INFEASIBLE:
        if feasible_subset(problem, clearly=True) is not None:
            return "claimed INFEASIBLE, but a subset satisfies all constraints"
    return None
