"""Facility location as a mixed-integer program, and k-center as one per radius."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.objectives import FacilityLocation, KCenter
from subsetopt.problem import Problem
from subsetopt.solvers.mip.constraint_rows import FINEST, GAP, LEAK, Choice, Frame
from subsetopt.solvers.mip.program import Form, Links, Program

__all__ = ["CoverForm", "FacilityForm", "squared_distances"]

# Share of the precision that rounding to whole numbers may cost.
_ROUNDING = 0.1


@dataclass(eq=False, slots=True)
class FacilityForm(Form):
    r"""Each client is served by at most one chosen candidate.

    .. math:: \max \sum_i b_i + \sum_{ij} g_{ij} y_{ij} \quad\text{s.t.}\quad
              y_{ij} \le z_j,\; \textstyle\sum_j y_{ij} \le 1,\; y \ge 0

    with what is sure of client i, :math:`b_i` (0, or the similarity to an included candidate), and
    :math:`g_{ij}`, what candidate j would add to it. Pairs that add nothing have no variable. For
    binary z, y is whole at an optimum.

    Attributes
    ----------
    clients, candidates, gains
        Client, position among the items and gain of each pair, shape (p,), by ascending client.
    base
        The sum of the b, in multiples of the unit, as the gains are.
    served
        The number of clients that have a pair.
    """

    clients: NDArray[np.int64]
    candidates: NDArray[np.int64]
    gains: NDArray[np.float64]
    base: float
    served: int

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
        clients, candidates = np.nonzero(gains > 0.0)
        precision = max(objective.tolerance / unit, FINEST)
        served = np.unique(clients).size
        base = math.fsum(sure) / unit
        pairs = gains[clients, candidates]
        return cls(frame, precision, unit, clients, candidates, pairs, base, served)

    @property
    def whole_scale(self) -> float:
        """Return the scale at which rounding, half a one per client, costs little."""
        return 0.5 * max(1, self.served) / (_ROUNDING * self.precision)

    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program over z and the pairs."""
        m, pairs = self.frame.size, self.gains.size
        gains = self.gains * scale
        if whole:
            gains = np.rint(gains)
        y = m + np.arange(pairs)
        _, row = np.unique(self.clients, return_inverse=True)
        links = Links(
            np.concatenate([np.repeat(np.arange(pairs), 2), pairs + row]),
            np.concatenate([np.stack([y, self.candidates], axis=1).ravel(), y]),
            np.concatenate([np.tile([1.0, -1.0], pairs), np.ones(pairs)]),
            np.full(pairs + self.served, -np.inf),
            np.concatenate([np.zeros(pairs), np.ones(self.served)]),
        )
        return Program(
            costs=np.concatenate([np.zeros(m), -gains]),
            upper=np.ones(pairs),
            rows=self.frame.rows,
            links=links,
            start=None if start is None else self._point(start),
            gap=GAP * self.precision * scale,
            scale=scale,
            error=0.5 * self.served / scale if whole else 0.0,
            offset=-self.base,
            leak=0.0 if whole else LEAK * self.precision,
        )

    def _point(self, chosen: Choice) -> NDArray[np.float64]:
        """Return the point (z, y) of a choice: each client served by what gains it most."""
        gains = np.where(chosen[self.candidates], self.gains, 0.0)
        order = np.lexsort((-gains, self.clients))
        first = np.flatnonzero(np.diff(self.clients[order], prepend=-1))
        best = order[first]
        y = np.zeros(self.gains.size)
        y[best] = chosen[self.candidates[best]]
        return np.concatenate([chosen.astype(np.float64), y])


@dataclass(eq=False, slots=True)
class CoverForm(Form):
    r"""Whether candidates can be chosen that have every sample within a radius of one of them.

    .. math:: \textstyle\sum_{j:\, D_{ij} \le \rho} z_j \ge 1 \quad\text{for every sample } i

    Attributes
    ----------
    near
        Which candidate covers which sample not covered by an included one, shape (c, m).
    """

    near: NDArray[np.bool_]

    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program over z; it has nothing to minimize."""
        rows, columns = np.nonzero(self.near)
        clients = self.near.shape[0]
        return Program(
            costs=np.zeros(self.frame.size),
            upper=np.empty(0),
            rows=self.frame.rows,
            links=Links(
                rows, columns, np.ones(rows.size), np.ones(clients), np.full(clients, np.inf)
            ),
            start=None if start is None else start.astype(np.float64),
            gap=0.0,
            scale=1.0,
        )


def squared_distances(
    objective: KCenter, candidates: NDArray[np.int64], deadline: Deadline
) -> NDArray[np.float64] | None:
    """Return squared distances of all samples (rows) from candidates; None when time runs out.

    They are computed as ``KCenter.evaluate`` does, so that radii are the same to the last digit.
    """
    squares = np.empty((objective.n, candidates.size))
    for column, j in enumerate(candidates):
        if deadline.expired():
            return None
        difference = objective.points - objective.points[j]
        squares[:, column] = np.einsum("ij,ij->i", difference, difference)
    return squares
