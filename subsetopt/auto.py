"""Choosing a solver: the rule, with its reason, and the solver that follows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt import registry
from subsetopt.budget import Deadline
from subsetopt.errors import SubsetOptError, UnsupportedProblemError
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext

__all__ = ["Auto", "Choice", "choose_solver"]

# Up to this many subsets are settled by looking at all of them (about 20 ms).
_ENUMERABLE = 200_000
# Seconds a MIP backend needs before it can be of use: start-up, model, first bound.
_MIP_ROOM = 0.25
_MIP_ORDER = ("gurobi", "cpsat", "scip", "highs")


class Choice(NamedTuple):
    """A solver's name and why it is the one."""

    name: str
    reason: str


def choose_solver(problem: Problem, time_limit: float | Deadline | None = None) -> Choice:
    """Return the solver that ``solver="auto"`` starts with, and the reason.

    Parameters
    ----------
    problem
        The problem to solve.
    time_limit
        Seconds, a Deadline, or None for the default work limit.

    Raises
    ------
    UnsupportedProblemError
        If no usable solver can take the problem.

    Examples
    --------
    >>> import subsetopt as so
    >>> so.choose_solver(so.Problem(so.TopScores([3.0, 1.0, 2.0]), k=1)).name
    'topk'
    """
    if _takes("swap", problem):
        return Choice("swap", "it has an answer in microseconds and usually proves it")
    # TopScores is a top-k under everything but a capacity, which makes it a knapsack.
    if type(problem.objective).__name__ == "TopScores" and _takes("topk", problem):
        return Choice("topk", "sorting solves this problem exactly")
    if _takes("exhaustive", problem) and _subsets(problem) <= _ENUMERABLE:
        return Choice("exhaustive", f"only {_subsets(problem):,} subsets: all can be looked at")
    if _takes("greedy", problem):
        return Choice("greedy", "it has an answer in microseconds")
    able = registry.available_solvers(problem)
    if able:
        return Choice(able[0], "it is the first usable solver that can take the problem")
    raise UnsupportedProblemError(
        f"no usable solver can take {type(problem.objective).__name__} with "
        f"{', '.join(sorted(problem.features)) or 'no constraints'}; 'subsetopt solvers' says "
        "what is missing."
    )


@dataclass(frozen=True, slots=True)
class Auto:
    """The chosen solver first, then what can still prove or improve within the limits.

    A MIP backend is called only under an explicit time limit that leaves room for it, starts from
    the incumbent, and may fail without harm: the failure is told in ``extras["fallbacks"]``.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best answer of the chain."""
        limit = context.deadline if context.deadline.limited else None
        first = choose_solver(problem, limit).name
        best = _named(registry.create(first).solve(problem, context), first)
        if _closed(problem, best) or best.stop_reason.name == "INTERRUPTED":
            return best
        fallbacks: list[tuple[str, str]] = []
        for name in self._improvers(problem, context, first):
            follow = dataclasses.replace(context, warm_start=_sorted(best.indices))
            try:
                raw = _named(registry.create(name).solve(problem, follow), name)
            except SubsetOptError as error:
                fallbacks.append((name, str(error)))
                continue
            best = _better(problem, best, raw)
            if _closed(problem, best):
                break
        if fallbacks:
            best = dataclasses.replace(best, extras={**best.extras, "fallbacks": fallbacks})
        return best

    @staticmethod
    def _improvers(problem: Problem, context: SolveContext, first: str) -> list[str]:
        names = []
        if (
            first != "exhaustive"
            and context.max_iterations is None
            and _takes("exhaustive", problem)
            and _subsets(problem) <= _ENUMERABLE
        ):
            names.append("exhaustive")
        if context.deadline.limited and context.deadline.remaining() > _MIP_ROOM:
            usable = registry.available_solvers(problem)
            names += [name for name in _MIP_ORDER if name in usable][:1]
        return names


def _takes(name: str, problem: Problem) -> bool:
    return registry.spec_of(name).obstacle(problem) is None


def _subsets(problem: Problem) -> int:
    """Return how many subsets sizes alone allow (quotas and capacity not counted)."""
    if not problem.constrained:
        free, need = problem.n, problem.k
    else:
        free = problem.constraints.free.size
        need = problem.k - problem.constraints.forced.size
    if problem.cardinality == "exact":
        return comb(free, need) if need >= 0 else 0
    return sum(comb(free, size) for size in range(need + 1)) if free <= 64 else 1 << 62


def _sorted(indices: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    return None if indices is None else np.sort(indices)


def _named(raw: RawResult, name: str) -> RawResult:
    return raw if raw.solver else dataclasses.replace(raw, solver=name)


def _objective(problem: Problem, raw: RawResult) -> float:
    """Return the objective of a raw result, smaller is better; infinity without indices."""
    if raw.indices is None:
        return np.inf
    indices = np.sort(raw.indices)
    weights = raw.weights
    if weights is None:
        weights = problem.objective.weights_for(indices, problem.k)
    sign = 1.0 if problem.objective.sense == "minimize" else -1.0
    return sign * problem.objective.evaluate(indices, weights)


def _closed(problem: Problem, raw: RawResult) -> bool:
    """Whether nothing is left to prove: infeasible, or objective and bound within tolerance."""
    if raw.infeasible:
        return True
    if raw.indices is None:
        return False
    value = _objective(problem, raw)
    minimize = problem.objective.sense == "minimize"
    bound = raw.bound if raw.bound is not None else (0.0 if minimize else np.inf)
    return value - (bound if minimize else -bound) <= problem.objective.tolerance


def _better(problem: Problem, old: RawResult, new: RawResult) -> RawResult:
    """Return the better subset of two results, with the tighter bound of both."""
    best, other = (new, old) if _objective(problem, new) < _objective(problem, old) else (old, new)
    bounds = [raw.bound for raw in (old, new) if raw.bound is not None]
    if not bounds:
        return best
    tightest = max(bounds) if problem.objective.sense == "minimize" else min(bounds)
    return dataclasses.replace(
        best,
        bound=tightest,
        iterations=old.iterations + new.iterations,
        setup_time=old.setup_time + new.setup_time,
        stop_reason=new.stop_reason,
        infeasible=other.infeasible or best.infeasible,
    )
