"""Kernel herding with the linear kernel: one sample at a time, towards what is still owed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import OutOfTimeError
from subsetopt.constraints.partial_subset import Partial, seconds_to_complete
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.vectors.units import divided, unit_of
from subsetopt.status import StopReason

__all__ = ["Herding"]

# A target with an entry of more than this many mean norms sets the unit.
_BEYOND = 1e100


@dataclass(frozen=True, slots=True)
class Herding:
    r"""Take the sample with the largest inner product with what is owed, again and again.

    .. math:: i_{s+1} = \arg\max_i \langle g_s, v_i \rangle, \qquad
              g_{s+1} = g_s + t - v_{i_{s+1}}, \qquad g_0 = t

    without replacement. Included samples come first; a sample after which quotas or the capacity
    could not be kept any more is passed over.

    Notes
    -----
    O(k n d), deterministic; ties go to the lower index. Equal to Frank-Wolfe with the step size
    1/(s + 1) where samples may repeat. Out of time, the cheapest samples fill the subset up
    (without costs, those of the lowest indices). With ``cardinality="at_most"`` the best of all
    beginnings of the herd is returned. One iteration is one sample.

    References
    ----------
    Welling, Herding dynamical weights to learn, ICML 2009. Chen, Welling & Smola, Super-samples
    from kernel herding, UAI 2010.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the first k samples of the herd."""
        objective = problem.objective
        assert isinstance(objective, VectorMatching)
        unit = unit_of(objective, _BEYOND)
        deadline = context.deadline.less(seconds_to_complete(problem.constraints))
        try:
            vectors = divided(objective.vectors, unit, deadline)
        except OutOfTimeError:
            return RawResult(_cheapest(problem), stop_reason=StopReason.TIME)
        target = objective.target / unit
        rules = problem.constraints
        simple = rules.unbound
        state, best = Partial(rules), _Best(rules.at_most)
        owed = (rules.forced.size + 1) * target - vectors[rules.forced].sum(axis=0)
        left_out = problem.k * target - vectors[rules.forced].sum(axis=0)
        stop, steps = StopReason.COMPLETED, 0
        best.look(state, left_out)
        while state.slots > 0:
            if deadline.expired():
                stop = StopReason.TIME
                break
            pick = _furthest(vectors, owed, state.open if simple else _mask(state))
            if pick < 0:
                break
            state.take(pick)
            steps += 1
            owed += target - vectors[pick]
            left_out -= vectors[pick]
            best.look(state, left_out)
        chosen = state.completed() if best.chosen is None else best.chosen
        return RawResult(chosen, stop_reason=stop, iterations=steps)


def _cheapest(problem: Problem) -> NDArray[np.int64] | None:
    """Return the subset that takes no search; None where there is none."""
    return Partial(problem.constraints).completed()


class _Best:
    """The best feasible beginning of the herd, where fewer than k samples are allowed."""

    def __init__(self, wanted: bool) -> None:
        self.wanted, self.smallest = wanted, np.inf
        self.chosen: NDArray[np.int64] | None = None

    def look(self, state: Partial, residual: NDArray[np.float64]) -> None:
        """Keep the subset if it is feasible and its residual is the smallest so far."""
        if not self.wanted or not state.satisfied():
            return
        square = float(residual @ residual)
        if square < self.smallest:
            self.chosen, self.smallest = state.chosen(), square


def _mask(state: Partial) -> NDArray[np.bool_]:
    allowed = np.zeros(state.open.size, dtype=np.bool_)
    allowed[state.allowed()] = True
    return allowed


def _furthest(
    vectors: NDArray[np.float64], owed: NDArray[np.float64], open_: NDArray[np.bool_]
) -> int:
    """Return the open vector with the largest inner product with ``owed``; -1 for none."""
    scores = np.where(open_, vectors @ owed, -np.inf)
    pick = int(np.argmax(scores))
    return pick if open_[pick] else -1
