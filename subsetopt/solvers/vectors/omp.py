"""Orthogonal matching pursuit with nonnegative weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints
from subsetopt.constraints.partial_subset import Partial
from subsetopt.inputs import checked_choice
from subsetopt.kernels.vectors.nnls import CONVERGED, MOVED
from subsetopt.nnls import ActiveSet
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["OrthogonalMatchingPursuit"]

# Coordinates that are read between two looks at the clock, in about 50 microseconds.
_CHUNK = 1_500_000
# Coordinates that are read between two looks for an interrupt, in about a millisecond, where no
# time limit is set.
_LONG_CHUNK = 20 * _CHUNK


@dataclass(frozen=True, slots=True)
class OrthogonalMatchingPursuit:
    r"""Add the vector that goes best with the residual, refit nonnegative weights, repeat.

    .. math:: i = \arg\max_i \frac{\langle r, v_i \rangle}{\|v_i\|} \quad\text{or}\quad
              \arg\max_i \, \langle r, v_i \rangle, \qquad
              w = \arg\min_{w \ge 0,\; \operatorname{supp} w \subseteq A \cup \{i\}}
              \Bigl\| t - \sum_j w_j v_j \Bigr\|

    A vector whose weight falls to 0 leaves and makes room for another. Included vectors take no
    slot; a vector after which quotas or the capacity could not be kept any more is passed over.
    What the quotas still ask for at the end is filled up with the cheapest vectors, and the weights
    are fitted anew.

    Parameters
    ----------
    pick
        ``"angle"``, the first form: the smaller residual as a rule, by any weight that it takes.
        ``"product"``, the second, as GRAD-MATCH has it: large vectors come first, and need no large
        weights. Where the vectors stand for more than they say (a part of a gradient for the whole
        of it), small vectors with huge weights match the part that is seen, and spoil the rest.

    Raises
    ------
    OptionError
        If ``pick`` is neither.

    Notes
    -----
    The refit updates a Cholesky factor: O(n d + k d + k^2) per vector. When no vector forms an
    acute angle with the residual any more, the weights are the best of all, and the residual's
    projection is the bound; by Caratheodory's theorem this always comes to pass when k is at least
    the rank of the vectors, and the status is then OPTIMAL. Otherwise the bound is 0 and the
    status FEASIBLE; constraints change nothing of this. One iteration is one vector; deterministic.

    References
    ----------
    Killamsetty et al., GRAD-MATCH, ICML 2021. Lawson & Hanson, Solving least squares problems,
    1974, chapter 23.
    """

    pick: Literal["angle", "product"] = "angle"

    def __post_init__(self) -> None:
        checked_choice("pick", self.pick, ("angle", "product"))

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return at most k indices and their weights."""
        objective = problem.objective
        assert isinstance(objective, VectorMatching)
        rules = problem.constraints
        simple = rules.unbound and not rules.forced.size
        allowed = None
        if problem.constrained:
            allowed = rules.free if simple else np.concatenate([rules.forced, rules.free])
        fit = ActiveSet(
            objective.vectors, objective.target, problem.k, allowed, objective.norms,
            by_angle=self.pick == "angle",
        )  # fmt: skip
        limits = None if simple else _Limits(fit, rules)
        outcome, steps, stop = self._run(fit, problem, context, limits)
        bound = None
        if outcome == CONVERGED:
            bound = fit.dual_bound() - 0.5 * objective.tolerance
        if limits is not None:
            # Vectors that constraints ask for besides get their weights in a last fit of all.
            chosen = limits.completed()
            return RawResult(chosen, bound=bound, stop_reason=stop, iterations=steps)
        return RawResult(
            fit.chosen.copy(), fit.weights.copy(), bound, stop_reason=stop, iterations=steps
        )

    def _run(
        self, fit: ActiveSet, problem: Problem, context: SolveContext, limits: _Limits | None
    ) -> tuple[int, int, StopReason]:
        """Let points join until none can or a limit; return the outcome, how many, and why."""
        limit = sys.maxsize if context.max_iterations is None else context.max_iterations
        chunk = _CHUNK if context.deadline.limited else _LONG_CHUNK
        batch = max(1, chunk // max(fit.points.size, 1)) if limits is None else 1
        step = fit.step if limits is None else limits.step
        steps, outcome = 0, MOVED
        try:
            while steps < limit:
                outcome, done = step(min(batch, limit - steps))
                steps += done
                if outcome != MOVED:
                    return outcome, steps, StopReason.COMPLETED
                if context.deadline.expired():
                    return outcome, steps, StopReason.TIME
        except KeyboardInterrupt:
            return outcome, steps, StopReason.INTERRUPTED
        return outcome, steps, StopReason.ITERATION


class _Limits:
    """What the constraints let join an active set; included points join without taking a slot."""

    def __init__(self, fit: ActiveSet, rules: Constraints) -> None:
        self.fit, self.forced = fit, rules.forced
        self.state = Partial(rules)
        self.taken: set[int] = set()

    def step(self, most: int = 1) -> tuple[int, int]:
        """Let one point join after which the constraints can be kept."""
        closed = self.fit.close_all_but(np.concatenate([self.forced, self.state.allowed()]))
        outcome, done = self.fit.step(most)
        self.fit.reopen(closed)
        active = set(self.fit.chosen.tolist()).difference(self.forced.tolist())
        for gone in self.taken - active:
            self.state.give_back(gone)
        for new in active - self.taken:
            self.state.take(new)
        self.taken = active
        return outcome, done

    def completed(self) -> NDArray[np.int64] | None:
        """Return the active points, the included ones, and what the quotas still ask for."""
        return self.state.completed()
