"""From a backend that runs programs to a solver: vectors, facility location, k-center."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.constraints.partial_subset import Partial
from subsetopt.errors import UnsupportedProblemError
from subsetopt.objectives import FacilityLocation, KCenter, VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.calls import out_of_time
from subsetopt.solvers.mip.coverage_form import CoverForm, FacilityForm, squared_distances
from subsetopt.solvers.mip.frame import Frame, accepted, frame
from subsetopt.solvers.mip.program import Answer, Form, Run
from subsetopt.solvers.mip.vector_form import AbsoluteForm
from subsetopt.status import StopReason

__all__ = ["form_of", "improve", "needs_programs", "require_size", "search", "size_obstacle"]

# Largest sizes: numbers n * d, and samples, whose pairs are variables or entries. Beyond them a
# backend takes too long to build and to stop a model for a time limit to hold within 50 ms.
_NUMBERS = 25_000
_FACILITIES = 100
_CENTERS = 300
# A little below the tolerance, so that rounding in the final check cannot undo the proof.
_CLOSED = 0.99
_ROUNDING = 1.0 - 1e-12


def needs_programs(problem: Problem) -> bool:
    """Whether a problem goes to a backend as programs, not as a linear model."""
    return isinstance(problem.objective, (VectorMatching, FacilityLocation, KCenter))


def size_obstacle(problem: Problem) -> str | None:
    """Return why a problem is too large for a mixed-integer backend, or None."""
    objective = problem.objective
    n = objective.n
    if isinstance(objective, VectorMatching) and n * objective.d > _NUMBERS:
        return (
            f"vectors of at most {_NUMBERS:,} numbers in all, got {n:,} x {objective.d:,}; "
            "use 'swap' or 'omp'"
        )
    if isinstance(objective, FacilityLocation) and n > _FACILITIES:
        return (
            f"FacilityLocation of at most {_FACILITIES} samples (every pair is a variable), got "
            f"n = {n:,}; use 'lazy-greedy'"
        )
    if isinstance(objective, KCenter) and n > _CENTERS:
        return f"KCenter of at most {_CENTERS} samples, got n = {n:,}; use 'farthest-first'"
    return None


def require_size(problem: Problem) -> None:
    """Raise unless a problem is small enough for a mixed-integer backend.

    Raises
    ------
    UnsupportedProblemError
        With the limit, and a solver without it.
    """
    if (obstacle := size_obstacle(problem)) is not None:
        raise UnsupportedProblemError(f"mixed-integer backends take {obstacle}.")


def form_of(problem: Problem, made: Frame) -> Form:
    """Return the linear form of a problem of vectors or facilities."""
    if isinstance(problem.objective, VectorMatching):
        return AbsoluteForm.of(problem, made)
    return FacilityForm.of(problem, made)


def search(problem: Problem, context: SolveContext, run: Run) -> RawResult:
    """Solve a problem by programs in linear form."""
    made = frame(problem)
    if isinstance(made, RawResult):
        return made
    if isinstance(problem.objective, KCenter):
        radii = _Radii.of(problem, made, context.deadline)
        if radii is None:
            return out_of_time(context.deadline)
        return radii.search(problem, context, run)
    return improve(problem, context, form_of(problem, made), run)


@dataclass(slots=True)
class _Best:
    """The best subset so far; smaller is better."""

    problem: Problem
    indices: NDArray[np.int64] | None = None
    value: float = math.inf

    def offer(self, indices: NDArray[np.int64] | None) -> None:
        """Take a feasible subset if it is better."""
        if indices is None:
            return
        objective = self.problem.objective
        weights = objective.weights_for(indices, self.problem.k)
        assert weights is not None
        value = objective.evaluate(indices, weights)
        value = value if objective.sense == "minimize" else -value
        if value < self.value:
            self.indices, self.value = indices, value


def improve(problem: Problem, context: SolveContext, form: Form, run: Run) -> RawResult:
    """Run programs until the best subset is proved, or a limit is reached.

    What a form leaves out is added between runs (:meth:`Form.refine`): every subset found is then
    valued rightly, and the bounds of the runs rise to the optimum.
    """
    objective, frame_ = problem.objective, form.frame
    sign = 1.0 if objective.sense == "minimize" else -1.0
    best = _Best(problem)
    best.offer(context.warm_start)
    bound = sign * objective.trivial_bound
    setup, used, number = context.deadline.elapsed(), 0, 0
    while True:
        answer = run(form, frame_.choice(best.indices), used, number)
        used, number = used + answer.iterations, number + 1
        for chosen in answer.choices:
            best.offer(accepted(problem, frame_, chosen))
        if math.isfinite(answer.bound):
            bound = max(bound, answer.bound * form.factor)
        stop = answer.reason
        if best.value - bound <= _CLOSED * objective.tolerance:
            near_zero = sign > 0.0 and best.value <= objective.tolerance
            stop = StopReason.TARGET if near_zero else StopReason.COMPLETED
            break
        if stop is StopReason.TARGET:
            stop = StopReason.COMPLETED  # by the program's own value: not yet by ours
        if stop is not StopReason.COMPLETED:
            break
        if answer.infeasible or not form.refine(_tangible(answer, frame_, best)):
            stop = StopReason.NUMERICAL
            break
    if answer.word == "not called" and number == 1:
        return out_of_time(context.deadline)
    return RawResult(
        best.indices,
        bound=sign * bound,
        stop_reason=stop,
        iterations=used,
        setup_time=setup,
        extras={"native_status": answer.word, "programs": number},
    )


def _tangible(answer: Answer, made: Frame, best: _Best) -> list[NDArray[np.bool_]]:
    known = made.choice(best.indices)
    return answer.choices if known is None else [known, *answer.choices]


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

    frame: Frame
    squares: NDArray[np.float64]
    sure: NDArray[np.float64]
    levels: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, made: Frame, deadline: Deadline) -> _Radii | None:
        objective = problem.objective
        assert isinstance(objective, KCenter)
        squares = squared_distances(objective, made.items, deadline)
        known = squared_distances(objective, made.forced, deadline)
        if squares is None or known is None:
            return None
        sure = known.min(axis=1, initial=np.inf)
        finite = sure[np.isfinite(sure)]
        levels = np.unique(np.concatenate([squares.ravel(), finite]))
        # No choice has a radius below that of all candidates together.
        least = np.minimum(squares.min(axis=1), sure).max()
        return cls(made, squares, sure, levels[levels >= least])

    def square(self, chosen: NDArray[np.bool_]) -> float:
        """Return the squared radius of a choice; infinite for an empty one."""
        nearest = self.squares[:, chosen].min(axis=1, initial=np.inf)
        return float(np.minimum(nearest, self.sure).max())

    def level(self, square: float) -> int:
        """Return the position of the first level that is not below a square."""
        return int(np.searchsorted(self.levels, square))

    def cover(self, at: int) -> CoverForm:
        """Return the form that asks for a radius of at most a level."""
        square = self.levels[at]
        return CoverForm(self.frame, self.squares[self.sure > square] <= square)

    def search(self, problem: Problem, context: SolveContext, run: Run) -> RawResult:
        """Bisect the levels by asking for covers."""
        objective, made = problem.objective, self.frame
        assert isinstance(objective, KCenter)
        best, first = self._begin(problem, context)
        low, high, used, number = min(first, self.levels.size), self.levels.size, 0, 0
        setup, stop, word = context.deadline.elapsed(), StopReason.COMPLETED, "not called"
        if best is not None:
            high = self.level(self.square(best))
            low = min(low, high)
        while low < high:
            # Without a subset, first whether there is any.
            middle = (low + high) // 2 if best is not None else self.levels.size - 1
            answer = run(self.cover(middle), best, used, number)
            used, number, word = used + answer.iterations, number + 1, answer.word
            found = [c for c in answer.choices if accepted(problem, made, c) is not None]
            found = [c for c in found if self.square(c) <= self.levels[middle]]
            if found:
                best = min(found, key=self.square)
                high = self.level(self.square(best))
            elif answer.infeasible:
                low = middle + 1
            else:
                stop = answer.reason
                stop = StopReason.NUMERICAL if stop is StopReason.COMPLETED else stop
                break
        proved = low < self.levels.size
        radius = objective.distance(float(self.levels[low])) if proved else math.inf
        return RawResult(
            None if best is None else made.subset(best),
            bound=radius * _ROUNDING if proved else None,
            stop_reason=stop,
            iterations=used,
            setup_time=setup,
            infeasible=not proved and best is None,
            extras={"native_status": word, "programs": number},
        )

    def _begin(
        self, problem: Problem, context: SolveContext
    ) -> tuple[NDArray[np.bool_] | None, int]:
        """Return a choice to begin with, if one is easily found, and the first possible level."""
        taken, spread = _farthest_first(problem, self)
        starts = [taken, context.warm_start]
        known = [c for c in map(self.frame.choice, starts) if c is not None]
        # Of k + 1 samples two share a center: no radius is below half their least distance.
        return min(known, key=self.square, default=None), self.level(0.25 * spread * _ROUNDING)


def _farthest_first(problem: Problem, radii: _Radii) -> tuple[NDArray[np.int64] | None, float]:
    """Return a subset of far samples, and the least squared distance of any k + 1; 0 without."""
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
    indices = state.completed()
    if indices is None or problem.constraints.violations(indices):
        return None, spread
    if problem.objective.violations(indices, problem.k):
        return None, spread
    return indices, spread
