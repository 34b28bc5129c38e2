"""Orthogonal matching pursuit with nonnegative weights."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from subsetopt.cone import ActiveSet
from subsetopt.kernels.cone import CONVERGED, MOVED
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["OrthogonalMatchingPursuit"]

# Coordinates looked at between two looks at the clock: about 50 microseconds.
_CHUNK = 1_500_000
# Without a limit, between two looks for an interrupt: about a millisecond.
_LONG_CHUNK = 20 * _CHUNK


@dataclass(frozen=True, slots=True)
class OrthogonalMatchingPursuit:
    r"""Add the vector nearest in angle to the residual, refit nonnegative weights, repeat.

    .. math:: i = \arg\max_i \frac{\langle r, v_i \rangle}{\|v_i\|}, \qquad
              w = \arg\min_{w \ge 0,\; \operatorname{supp} w \subseteq A \cup \{i\}}
              \Bigl\| t - \sum_j w_j v_j \Bigr\|

    A vector whose weight falls to 0 leaves and makes room for another. Under quotas the largest
    weights that they allow are kept, and fitted anew.

    Notes
    -----
    The refit updates a Cholesky factor: O(n d + k d + k^2) per vector. When no vector forms an
    acute angle with the residual any more, the weights are the best of all, and the residual's
    projection is the bound; by Caratheodory's theorem this always comes to pass when k is at least
    the rank of the vectors, and the status is then OPTIMAL. Otherwise the bound is 0 and the
    status FEASIBLE. One iteration is one vector; deterministic.

    References
    ----------
    Killamsetty et al., GRAD-MATCH, ICML 2021. Lawson & Hanson, Solving least squares problems,
    1974, chapter 23.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return at most k indices and their weights."""
        objective = problem.objective
        assert isinstance(objective, VectorMatching)
        rules = problem.constraints
        allowed = rules.free if problem.constrained else None
        size = problem.k - rules.forced.size
        fit = ActiveSet(objective.vectors, objective.target, size, allowed, objective.norms)
        outcome, steps, stop = self._run(fit, problem, context)
        bound = None
        if outcome == CONVERGED and not rules.forced.size:
            bound = fit.dual_bound() - 0.5 * objective.tolerance
        if rules.forced.size or rules.codes is not None:
            # What the constraints ask for besides gets its weight in a last refit over all.
            keys = np.zeros(problem.n)
            keys[fit.chosen] = -fit.weights * objective.norms[fit.chosen]
            chosen = rules.greedy_by(keys)
            assert not isinstance(chosen, str)
            return RawResult(chosen, bound=bound, stop_reason=stop, iterations=steps)
        return RawResult(
            fit.chosen.copy(), fit.weights.copy(), bound, stop_reason=stop, iterations=steps
        )

    def _run(
        self, fit: ActiveSet, problem: Problem, context: SolveContext
    ) -> tuple[int, int, StopReason]:
        """Let points join until none can or a limit; return the outcome, how many, and why."""
        limit = sys.maxsize if context.max_iterations is None else context.max_iterations
        chunk = _CHUNK if context.deadline.limited else _LONG_CHUNK
        batch = max(1, chunk // max(fit.points.size, 1))
        steps, outcome = 0, MOVED
        try:
            while steps < limit:
                outcome, done = fit.step(min(batch, limit - steps))
                steps += done
                if outcome != MOVED:
                    return outcome, steps, StopReason.COMPLETED
                if context.deadline.expired():
                    return outcome, steps, StopReason.TIME
        except KeyboardInterrupt:
            return outcome, steps, StopReason.INTERRUPTED
        return outcome, steps, StopReason.ITERATION
