"""Facility location by lazy and stochastic greedy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.inputs import checked_fraction
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.coverage.growth import Growth

__all__ = ["LazyGreedy", "StochasticGreedy"]

# Gains that are computed together at first.
_FEWEST = 8
# Bounds that are confirmed to be gains in the end, at least.
_CONFIRMED = 128


@dataclass(frozen=True, slots=True)
class LazyGreedy:
    """Take the candidate with the largest gain, looking only at those that may have it.

    Gains never grow (submodularity), so an old gain bounds the new one, and a candidate whose new
    gain is at least the old ones of all others is the best. The choice is ``greedy``'s, up to ties
    and rounding. Where similarities are kept, all gains are brought up to date at once, by the
    samples alone whose nearest chosen one is another than before: n ln k or so in all k steps.

    Notes
    -----
    The value is at least 1 - 1/e of the optimum where the size is the only constraint, and at
    least half of it under quotas (a matroid). No such guarantee holds with a capacity, or for what
    ``include`` forces. The bound is the best of what the guarantee and the gains at the end imply.
    Similarities are kept up to 8,192 samples (256 MiB) and computed anew in pieces above that, in
    float32 for cosine and dot; the objective is reported in float64. Deterministic. One iteration
    is one gain. Out of time, the candidates with the largest known gains complete the subset.

    References
    ----------
    Minoux, Accelerated greedy algorithms for maximizing submodular set functions, Optimization
    Techniques 1978; Nemhauser, Wolsey & Fisher, Math. Prog. 1978; Leskovec et al., KDD 2007.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the greedy subset."""
        growth = Growth(problem, context.deadline)
        growth.run(lambda allowed: _best(growth, allowed))
        return growth.result(greedy=True)


def _best(
    growth: Growth, allowed: NDArray[np.int64], *, sampled: bool = False
) -> tuple[int, int, bool]:
    """Return the allowed candidate with the largest gain, the gains computed, and if time was left.

    The bounds on the gains are brought up to date where they have to be. ``sampled`` tells that
    others may be allowed later: their gains are not to be remembered.
    """
    gains, upper, deadline = growth.gains, growth.upper, growth.deadline
    if gains.settles and not sampled:
        complete, work = gains.settle(upper, deadline)
        return int(allowed[np.argmax(upper[allowed])]), work, complete
    fresh = np.isinf(upper[allowed])
    unknown = allowed[fresh]
    if unknown.size and not gains.refresh(upper, unknown, deadline):
        return int(allowed[np.argmax(upper[allowed])]), 0, False
    evaluated = int(unknown.size)
    keys = upper[allowed]
    most = gains.together(deadline)
    batch = min(_FEWEST, most)
    while True:
        restless = gains.restless and not sampled
        top = int(np.argmax(keys))
        stale = (~fresh).nonzero()[0]
        if not (stale.size or sampled):
            gains.remember(upper.copy())
        if fresh[top] and not (stale.size and restless):
            return int(allowed[top]), evaluated, True
        if deadline.expired():
            return int(allowed[top]), evaluated, False
        if not restless:
            # Those that may still be ahead of the best known gain, the likeliest first.
            stale = stale[keys[stale] >= keys[fresh].max(initial=-math.inf)]
        if stale.size > batch:
            stale = stale[np.argpartition(-keys[stale], batch - 1)[:batch]]
        part = allowed[stale]
        keys[stale] = upper[part] = np.minimum(gains.gains(part), keys[stale])
        fresh[stale] = True
        evaluated += part.size
        batch = min(2 * batch, most)


@dataclass(frozen=True, slots=True)
class StochasticGreedy:
    r"""Take the best of a random sample of candidates at every step.

    With samples of :math:`(n / k) \ln(1 / \varepsilon)` candidates, at most n ln(1/epsilon) gains
    are computed in all, whatever k is. Gains from earlier samples bound the new ones: only those
    of a sample that may be its best are computed again.

    Parameters
    ----------
    epsilon
        What the guarantee loses, in (0, 1).

    Raises
    ------
    OptionError
        If ``epsilon`` is not within (0, 1).

    Notes
    -----
    The value is at least 1 - 1/e - epsilon of the optimum in expectation where the size is the only
    constraint. The bound is the one that the gains at the end imply, the largest of which are
    computed when time is left. Deterministic for a seed. One iteration is one gain.

    References
    ----------
    Mirzasoleiman et al., Lazier than lazy greedy, AAAI 2015.
    """

    epsilon: float = 0.05

    def __post_init__(self) -> None:
        checked_fraction("epsilon", self.epsilon)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the subset that the sampled greedy ends with."""
        growth = Growth(problem, context.deadline)
        rng = context.generator()
        free = problem.constraints.free
        share = math.log(1.0 / self.epsilon) / max(growth.state.slots, 1)

        def best_of_sample(allowed: NDArray[np.int64]) -> tuple[int, int, bool]:
            size = min(allowed.size, max(1, math.ceil(share * free.size)))
            sample = np.sort(rng.choice(allowed, size, replace=False))
            return _best(growth, sample, sampled=True)

        growth.run(best_of_sample)
        _confirm(growth)
        return growth.result(greedy=False)


def _confirm(growth: Growth) -> None:
    """Compute gains until the largest bounds, as many as the subset has members, are gains."""
    upper, size = growth.upper, growth.problem.k
    fresh = upper == 0.0
    width = min(max(size, _CONFIRMED), upper.size)
    while width and not growth.deadline.expired():
        top = np.argpartition(-upper, width - 1)[:width]
        stale = top[~fresh[top]]
        if not stale.size or not growth.gains.refresh(upper, stale, growth.deadline):
            break
        fresh[stale] = True
        growth.evaluated += stale.size
