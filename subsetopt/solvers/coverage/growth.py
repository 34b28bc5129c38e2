"""Subsets that grow by one candidate at a time, as long as there is time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline, OutOfTimeError
from subsetopt.constraints.partial_subset import Partial, seconds_to_complete
from subsetopt.constraints.subsets import affordable_subset
from subsetopt.objectives import FacilityLocation
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult
from subsetopt.solvers.coverage.gains import Gains
from subsetopt.status import StopReason

__all__ = ["Growth", "completed_by"]

# Returns the best of the allowed candidates, the gains computed for it, and whether time was left;
# without time, the candidate is not used.
Choose = Callable[[NDArray[np.int64]], tuple[int, int, bool]]


class Growth:
    """A subset that a greedy solver of facility location grows, and bounds on all gains.

    Attributes
    ----------
    state
        The subset.
    gains
        Gains over the subset.
    upper
        Bounds on the gains, shape (n,): infinite where none is known, 0 for what may not be chosen.
    evaluated
        Gains computed.
    complete
        Whether there has been time for everything.
    """

    def __init__(self, problem: Problem, deadline: Deadline) -> None:
        objective = problem.objective
        assert isinstance(objective, FacilityLocation)
        self.problem = problem
        self.deadline = deadline.less(seconds_to_complete(problem.constraints))
        self.state = Partial(problem.constraints)
        self.gains = Gains(objective, problem.k, self.deadline)
        self.upper = np.zeros(problem.n)
        self.upper[problem.constraints.free] = np.inf
        self.evaluated, self.complete = 0, True
        try:
            for item in problem.constraints.forced:
                self.deadline.check()
                self.gains.take(int(item))
        except OutOfTimeError:
            # The bound must count the gains of included candidates that are not taken yet.
            self.upper[problem.constraints.forced] = np.inf
            self.complete = False

    def run(self, choose: Choose) -> None:
        """Take what ``choose`` returns, until the subset is complete or time is up."""
        state = self.state
        while self.complete and state.slots > 0 and (allowed := state.allowed()).size:
            if self.deadline.expired():
                self.complete = False
                return
            try:
                pick, computed, self.complete = choose(allowed)
                self.evaluated += computed
                if self.complete:
                    self.gains.take(pick)
                    state.take(pick)
                    self.upper[pick] = 0.0
            except OutOfTimeError:
                self.complete = False

    def result(self, *, greedy: bool) -> RawResult:
        """Return the subset, completed by the largest gains known, and the bound that they imply.

        ``greedy`` tells whether each step took the largest gain of all.
        """
        if self.complete:
            chosen, stop = self.state.completed(), StopReason.COMPLETED
        else:
            chosen, stop = completed_by(self.state, self.upper, self.deadline), StopReason.TIME
        guaranteed = greedy and self.complete and not self.problem.constrained
        bound = self.gains.bound(self.upper, greedy=guaranteed)
        return RawResult(chosen, bound=bound, stop_reason=stop, iterations=self.evaluated)


def completed_by(
    state: Partial, values: NDArray[np.float64], deadline: Deadline
) -> NDArray[np.int64] | None:
    """Return the subset completed in few passes, by candidates with large values.

    Parameters
    ----------
    state
        A subset of candidates that were allowed when they were taken.
    values
        How good each candidate is, at least 0, shape (n,); where not finite it counts as 0.
    deadline
        Out of time, the least costly completion is taken where the best one breaks the capacity.

    Returns
    -------
    ndarray or None
        The subset; None when there is no feasible one.
    """
    if isinstance(state.rules.cheapest, str):
        return None
    nothing = not (state.mask.any() or state.rules.at_most or np.isfinite(values[state.open]).any())
    if nothing:
        return state.rules.cheapest
    known = np.where(np.isfinite(values), values, 0.0)
    # All keys are negative, so that "at most" takes as many candidates as it may.
    keys = -0.5 - 0.5 * known / (known.max(initial=0.0) or 1.0)
    rules = replace(state.rules, forced=state.chosen(), free=np.flatnonzero(state.open))
    return affordable_subset(rules, keys, deadline)
