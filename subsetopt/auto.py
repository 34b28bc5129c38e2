"""Choosing a solver: the rule, with its reason, and the solver that follows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt import registry
from subsetopt.budget import Deadline
from subsetopt.certificate import feasible_subset
from subsetopt.errors import SubsetOptError, UnsupportedProblemError
from subsetopt.inputs import checked_choice, checked_integer
from subsetopt.judge import false_claim, wrong_subset
from subsetopt.objectives import MeanMatching, VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext, Solver
from subsetopt.status import StopReason

__all__ = ["Auto", "Choice", "choose_solver", "opening_work"]

# Problems of up to this many subsets are solved by looking at all of them, in about 20 ms.
_ENUMERABLE = 200_000
# The limit where each subset is evaluated by its objective, in Python, which takes as long.
_EVALUABLE = 2_000
# Objectives whose subsets a compiled kernel enumerates.
_FAST = ("MeanMatching", "TopScores")
# The solver to begin with and the reason, by objective: the first that takes the constraints.
_FIRST = {
    "MeanMatching": (("swap", "it has an answer in microseconds and usually proves it"),),
    # With a capacity, which `topk` does not take, the problem is a knapsack.
    "TopScores": (("topk", "sorting solves this problem exactly"),),
    "FacilityLocation": (("lazy-greedy", "it has the greedy's guarantee, fast"),),
    "KCenter": (("farthest-first", "it is within a factor of 2 of the optimum in one pass"),),
    "ScoredMatching": (("lagrangian", "it is near-optimal in a millisecond and bounds its error"),),
    "SamplingDesign[balanced]": (("cube", "it meets the balance, and the size exactly"),),
    "SamplingDesign": (
        ("systematic", "with nothing to balance it is the fastest of exact size"),
        ("multinomial", "it draws with replacement"),
    ),
    "VectorMatching[uniform]": (("swap", "it is near a local optimum in microseconds"),),
    "VectorMatching[nonnegative]": (("omp", "its weights are refitted, and exact at k >= rank"),),
}
# Work limit of the first `swap`, which solves most problems in a tenth of a millisecond.
_OPENING = 40_000
_OPENING_PER_CANDIDATE = 4
# Work limit of the second `swap`, about 1 ms. Without a time limit its constant part is also the
# work limit of the second `exact`, which takes as long.
_WORK = 150_000
_WORK_PER_CANDIDATE = 64
# Work limit of branch and bound. A search that has proved nothing by then rarely proves anything
# later, so the time is better spent on other solvers.
_BRANCH = 100_000
# Under constraints a node costs hundreds of looks: the work limit then grows by this much per
# candidate, and branch and bound gets this share of the remaining time.
_BRANCH_PER_CANDIDATE = 2_000
_BRANCH_SHARE = 0.5
# Branch and bound has no work limit where all subsets take at most this many looks, about half a
# second: it finds the last two members of a subset in one pass over the candidates.
_PROVABLE = 200_000_000
# The largest k for which that number of looks is computed.
_FEW = 16
# Seconds that a MIP backend needs to be of use: start-up, model and first bound.
_MIP_ROOM = 0.25
# Seconds that a MIP backend needs to be of use where vectors are matched.
_VECTOR_ROOM = 1.0
# Where vectors are matched: the share of the time that `swap` has before the backend, and the share
# of the rest that the backend has.
_OPENING_SHARE = 0.25
_BACKEND_SHARE = 0.67
# The largest logarithm of the number of subsets, per dimension, at which Gurobi has a proof within
# seconds (measured to n = 128, for norms with a heavy tail; with equal norms it proves only the
# smallest problems).
_LOGARITHM_PER_DIMENSION = 3.0
# The order in which MIP backends are tried.
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
    for kind in problem.objective.kinds:
        for name, reason in _FIRST.get(kind, ()):
            if _takes(name, problem):
                return Choice(name, reason)
    greedy = _takes("greedy", problem)
    if _takes("exhaustive", problem) and _enumerable(problem):
        few = f"only {_subsets(problem):,} subsets: all can be looked at"
        if not greedy or not Deadline.of(time_limit).limited:
            return Choice("exhaustive", few)
        return Choice("greedy", f"it has an answer in microseconds; then {few}")
    if greedy:
        return Choice("greedy", "it has an answer in microseconds")
    able = registry.available_solvers(problem)
    if able:
        return Choice(able[0], "it is the first usable solver that can take the problem")
    raise UnsupportedProblemError(
        f"no usable solver can take {type(problem.objective).__name__} with "
        f"{', '.join(sorted(problem.features)) or 'no constraints'}; 'subsetopt solvers' says "
        "what is missing."
    )


# A solver after the first: name, maker, work limit and deadline.
_Step = tuple[str, Callable[[], Solver], int | None, Deadline]


@dataclass(frozen=True, slots=True)
class Auto:
    """The chosen solver first, then those that can still prove or improve within the limits.

    Mean matching: a little ``swap``, the first nodes of ``exact``, more ``swap``, more ``exact``,
    which takes about 2 ms at n = 128 without a limit. Under a work limit each of the two gets half.
    Under a time limit ``exact`` does whatever it can finish; then, if a quarter of a second is
    left, the first usable MIP backend starts from the incumbent, and ``swap`` goes on to the end. A
    backend that fails does no harm: the next one is tried, and ``extras["fallbacks"]`` has the
    failure. Other objectives: their own solver, then all subsets where there are few, then a MIP
    backend where the problem is small enough. For vectors the backend gets half of the time,
    between two searches by ``swap``.

    Parameters
    ----------
    start
        How ``swap`` starts where any subset is feasible: ``"random"``, ``"stratified"`` or
        ``"window"`` (see its page). The default is random because, among the many subsets that
        match the mean, those near a uniform draw trained best, and because it needs no sorting.
    choices
        Number of subsets within tolerance from which ``swap`` returns the one with the least sum
        of squared losses, at least 1. A subset found in a later stage is taken as it is.

    Raises
    ------
    OptionError
        If ``start`` is none of these, or ``choices`` below 1.
    """

    start: str = "random"
    choices: int = 1

    def __post_init__(self) -> None:
        checked_integer("choices", self.choices, 1)
        checked_choice("start", self.start, ("random", "stratified", "window"))

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best answer of the chain."""
        first = choose_solver(problem, context.deadline).name
        work = context.max_iterations
        if _matching(problem):
            work = opening_work(problem.n) * self.choices if work is None else (work + 1) // 2
        elif first == "exhaustive" and work is not None and _takes("greedy", problem):
            first = "greedy"  # it has an answer where the limit ends the enumeration
        deadline = context.deadline
        if isinstance(problem.objective, VectorMatching) and _backend_due(problem, context):
            deadline = _part(deadline, _OPENING_SHARE)  # or swap would take all of the time
        opening = SolveContext(deadline, context.entropy, work, context.warm_start)
        best = self._solver(first).solve(problem, opening)
        best.solver = best.solver or first
        if best.stop_reason is StopReason.TARGET and not problem.constrained:
            return best
        fallbacks: list[tuple[str, str]] = []
        following = self._following(problem, context, first, fallbacks)
        step = None if context.deadline.expired() else next(following, None)
        if step is None and best.indices is not None and wrong_subset(problem, best) is None:
            return best  # nothing follows: the front door judges it
        values = _Values(problem)
        best = _believed(values, _incumbent(problem, context), best, fallbacks)
        if step is not None and not _closed(values, best):
            best = self._improved(values, context, best, chain((step,), following), fallbacks)
        if fallbacks:
            best.extras["fallbacks"] = fallbacks
        return best

    def _improved(
        self,
        values: _Values,
        context: SolveContext,
        best: RawResult,
        following: Iterable[_Step],
        fallbacks: list[tuple[str, str]],
    ) -> RawResult:
        """Return the best answer of the solvers after the first; their failures are added."""
        for name, solver, work, deadline in following:
            if best.stop_reason is StopReason.INTERRUPTED or context.deadline.expired():
                break
            start = None if best.indices is None else np.sort(best.indices)
            entropy = context.entropy ^ 1
            try:
                raw = solver().solve(values.problem, SolveContext(deadline, entropy, work, start))
            except SubsetOptError as error:
                fallbacks.append((name, str(error)))
                continue
            except KeyboardInterrupt:
                return replace(best, stop_reason=StopReason.INTERRUPTED)
            raw.solver = raw.solver or name
            best = _believed(values, best, raw, fallbacks)
            if _closed(values, best):
                break
        return best

    def _solver(self, name: str) -> Solver:
        return _swap(self.start, self.choices) if name == "swap" else registry.create(name)

    def _following(
        self,
        problem: Problem,
        context: SolveContext,
        first: str,
        failures: list[tuple[str, str]],
    ) -> Iterator[_Step]:
        """Yield the solvers after the first.

        This is a generator, so that the remaining time and the failures are looked at when a solver
        is due.
        """
        deadline = context.deadline
        timed = deadline.limited
        max_iterations = context.max_iterations
        swap = partial(self._solver, "swap")
        if _matching(problem):
            if max_iterations is not None:
                yield "exact", partial(_exact, None), max_iterations // 2, deadline
                return
            # A proof that takes a few thousand nodes comes before a longer search.
            yield "exact", partial(_exact, 0), None, deadline
            yield "swap", swap, _WORK + _WORK_PER_CANDIDATE * problem.n, deadline
            if timed and not problem.constraints.unbound:
                branch = None
                few = problem.k <= _FEW  # a large binomial coefficient takes long to compute
                if not few or comb(problem.n, max(problem.k - 2, 0)) * problem.n > _PROVABLE:
                    branch = _BRANCH + _BRANCH_PER_CANDIDATE * problem.n
                yield "exact", partial(_exact, branch), None, _part(deadline, _BRANCH_SHARE)
            else:
                yield "exact", partial(_exact, _BRANCH), None if timed else _WORK, deadline
        elif first == "greedy" or (first != "exhaustive" and max_iterations is None):
            if _takes("exhaustive", problem) and _enumerable(problem):
                every = partial(registry.create, "exhaustive")
                yield "exhaustive", every, max_iterations, deadline
        if not timed or max_iterations is not None:
            return
        if _backend_due(problem, context):
            vectors = isinstance(problem.objective, VectorMatching)
            share = _BACKEND_SHARE if vectors and first == "swap" else 1.0
            for name in [name for name in _MIP_ORDER if _keeps_limit(name, problem)]:
                before = len(failures)
                yield name, partial(registry.create, name), None, _part(deadline, share)
                if len(failures) == before:
                    break  # the next backend is needed only where this one fails
        if first == "swap":
            yield "swap", swap, None, deadline


@lru_cache
def _exact(branch_limit: int | None) -> Solver:
    """Return the exact solver; with 0, only its first nodes and its dynamic program."""
    options: dict[str, Any] = {"branch_limit": branch_limit}
    if branch_limit == 0:
        options["meet_limit"] = 0
    return registry.create("exact", options)


@lru_cache
def _swap(start: str, choices: int) -> Solver:
    """Return a swap solver; one object for every use."""
    return registry.create("swap", {"start": start, "choices": choices})


def opening_work(n: Any) -> Any:
    """Return the work of the first ``swap`` for n candidates (or an array of counts)."""
    return _OPENING + _OPENING_PER_CANDIDATE * n


def _matching(problem: Problem) -> bool:
    """Whether this is scalar mean matching, which has its own exact solver."""
    return type(problem.objective) is MeanMatching


def _backend_due(problem: Problem, context: SolveContext) -> bool:
    """Whether there is time for a mixed-integer backend, and some hope of a proof by it."""
    remaining = context.deadline.remaining()
    if math.isinf(remaining) or context.max_iterations is not None:
        return False
    if remaining <= _MIP_ROOM or not any(_takes(name, problem) for name in _MIP_ORDER):
        return False
    objective = problem.objective
    if not isinstance(objective, VectorMatching) or objective.weights != "uniform":
        return True
    # Among many subsets in few dimensions some match so well that no bound tells them from 0.
    hope = _log_subsets(problem) <= _LOGARITHM_PER_DIMENSION * objective.d
    return hope and remaining > _VECTOR_ROOM


def _part(deadline: Deadline, share: float) -> Deadline:
    """Return a deadline for a share of what is left."""
    return Deadline(share * deadline.remaining(), deadline.clock)


def _takes(name: str, problem: Problem) -> bool:
    """Whether a solver can take a problem."""
    return registry.spec_of(name).obstacle(problem) is None


def _keeps_limit(name: str, problem: Problem) -> bool:
    """Whether a solver is usable here and takes a problem under a time limit.

    A license that is too small for it is left to the solver to tell of.
    """
    takes = registry.spec_of(name).obstacle(problem, timed=True) is None
    return takes and registry.availability(name).usable


def _enumerable(problem: Problem) -> bool:
    """Whether looking at every subset takes no more than about 20 ms."""
    fast = any(kind in _FAST for kind in problem.objective.kinds)
    most = _ENUMERABLE if fast else _EVALUABLE
    # The logarithm is rounded; the count itself is computed only where it is small.
    return _log_subsets(problem) <= math.log(most) + 1e-6 and _subsets(problem) <= most


def _choices(problem: Problem) -> tuple[int, int]:
    """Return how many candidates may be chosen from, and how many of them make a full subset."""
    if not problem.constrained:
        return problem.n, problem.k
    rules = problem.constraints
    return rules.free.size, problem.k - rules.forced.size


def _log_subsets(problem: Problem) -> float:
    """Return the logarithm of the number of subsets of full size, quotas and capacity left out."""
    free, need = _choices(problem)
    if not 0 <= need <= free:
        return -math.inf
    return math.lgamma(free + 1) - math.lgamma(need + 1) - math.lgamma(free - need + 1)


def _subsets(problem: Problem) -> int:
    """Return the number of subsets that the sizes allow, quotas and capacity left out."""
    free, need = _choices(problem)
    if problem.cardinality == "exact":
        return comb(free, need) if need >= 0 else 0
    return sum(comb(free, size) for size in range(need + 1)) if free <= 64 else 1 << 62


class _Values:
    """The objectives of subsets, smaller is better, each computed once: some take long."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.sign = 1.0 if problem.objective.sense == "minimize" else -1.0
        # By identity, with the subset itself, so that no other one takes its place in memory.
        self._known: dict[int, tuple[NDArray[np.int64], float]] = {}

    def of(self, raw: RawResult) -> float:
        """Return the objective of a raw result; infinity without indices."""
        if raw.indices is None:
            return np.inf
        known = self._known.get(id(raw.indices))
        if known is None:
            known = self._known[id(raw.indices)] = raw.indices, self._computed(raw, raw.indices)
        return known[1]

    def _computed(self, raw: RawResult, indices: NDArray[np.int64]) -> float:
        objective, weights = self.problem.objective, raw.weights
        if weights is None:
            weights = objective.weights_for(indices, self.problem.k)
        return np.inf if weights is None else self.sign * objective.evaluate(indices, weights)


def _closed(values: _Values, raw: RawResult) -> bool:
    """Whether nothing is left to prove: infeasible, or objective and bound within tolerance."""
    if raw.infeasible:
        return True
    if raw.indices is None:
        return False
    objective = values.problem.objective
    bound = objective.trivial_bound if raw.bound is None else raw.bound
    near = values.of(raw) - values.sign * bound <= objective.tolerance
    return near or not objective.provable


def _incumbent(problem: Problem, context: SolveContext) -> RawResult:
    """Return a subset that needs no search: the warm start or, under constraints, a cheapest one.

    There is none where the objective makes that subset infeasible, or has no weights for it.
    """
    indices = context.warm_start
    if indices is None and problem.constrained:
        indices = feasible_subset(problem)
    if indices is None or problem.objective.weights_for(indices, problem.k) is None:
        return RawResult(None)
    return RawResult(indices, solver="warm-start" if context.warm_start is not None else "greedy")


def _believed(
    values: _Values, old: RawResult, new: RawResult, failures: list[tuple[str, str]]
) -> RawResult:
    """Return the better of two results; what is false about the new one is left out and told."""
    problem = values.problem
    wrong = wrong_subset(problem, new)
    if wrong is not None:
        failures.append((str(new.solver), f"returned an infeasible subset: {wrong}"))
        new = replace(new, indices=None, weights=None, bound=None, infeasible=False)
    known = [
        values.sign * values.of(raw)
        for raw in (old, new)
        if raw.indices is not None and problem.objective.clearly_allows(raw.indices, problem.k)
    ]
    claim = false_claim(problem, new, known)
    if claim is not None:
        failures.append((str(new.solver), claim))
        new = replace(new, bound=None, infeasible=False)
    return _better(values, old, new)


def _better(values: _Values, old: RawResult, new: RawResult) -> RawResult:
    """Return the better subset of two results, with the tighter of their bounds."""
    best, other = (new, old) if values.of(new) < values.of(old) else (old, new)
    bounds = [raw.bound for raw in (old, new) if raw.bound is not None]
    tightest = None
    if bounds:
        tightest = max(bounds) if values.sign > 0.0 else min(bounds)
    return replace(
        best,
        bound=tightest,
        iterations=old.iterations + new.iterations,
        setup_time=old.setup_time + new.setup_time,
        stop_reason=new.stop_reason,
        infeasible=other.infeasible or best.infeasible,
    )
