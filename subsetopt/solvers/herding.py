"""Kernel herding with the linear kernel: one sample at a time, towards what is still owed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solver import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["Herding"]

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Herding:
    r"""Take the sample with the largest inner product with what is owed, again and again.

    .. math:: i_{s+1} = \arg\max_i \langle g_s, v_i \rangle, \qquad
              g_{s+1} = g_s + t - v_{i_{s+1}}, \qquad g_0 = t

    without replacement. Included samples come first.

    Notes
    -----
    O(k n d), deterministic; ties go to the lower index. Equal to Frank-Wolfe with the step size
    1/(s + 1) where samples may repeat. Out of time, the lowest indices fill the subset up. One
    iteration is one sample.

    References
    ----------
    Welling, Herding dynamical weights to learn, ICML 2009. Chen, Welling & Smola, Super-samples
    from kernel herding, UAI 2010.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the first k samples of the herd."""
        objective = problem.objective
        assert isinstance(objective, VectorMatching)
        unit = objective.scale if objective.scale > _TINY else 1.0
        vectors, target = objective.vectors / unit, objective.target / unit
        rules = problem.constraints
        closed = np.ones(problem.n, dtype=np.bool_)
        closed[rules.free] = False
        chosen = list(rules.forced)
        owed = (len(chosen) + 1) * target - vectors[rules.forced].sum(axis=0)
        stop = StopReason.COMPLETED
        while len(chosen) < problem.k:
            if context.deadline.expired():
                stop = StopReason.TIME
                break
            pick = _furthest(vectors, owed, closed)
            closed[pick] = True
            chosen.append(pick)
            owed += target - vectors[pick]
        steps = len(chosen) - rules.forced.size
        chosen.extend(np.flatnonzero(~closed)[: problem.k - len(chosen)])
        return RawResult(np.array(chosen, dtype=np.int64), stop_reason=stop, iterations=steps)


def _furthest(
    vectors: NDArray[np.float64], owed: NDArray[np.float64], closed: NDArray[np.bool_]
) -> int:
    """Return the open vector with the largest inner product with ``owed``."""
    scores = vectors @ owed
    scores[closed] = -np.inf
    return int(np.argmax(scores))
