"""The search that all objectives and backends share: from runs of programs to a solver."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.errors import UnsupportedProblemError
from subsetopt.objectives import FacilityLocation, KCenter, Objective, VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.mip.constraint_rows import Choice, Frame, feasible, frame_of, value_of
from subsetopt.solvers.mip.coverage_form import CentersForm, FacilityForm
from subsetopt.solvers.mip.linear_form import LinearForm
from subsetopt.solvers.mip.program import NOT_CALLED, Answer, Form, Limits, Run
from subsetopt.solvers.mip.vector_form import AbsoluteForm
from subsetopt.solvers.spec import Limit, oversize
from subsetopt.status import StopReason

__all__ = ["form_of", "out_of_time", "require_size", "search"]

# Share of the tolerance within which value and bound count as equal: rounding in the final check
# cannot undo such a proof.
_CLOSED = 0.99
# The largest number of infeasible choices that are cut off: each takes a further run.
_MOST_CUTS = 20
_UNLIMITED = Limits()


def require_size(limits: Iterable[Limit], problem: Problem, context: SolveContext) -> None:
    """Raise UnsupportedProblemError where a problem is beyond the sizes that a backend takes."""
    message = oversize(limits, problem, timed=context.deadline.limited)
    if message is not None:
        raise UnsupportedProblemError(f"{message}.")


def out_of_time(deadline: Deadline) -> RawResult:
    """Return the result of a backend that there was no time to call."""
    raw = RawResult(None, stop_reason=StopReason.TIME, setup_time=deadline.elapsed())
    raw.extras["native_status"] = NOT_CALLED
    return raw


def form_of(problem: Problem, frame: Frame, context: SolveContext) -> Form | None:
    """Return the linear form of a problem; None where there is no time to state it."""
    if isinstance(problem.objective, KCenter):
        return CentersForm.of(problem, frame, context)
    if isinstance(problem.objective, FacilityLocation):
        return FacilityForm.of(problem, frame)
    if isinstance(problem.objective, VectorMatching):
        return AbsoluteForm.of(problem, frame)
    return LinearForm.of(problem, frame)


def search(
    problem: Problem,
    context: SolveContext,
    run: Run,
    default: Limits = _UNLIMITED,
    form_of: Callable[[Problem, Frame, SolveContext], Form | None] = form_of,
) -> RawResult:
    """Solve a problem by programs that ``form_of`` states and the backend ``run`` runs.

    Where the context has no limit, ``default`` limits all runs together.
    """
    frame = frame_of(problem)
    if isinstance(frame, RawResult):
        return frame
    form = form_of(problem, frame, context)
    if form is None:
        return out_of_time(context.deadline)
    return _improve(_Runs(problem, context, run, default), form)


def _improve(runs: _Runs, form: Form) -> RawResult:
    """Run programs until the best subset is proved, or a limit is reached.

    What a form leaves out is added between runs (:meth:`Form.refine`): every subset found is then
    valued rightly, and the bounds of the runs rise to the optimum.
    """
    problem, objective, frame = runs.problem, runs.problem.objective, form.frame
    cheapest, value = problem.constraints.cheapest, partial(value_of, problem)
    spare = None if isinstance(cheapest, str) or not feasible(problem, cheapest) else cheapest
    best = min(runs.context.warm_start, form.start, key=value)
    least = value(best)
    sign = 1.0 if objective.sense == "minimize" else -1.0
    trivial = sign * objective.trivial_bound
    bound = max(trivial, form.floor)
    # A subset that was found while the problem was stated may need no run.
    stop = None if form.start is None else _closed(objective, least, bound)
    while stop is None:
        answer = runs.ask(form, frame.choice(best))
        for subset in map(frame.subset, answer.choices):
            if (worth := value(subset)) < least:
                best, least = subset, worth
        following = form.refine(answer, frame.choice(best))
        proved = answer.bound * form.factor if math.isfinite(answer.bound) else -math.inf
        bound = max(bound, form.floor, proved)
        if bound > least + objective.tolerance:
            bound, stop = trivial, StopReason.NUMERICAL  # A subset refutes it.
            break
        # The constraints can be met, as was checked; that of the objective perhaps not.
        if answer.infeasible and best is None and spare is None:
            return replace(runs.result(None, None, StopReason.COMPLETED), infeasible=True)
        if not answer.ended:
            stop = answer.reason
        elif following is None:
            stop = StopReason.NUMERICAL
        else:
            form = following
        stop = _closed(objective, least, bound) or stop
    if stop is StopReason.TIME and not runs.answers and form.start is None:
        return out_of_time(runs.context.deadline)
    # Where a backend lost it, there is what the check of the constraints has found.
    return runs.result(spare if best is None else best, sign * bound, stop)


def _closed(objective: Objective, value: float, bound: float) -> StopReason | None:
    """Return why nothing is left to gain or to prove, given a lower bound; None where it is."""
    if objective.sense == "minimize" and value <= objective.tolerance:
        return StopReason.TARGET
    return StopReason.COMPLETED if value - bound <= _CLOSED * objective.tolerance else None


@dataclass(slots=True)
class _Runs:
    """Runs one program after the other, and keeps what the backend answered."""

    problem: Problem
    context: SolveContext
    run: Run
    limits: Limits  #: what limits all runs together
    answers: list[Answer] = field(default_factory=list)  #: as the backend gave them, one per run
    cuts: list[Choice] = field(default_factory=list)  #: were taken for feasible, and are not

    def __post_init__(self) -> None:
        if self.context.max_iterations is not None:
            self.limits = Limits(self.context.max_iterations)
        elif self.context.deadline.limited:
            self.limits = _UNLIMITED

    @property
    def iterations(self) -> int:
        """Nodes or conflicts of all runs."""
        return sum(answer.iterations for answer in self.answers)

    @property
    def work(self) -> float:
        """Deterministic work of all runs, in the backend's unit."""
        return sum(answer.work for answer in self.answers)

    @property
    def word(self) -> str:
        """The native status of the last run."""
        return self.answers[-1].word if self.answers else NOT_CALLED

    def ask(self, form: Form, start: Choice | None) -> Answer:
        """Return a backend's answer to the program of a form, with feasible choices only.

        Where its tolerances let the best one break a constraint, it is asked again without that.
        """
        while True:
            left = self.limits.less(self.iterations, self.work)
            if self.answers and 0 in left:  # Nothing is left of one of them.
                return Answer.none(self.word, StopReason.ITERATION)
            cut = replace(form, frame=form.frame.without(self.cuts)) if self.cuts else form
            answer = self.run(cut, start, left, len(self.answers))
            if answer.word == NOT_CALLED:
                return answer
            self.answers.append(answer)
            good = [feasible(self.problem, form.frame.subset(z)) for z in answer.choices]
            self.cuts += [z for z, kept in zip(answer.choices, good, strict=True) if not kept]
            if all(good[:1]) or not answer.ended or len(self.cuts) > _MOST_CUTS:
                return replace(answer, choices=list(compress(answer.choices, good)))

    def result(
        self, indices: NDArray[np.int64] | None, bound: float | None, reason: StopReason
    ) -> RawResult:
        """Return what came of all runs."""
        extras: dict[str, Any] = {"native_status": self.word, "programs": len(self.answers)}
        if self.work:
            extras["work"] = self.work
        began = self.answers[0].began if self.answers else 0.0
        return RawResult(indices, None, bound, reason, self.iterations, began, extras=extras)
