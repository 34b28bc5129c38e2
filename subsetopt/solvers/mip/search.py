"""The search that all objectives and backends share: from runs of programs to a solver."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.constraints.partial_subset import Partial
from subsetopt.errors import UnsupportedProblemError
from subsetopt.objectives import FacilityLocation, KCenter, VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import out_of_time
from subsetopt.solvers.mip.constraint_rows import Choice, Frame, feasible, frame_of, value_of
from subsetopt.solvers.mip.coverage_form import CoverForm, FacilityForm, squared_distances
from subsetopt.solvers.mip.linear_form import LinearForm
from subsetopt.solvers.mip.program import Answer, Form, Run
from subsetopt.solvers.mip.vector_form import AbsoluteForm
from subsetopt.solvers.spec import Limit, oversize
from subsetopt.status import StopReason

__all__ = ["form_of", "require_size", "search"]

# Share of the tolerance within which value and bound count as equal: rounding in the final check
# cannot undo such a proof.
_CLOSED = 0.99
# The largest number of infeasible choices that are cut off: each takes a further run.
_MOST_CUTS = 20
# What a proved radius is multiplied by, so that rounding cannot lift it above the optimum.
_ROUNDING = 1.0 - 1e-12


def require_size(limits: Iterable[Limit], problem: Problem, context: SolveContext) -> None:
    """Raise unless a problem is within a backend's limits.

    Raises
    ------
    UnsupportedProblemError
        With the limit, and a solver without it.
    """
    message = oversize(limits, problem, timed=context.deadline.limited)
    if message is not None:
        raise UnsupportedProblemError(f"{message}.")


def form_of(problem: Problem, frame: Frame) -> Form:
    """Return the linear form of a problem of any objective but KCenter."""
    if isinstance(problem.objective, VectorMatching):
        return AbsoluteForm.of(problem, frame)
    if isinstance(problem.objective, FacilityLocation):
        return FacilityForm.of(problem, frame)
    return LinearForm.of(problem, frame)


def search(
    problem: Problem,
    context: SolveContext,
    run: Run,
    form_of: Callable[[Problem, Frame], Form] = form_of,
) -> RawResult:
    """Solve a problem by programs.

    Parameters
    ----------
    problem
        The problem.
    context
        Limits, seed and warm start.
    run
        The backend.
    form_of
        What states the problem as programs, unless it is one of centers; by default in linear form.
    """
    frame = frame_of(problem)
    if isinstance(frame, RawResult):
        return frame
    if isinstance(problem.objective, KCenter):
        radii = _Radii.of(problem, frame, context.deadline)
        return out_of_time(context.deadline) if radii is None else radii.search(context, run)
    return _improve(problem, context, form_of(problem, frame), run)


@dataclass(slots=True)
class _Best:
    """The best subset so far; smaller is better."""

    problem: Problem
    indices: NDArray[np.int64] | None = None
    value: float = math.inf

    def offer(self, indices: NDArray[np.int64] | None) -> None:
        """Take a feasible subset if it is better."""
        if indices is not None and (value := value_of(self.problem, indices)) < self.value:
            self.indices, self.value = indices, value

    def closed(self, bound: float) -> StopReason | None:
        """Return why nothing is left to gain or to prove, given a lower bound; None where it is."""
        objective = self.problem.objective
        if objective.sense == "minimize" and self.value <= objective.tolerance:
            return StopReason.TARGET
        return StopReason.COMPLETED if self.value - bound <= _CLOSED * objective.tolerance else None


@dataclass(slots=True)
class _Runs:
    """Runs one program after the other, and keeps count of them.

    Attributes
    ----------
    cuts
        Choices that a backend took for feasible, and that are not.
    """

    problem: Problem
    run: Run
    used: int = 0
    number: int = 0
    began: float = 0.0
    word: str = "not called"
    cuts: list[Choice] = field(default_factory=list)

    def ask(self, form: Form, start: Choice | None) -> Answer:
        """Return a backend's answer to the program of a form, with feasible choices only.

        Where its tolerances let the best one break a constraint, it is asked again without that.
        """
        while True:
            cut = replace(form, frame=form.frame.without(self.cuts)) if self.cuts else form
            answer = self.run(cut, start, self.used, self.number)
            self.began = self.began if self.number else answer.began
            self.used, self.number = self.used + answer.iterations, self.number + 1
            self.word = answer.word
            good = [feasible(self.problem, form.frame.subset(z)) for z in answer.choices]
            self.cuts += [z for z, kept in zip(answer.choices, good, strict=True) if not kept]
            if all(good[:1]) or not answer.ended or len(self.cuts) > _MOST_CUTS:
                break
        return replace(answer, choices=list(compress(answer.choices, good)))

    def result(
        self, indices: NDArray[np.int64] | None, bound: float | None, reason: StopReason
    ) -> RawResult:
        """Return what came of all runs."""
        extras = {"native_status": self.word, "programs": self.number}
        return RawResult(indices, None, bound, reason, self.used, self.began, extras=extras)


def _improve(problem: Problem, context: SolveContext, form: Form, run: Run) -> RawResult:
    """Run programs until the best subset is proved, or a limit is reached.

    What a form leaves out is added between runs (:meth:`Form.refine`): every subset found is then
    valued rightly, and the bounds of the runs rise to the optimum.
    """
    objective, frame = problem.objective, form.frame
    sign = 1.0 if objective.sense == "minimize" else -1.0
    trivial = sign * objective.trivial_bound
    closed: StopReason | None = None
    best, runs, bound = _Best(problem), _Runs(problem, run), trivial
    best.offer(context.warm_start)
    while True:
        answer = runs.ask(form, frame.choice(best.indices))
        for chosen in answer.choices:
            best.offer(frame.subset(chosen))
        if math.isfinite(answer.bound):
            bound = max(bound, answer.bound * form.factor)
        if bound > best.value + objective.tolerance:
            bound, stop = trivial, StopReason.NUMERICAL  # A subset refutes it.
            break
        closed, stop = best.closed(bound), answer.reason
        if closed is not None or not answer.ended:
            break
        # The frame can be met, as was checked: only an objective's own constraint cannot.
        if answer.infeasible and objective.restricts and best.indices is None:
            return replace(runs.result(None, None, StopReason.COMPLETED), infeasible=True)
        known = frame.choice(best.indices)
        choices = answer.choices if known is None else [known, *answer.choices]
        if not answer.infeasible and form.refine(choices):
            continue
        if form.alternative is None:
            stop = StopReason.NUMERICAL
            break
        form = form.alternative
    if runs.number == 1 and runs.word == "not called":
        return out_of_time(context.deadline)
    cheapest = problem.constraints.cheapest
    if best.indices is None and not isinstance(cheapest, str) and feasible(problem, cheapest):
        best.offer(cheapest)  # The backend lost what the check of the constraints has found.
    return runs.result(best.indices, sign * bound, closed or stop)


@dataclass(frozen=True, eq=False, slots=True)
class _Radii:
    """The radii that k-center can have, as squares, and who is within which.

    Attributes
    ----------
    squares
        Squared distances of samples from candidates, shape (n, m).
    sure
        Those from the nearest included candidate, shape (n,); infinite without.
    levels
        Their different values, ascending.
    """

    problem: Problem
    frame: Frame
    squares: NDArray[np.float64]
    sure: NDArray[np.float64]
    levels: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, frame: Frame, deadline: Deadline) -> _Radii | None:
        objective = problem.objective
        assert isinstance(objective, KCenter)
        squares = squared_distances(objective, frame.items, deadline)
        known = squared_distances(objective, frame.forced, deadline)
        if squares is None or known is None:
            return None
        sure = known.min(axis=1, initial=np.inf)
        finite = sure[np.isfinite(sure)]
        levels = np.unique(np.concatenate([squares.ravel(), finite]))
        # No choice has a radius below that of all candidates together.
        lowest = np.minimum(squares.min(axis=1), sure).max()
        return cls(problem, frame, squares, sure, levels[levels >= lowest])

    def square(self, chosen: Choice) -> float:
        """Return the squared radius of a choice; infinite for an empty one."""
        nearest = self.squares[:, chosen].min(axis=1, initial=np.inf)
        return float(np.minimum(nearest, self.sure).max())

    def level(self, square: float) -> int:
        """Return the position of the first level that is not below a square."""
        return int(np.searchsorted(self.levels, square))

    def cover(self, at: int) -> CoverForm:
        """Return the form that asks for a radius of at most a level."""
        square = self.levels[at]
        return CoverForm(self.frame, 1.0, 1.0, self.squares[self.sure > square] <= square)

    def search(self, context: SolveContext, run: Run) -> RawResult:
        """Bisect the levels by asking for covers."""
        best, first = self._begin(context)
        runs, stop = _Runs(self.problem, run), StopReason.COMPLETED
        low, high = min(first, self.levels.size), self.levels.size
        if best is not None:
            high = self.level(self.square(best))
            low = min(low, high)
        while low < high:
            # Without a subset, first whether there is any.
            middle = (low + high) // 2 if best is not None else self.levels.size - 1
            answer = runs.ask(self.cover(middle), best)
            covers = [
                chosen for chosen in answer.choices if self.square(chosen) <= self.levels[middle]
            ]
            if covers:
                best = min(covers, key=self.square)
                high = self.level(self.square(best))
            elif answer.infeasible:
                low = middle + 1
            else:
                stop = answer.reason
                stop = StopReason.NUMERICAL if stop is StopReason.COMPLETED else stop
                break
        objective, proved = self.problem.objective, low < self.levels.size
        assert isinstance(objective, KCenter)
        bound = objective.distance(float(self.levels[low])) * _ROUNDING if proved else None
        indices = None if best is None else self.frame.subset(best)
        raw = runs.result(indices, bound, stop)
        return replace(raw, infeasible=not proved and best is None)

    def _begin(self, context: SolveContext) -> tuple[Choice | None, int]:
        """Return a choice to begin with, if one is easily found, and the first possible level."""
        far, spread = _farthest_first(self.problem, self)
        starts = (far, self.frame.choice(context.warm_start))
        known = [chosen for chosen in starts if chosen is not None]
        # Two of any k + 1 samples share a center, so no radius is below half their least distance.
        return min(known, key=self.square, default=None), self.level(0.25 * spread * _ROUNDING)


def _farthest_first(problem: Problem, radii: _Radii) -> tuple[Choice | None, float]:
    """Return a choice of far samples, and the least squared distance of any k + 1; 0 without."""
    state, squares = Partial(problem.constraints), radii.sure.copy()
    column = np.full(problem.n, -1)
    column[radii.frame.items] = np.arange(radii.frame.size)
    spread = math.inf
    while state.slots > 0:
        allowed = state.allowed()
        allowed = allowed[column[allowed] >= 0]
        if not allowed.size:
            break
        pick = int(allowed[np.argmax(squares[allowed])])
        spread = min(spread, float(squares[pick]))
        state.take(pick)
        np.minimum(squares, radii.squares[:, column[pick]], out=squares)
    spread = min(spread, float(squares.max())) if state.slots == 0 else 0.0
    chosen = radii.frame.choice(state.completed())
    kept = chosen is not None and feasible(problem, radii.frame.subset(chosen))
    return chosen if kept else None, spread
