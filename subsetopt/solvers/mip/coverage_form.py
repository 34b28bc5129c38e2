"""Facility location as a mixed-integer program, and k-center as one per radius."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.partial_subset import Partial
from subsetopt.objectives import FacilityLocation, KCenter
from subsetopt.problem import Problem
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.mip.constraint_rows import Choice, Frame, Rows, feasible, value_of
from subsetopt.solvers.mip.program import GAP, LEAK, Answer, Form, Program

__all__ = ["CentersForm", "FacilityForm"]

# Share of the precision that rounding to whole numbers may cost.
_ROUNDING = 0.1
# What a proved radius is multiplied by, so that rounding cannot lift it above the optimum.
_BELOW = 1.0 - 1e-12


@dataclass(eq=False, slots=True)
class FacilityForm(Form):
    r"""Each client is served by at most one chosen candidate.

    .. math:: \max \sum_i b_i + \sum_{ij} g_{ij} y_{ij} \quad\text{s.t.}\quad
              y_{ij} \le z_j,\; \textstyle\sum_j y_{ij} \le 1,\; y \ge 0

    with what is sure of client i, :math:`b_i` (0, or the similarity to an included candidate), and
    :math:`g_{ij}`, what candidate j would add to it. Pairs that add nothing have no variable. For
    binary z, y is whole at an optimum. The p pairs are ordered by ascending client.
    """

    clients: NDArray[np.int64]  #: of each pair, numbered among those that have one, shape (p,)
    candidates: NDArray[np.int64]  #: of each pair, as a position among the items, shape (p,)
    gains: NDArray[np.float64]  #: of each pair, in multiples of the unit, shape (p,)
    base: float  #: the sum of the b, in multiples of the unit

    @classmethod
    def of(cls, problem: Problem, frame: Frame) -> FacilityForm:
        """Return the form of a problem."""
        objective = problem.objective
        assert isinstance(objective, FacilityLocation)
        unit = objective.reach if objective.reach > 0.0 else 1.0
        every = slice(0, objective.n)
        sure = np.zeros(objective.n)
        if frame.forced.size:
            known = objective.similarities(frame.forced, every).astype(np.float64)
            sure = np.maximum(known.max(axis=0), 0.0)
        similar = objective.similarities(frame.items, every).astype(np.float64)
        gains = (similar - sure).T / unit
        gains = gains[(gains > 0.0).any(axis=1)]
        clients, candidates = np.nonzero(gains > 0.0)
        precision = objective.tolerance / unit
        pairs, base = gains[clients, candidates], math.fsum(sure) / unit
        return cls(frame, precision, unit, clients, candidates, pairs, base)

    @property
    def served(self) -> int:
        """The number of clients that have a pair."""
        return int(self.clients[-1]) + 1 if self.clients.size else 0

    @property
    def whole_scale(self) -> float:
        """Return the scale at which rounding, half a one per client, costs little."""
        return 0.5 * max(1, self.served) / (_ROUNDING * self.precision)

    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program over z and the pairs."""
        m, pairs = self.frame.size, self.gains.size
        gains = np.rint(self.gains * scale) if whole else self.gains * scale
        y = m + np.arange(pairs)
        links = Rows(
            np.concatenate([np.repeat(np.arange(pairs), 2), pairs + self.clients]),
            np.concatenate([np.stack([y, self.candidates], axis=1).ravel(), y]),
            np.concatenate([np.tile([1.0, -1.0], pairs), np.ones(pairs)]),
            np.full(pairs + self.served, -np.inf),
            np.concatenate([np.zeros(pairs), np.ones(self.served)]),
        )
        return Program(
            costs=np.concatenate([np.zeros(m), -gains]),
            upper=np.ones(pairs),
            rows=self.frame.rows(links, whole=whole),
            start=None if start is None else np.concatenate([start, self._serving(start)]),
            gap=GAP * self.precision * scale,
            scale=scale,
            slack=0.5 * self.served / scale if whole else LEAK * self.precision,
            offset=-self.base,
        )

    def _serving(self, chosen: Choice) -> NDArray[np.float64]:
        """Return the y of a choice: each client is served by what gains it most."""
        gains = np.where(chosen[self.candidates], self.gains, 0.0)
        order = np.lexsort((-gains, self.clients))
        best = order[np.searchsorted(self.clients, np.arange(self.served))]
        y = np.zeros(self.gains.size)
        y[best] = gains[best] > 0.0
        return y


@dataclass(eq=False, slots=True)
class CentersForm(Form):
    r"""Whether candidates can be chosen that have every sample within a radius of one of them.

    .. math:: \textstyle\sum_{j:\, D_{ij} \le \rho} z_j \ge 1 \quad\text{for every sample } i

    The radii that a choice can have are bisected.

    Attributes
    ----------
    objective
        The objective.
    squares
        Squared distances of samples from candidates, shape (n, m).
    sure
        Those from the nearest included candidate, shape (n,); infinite without.
    levels
        The squares of the radii, ascending.
    low, high
        Positions of the first radius that is not refuted, and of the best choice's; the number of
        radii where there is none.
    """

    objective: KCenter
    squares: NDArray[np.float64]
    sure: NDArray[np.float64]
    levels: NDArray[np.float64]
    low: int
    high: int

    @classmethod
    def of(cls, problem: Problem, frame: Frame, context: SolveContext) -> CentersForm | None:
        """Return the form of a problem, with a subset; None when time runs out."""
        objective = problem.objective
        assert isinstance(objective, KCenter)
        squares = np.empty((objective.n, problem.n))
        for j in np.concatenate([frame.items, frame.forced]):
            if context.deadline.expired():
                return None
            # As ``KCenter.evaluate`` computes them, so that radii are equal to the last digit.
            difference = objective.points - objective.points[j]
            squares[:, j] = np.einsum("ij,ij->i", difference, difference)
        sure = squares[:, frame.forced].min(axis=1, initial=np.inf)
        far, spread = _farthest_first(problem, squares, sure.copy())
        squares = squares[:, frame.items]
        levels = np.unique(np.concatenate([squares.ravel(), sure[np.isfinite(sure)]]))
        # No choice has a radius below that of all candidates together.
        lowest = np.minimum(squares.min(axis=1), sure).max()
        levels = levels[levels >= lowest]
        # Two of any k + 1 samples share a center, so no radius is below half their least distance.
        low = int(np.searchsorted(levels, 0.25 * spread * _BELOW))
        form = cls(frame, 1.0, 1.0, objective, squares, sure, levels, low, levels.size)
        form.start = min(far, context.warm_start, key=partial(value_of, problem))
        form.refine(Answer.none(), frame.choice(form.start))
        return form

    @property
    def asked(self) -> int:
        """The position of the radius that is asked for; without a choice, whether there is any."""
        last = self.levels.size - 1
        return last if self.high > last else (self.low + self.high) // 2

    def refine(self, answer: Answer, best: Choice | None) -> CentersForm | None:
        """Go on to the next radius."""
        before = self.low, self.high
        if answer.infeasible:
            self.low = self.asked + 1
        if best is not None:
            nearest = self.squares[:, best].min(axis=1, initial=np.inf)
            largest = float(np.minimum(nearest, self.sure).max())
            self.high = int(np.searchsorted(self.levels, largest))
        self.low = min(self.low, self.high)
        if self.low < self.levels.size:
            self.floor = self.objective.distance(float(self.levels[self.low])) * _BELOW
        return self if before != (self.low, self.high) and self.low < self.high else None

    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program over z; it has nothing to minimize."""
        square = self.levels[self.asked]
        near = self.squares[self.sure > square] <= square
        samples, candidates = np.nonzero(near)
        least = np.ones(near.shape[0])
        covers = Rows(samples, candidates, np.ones(samples.size), least, least * np.inf)
        point = None if start is None else start.astype(np.float64)
        rows = self.frame.rows(covers, whole=whole)
        return Program(np.zeros(self.frame.size), np.empty(0), rows, point, 0.0, 1.0)


def _farthest_first(
    problem: Problem, squares: NDArray[np.float64], nearest: NDArray[np.float64]
) -> tuple[NDArray[np.int64] | None, float]:
    """Return a subset of far samples, and the least squared distance of any k + 1; 0 without.

    ``squares`` are those of all distances, ``nearest`` those from the nearest included candidate,
    which are overwritten.
    """
    state, spread = Partial(problem.constraints), math.inf
    while state.slots > 0 and (allowed := state.allowed()).size:
        pick = int(allowed[np.argmax(nearest[allowed])])
        spread = min(spread, float(nearest[pick]))
        state.take(pick)
        np.minimum(nearest, squares[:, pick], out=nearest)
    spread = min(spread, float(nearest.max())) if state.slots == 0 else 0.0
    chosen = state.completed()
    return chosen if chosen is not None and feasible(problem, chosen) else None, spread
