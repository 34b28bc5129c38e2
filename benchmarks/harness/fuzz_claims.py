"""What an answer claims, held against all subsets and against exact arithmetic."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.fuzz_exact import Allowed, members
from benchmarks.harness.fuzz_measures import measure_of
from benchmarks.harness.fuzz_questions import Question

__all__ = ["FAULTS", "Oracle", "same"]

FAULTS = ("crashed", "infeasible", "wrongly certified", "empty-handed", "inconsistent")
"""The kinds of failures."""

Fault = tuple[str, str]
_NONE: Fault = ("", "")


class Oracle:
    """The truth about a question.

    Attributes
    ----------
    measure
        The objective.
    allowed
        The constraints.
    best
        The optimum over the subsets that are feasible beyond doubt; where there are too many to
        look at, the best that is known. NaN without any.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.measure = measure_of(question)
        self.allowed = Allowed(question)
        self.best = math.nan
        if question.kind == "design":
            return
        if question.enumerable:
            subsets, surely = self._table
            self.best = self.measure.best(subsets[surely])
        elif question.witness is not None:
            witness = question.witness.tolist()
            weights = self.measure.weights(witness)
            if self.feasible(witness)[0] and weights is not None:
                self.best = self.measure.value(witness, weights)

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The subsets that the constraints possibly allow, and which surely are feasible."""
        subsets, surely = self.allowed.table()
        return subsets, surely & self.measure.table(subsets)

    @property
    def possible(self) -> bool:
        """Whether a subset is known that is feasible beyond doubt."""
        return not math.isnan(self.best)

    @cached_property
    def impossible(self) -> bool:
        """Whether no subset satisfies the constraints, for certain."""
        counted = self.question.enumerable and self.question.kind != "design"
        return counted and not self._table[0].size

    def feasible(self, chosen: list[int]) -> tuple[bool, bool]:
        """Return whether a subset is surely, and whether it is possibly feasible."""
        if any(not 0 <= j < self.question.n for j in chosen):
            return False, False
        if len(set(chosen)) < len(chosen) and self.question.kind != "design":
            return False, False
        both = self.allowed.verdict(chosen) if self.question.kind != "design" else (True, True)
        sure, possible = self.measure.verdict(chosen)
        return both[0] and sure, both[1] and possible

    def learn(self, solution: so.Solution) -> None:
        """Take a better subset than the best known, of an answer, for the best."""
        if not solution.has_solution or self.question.kind == "design":
            return
        chosen = solution.indices.tolist()
        if self.feasible(chosen)[0]:
            value = self.measure.value(chosen, solution.weights)
            if not self.possible or self._sign * (value - self.best) < 0.0:
                self.best = value

    @property
    def _sign(self) -> float:
        return -1.0 if self.measure.maximized else 1.0

    def judge(
        self, solution: so.Solution, *, demanding: bool = False, complete: bool = False
    ) -> Fault:
        """Return the kind of failure and what is wrong with an answer, or two empty strings.

        Parameters
        ----------
        solution
            The answer.
        demanding
            Whether the solver has to find a subset where there is one.
        complete
            Whether it has to prove what it finds.
        """
        if solution.status is so.Status.ERROR:
            return "infeasible", str(solution.extras.get("error"))
        if solution.status is so.Status.INFEASIBLE:
            what = f"INFEASIBLE, optimum {self.best!r}"
            return ("wrongly certified", what) if self.possible else _NONE
        if self.impossible:
            return "wrongly certified", f"{solution.status.name}, but no subset is allowed"
        if not solution.has_solution:
            what = f"{solution.status.name}, optimum {self.best!r}"
            return ("empty-handed", what) if demanding and self.possible else _NONE
        chosen = solution.indices.tolist()
        if not self.feasible(chosen)[1]:
            return "infeasible", f"indices {chosen}"
        if not self.measure.weights_are_right(chosen, solution.weights):
            return "infeasible", f"weights {solution.weights.tolist()} of {chosen}"
        return self._claims(solution, self.measure.value(chosen, solution.weights), complete)

    def _claims(self, solution: so.Solution, value: float, complete: bool) -> Fault:
        sign, rounding = self._sign, self.measure.rounding
        if not abs(solution.objective - value) <= rounding:
            return "wrongly certified", f"objective {solution.objective!r}, recomputed {value!r}"
        if self.question.kind == "design":
            wrong = solution.status is not so.Status.FEASIBLE or solution.bound > value + rounding
            return ("wrongly certified", f"{solution!r} of a draw") if wrong else _NONE
        best = self.best
        if not self.possible or sign * (value - best) < 0.0:
            best = value
        if not sign * (solution.bound - best) <= rounding:
            return "wrongly certified", f"bound {solution.bound!r} beyond the optimum {best!r}"
        slack = self.measure.tolerance + rounding
        if solution.status is so.Status.OPTIMAL:
            if sign * (value - best) > slack:
                return "wrongly certified", f"OPTIMAL at {value!r}, optimum {best!r}"
        elif complete:
            return "empty-handed", f"{solution.status.name} at {value!r}, optimum {best!r}"
        return _NONE

    def start(self, rng: np.random.Generator) -> Any:
        """Return a warm start that is feasible beyond doubt, as indices, mask or name, or None."""
        question = self.question
        chosen: list[int] | None = None
        if question.enumerable:
            sure = self._table[0][self._table[1]]
            chosen = members(int(rng.choice(sure))) if sure.size else None
        elif question.witness is not None and self.feasible(question.witness.tolist())[0]:
            chosen = question.witness.tolist()
        form = rng.integers(4)
        if chosen is None or form == 0:
            return None if chosen is None else "auto"
        indices = np.array(chosen, dtype=np.int64)
        if form == 1:
            mask = np.zeros(question.n, dtype=np.bool_)
            mask[indices] = True
            return mask
        return indices

    def worse_than(self, solution: so.Solution, start: Any) -> Fault:
        """Return that an answer is worse than its warm start, if it is."""
        if isinstance(start, str):
            return _NONE
        if not solution.has_solution:
            return "empty-handed", f"{solution!r} after a warm start"
        chosen = np.flatnonzero(start) if start.dtype == np.bool_ else start
        weights = self.measure.weights(chosen.tolist())
        if weights is None:
            return _NONE
        value = self.measure.value(chosen.tolist(), weights)
        if self._sign * (solution.objective - value) > self.measure.rounding:
            return "inconsistent", f"{solution.objective!r}, worse than the warm start {value!r}"
        return _NONE

    def audit(self, problem: so.Problem, solution: so.Solution, rng: np.random.Generator) -> Fault:
        """Return what is wrong with a solution as a record, or with what ``so.verify`` says.

        ``so.verify`` has to confirm the answer, and to be right about another subset of the same
        question, whose feasibility and objective are known.
        """
        copy = so.Solution.from_dict(json.loads(json.dumps(solution.to_dict())))
        if not same(solution, copy, every=True):
            return "inconsistent", f"{solution!r} is not what its dict says"
        if solution.has_solution and not (certificate := so.verify(problem, solution)):
            return "inconsistent", f"verify: {certificate.violations} of {solution!r}"
        chosen = self._other(rng)
        weights = self.measure.weights(chosen)
        if weights is None:
            weights = rng.random(len(chosen))
        surely, possibly = self.feasible(chosen)
        value = self.measure.value(chosen, weights) if possibly else 0.0
        claimed = dataclasses.replace(
            solution, indices=np.array(chosen, dtype=np.int64), weights=weights, objective=value,
            status=so.Status.FEASIBLE, bound=problem.objective.trivial_bound,
        )  # fmt: skip
        certificate = so.verify(problem, claimed)
        if certificate.feasible not in (surely, possibly):
            return "inconsistent", f"verify: feasible={certificate.feasible} of {chosen}"
        if certificate.feasible and not abs(certificate.objective - value) <= self.measure.rounding:
            return "inconsistent", f"verify: {certificate.objective!r}, is {value!r}, of {chosen}"
        return _NONE

    def _other(self, rng: np.random.Generator) -> list[int]:
        """Return a subset of about k candidates at random; often one that the constraints allow."""
        question = self.question
        if question.enumerable and question.kind != "design" and self._table[0].size:
            if rng.random() < 0.5:
                return members(int(rng.choice(self._table[0])))
        size = min(question.n, max(0, question.k + int(rng.integers(-1, 2))))
        return sorted(rng.choice(question.n, size, replace=False).tolist())


def same(one: so.Solution, other: so.Solution, *, every: bool = False) -> bool:
    """Whether two answers are equal in subset, weights, objective, bound and status.

    With ``every``, also in all other fields but the extras, which lose types as a record.
    """
    names = ["indices", "weights", "n", "objective", "bound", "status"]
    if every:
        names = [f.name for f in dataclasses.fields(one) if f.name != "extras"]
    return all(_equal(getattr(one, name), getattr(other, name)) for name in names)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return bool(one == other or (one != one and other != other))
