"""Vector matching as a mixed-integer program: by absolute values and tangents, or by squares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.mip.frame import FINEST, Frame
from subsetopt.solvers.mip.program import Links, Program, float_gap, float_leak

__all__ = ["AbsoluteForm", "SquareForm"]

# Whole numbers: 1/sqrt(d) as a fraction over this, and the largest magnitude of a sum.
_FRACTION = 2**16
_LARGEST = 2.0**60
# Share of the precision that rounding to whole numbers may cost.
_ROUNDING = 0.1
# Share of the precision at which a residual is as good as none.
_STOP_AT = 0.95
# Cosine of the angle within which two tangents are one.
_SAME = 1.0 - 1e-14


@dataclass(eq=False, slots=True)
class AbsoluteForm:
    r"""The residual's size by sums of absolute values first, then by its tangents.

    .. math:: \min t \quad\text{s.t.}\quad \|r\|_1 \le \sqrt d\, t,\;
              \|r\|_\infty \le t,\; u_c \cdot r \le t, \qquad r = b + \sum_i z_i a_i

    Each row is a lower bound on :math:`\|r\|_2`, so the least t is one, too. The first program has
    the sum alone, which led to the better subsets (n = 128, d = 10, k = 13, 10 seconds of Gurobi:
    0.025 against 0.046 by the largest coordinate, 0.050 by both); those that follow have all rows,
    and the tangents at the residuals of the subsets found, where t is exact. They end at the
    optimum of the norm.

    Attributes
    ----------
    matrix, offset
        The a, shape (m, d), and b, shape (d,), in multiples of the objective's scale.
    tangents
        The unit vectors u so far.
    refined
        Whether the rows besides the sum are there.
    """

    frame: Frame
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    precision: float
    factor: float
    tangents: list[NDArray[np.float64]] = field(default_factory=list)
    refined: bool = False

    @classmethod
    def of(cls, problem: Problem, frame: Frame) -> AbsoluteForm:
        """Return the form of a problem with uniform weights."""
        objective, k = problem.objective, problem.k
        assert isinstance(objective, VectorMatching)
        unit = objective.scale or 1.0
        vectors, target = objective.vectors / unit, objective.target / unit
        offset = -k * target
        if not problem.constraints.at_most:
            # With an exact size the target is taken from every vector: smaller numbers.
            vectors, offset = vectors - target, np.zeros(objective.d)
        offset = offset + vectors[frame.forced].sum(axis=0)
        precision = max(k * objective.tolerance / unit, FINEST)
        return cls(frame, vectors[frame.items], offset, precision, unit / k)

    @property
    def reach(self) -> float:
        """The largest magnitude a coordinate of the residual can have."""
        return float((np.abs(self.offset) + np.abs(self.matrix).sum(axis=0)).max())

    @property
    def whole_scale(self) -> float:
        """Return the scale at which rounding costs a tenth of the precision, sums permitting."""
        fine = self._steps / (_ROUNDING * self.precision)
        return min(fine, _LARGEST / (4.0 * _FRACTION * self.offset.size * (self.reach or 1.0)))

    @property
    def _steps(self) -> float:
        """By how many whole numbers rounding may move a norm: half a one per vector and b."""
        return 0.5 * math.sqrt(self.offset.size) * (self.frame.rows[0].high + 1.0) + 1.0

    def residual(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the residual of a choice."""
        return np.asarray(self.offset + self.matrix[chosen].sum(axis=0))

    def refine(self, choices: list[NDArray[np.bool_]]) -> bool:
        """Add all rows, and the tangents at the residuals of some choices."""
        news = not self.refined
        self.refined = True
        for chosen in choices:
            residual = self.residual(chosen)
            size = math.sqrt(float(residual @ residual))
            if size <= 0.0 or not np.isfinite(residual / size).all():
                continue
            tangent = residual / size
            if not any(float(tangent @ other) > _SAME for other in self.tangents):
                self.tangents.append(tangent)
                news = True
        return news

    def program(
        self, scale: float, start: NDArray[np.bool_] | None, *, whole: bool = False
    ) -> Program:
        """Return the program over z, the residual's two parts (each d), and t."""
        (m, d), rounded = self.matrix.shape, np.rint if whole else np.asarray
        rows = [self.matrix.T, *(u @ self.matrix.T for u in self.tangents)]
        at_zero = [self.offset, *(np.array([u @ self.offset]) for u in self.tangents)]
        dense = np.asarray(rounded(np.vstack(rows) * scale))
        constants = np.asarray(rounded(np.concatenate(at_zero) * scale))
        ends = np.ceil(np.abs(constants[:d]) + np.abs(dense[:d]).sum(axis=1)) + 1.0
        most = np.ceil(math.sqrt(float(ends @ ends)) + self._steps)
        share, unit = 1.0 / math.sqrt(d), 1.0
        if whole:
            share, unit = float(math.floor(_FRACTION * share)), float(_FRACTION)
        links = _links(m, d, dense, constants, share, unit, refined=self.refined)
        point = None
        if start is not None:
            point = _point(start, d, dense, constants, share / unit, refined=self.refined)
            point[-1] = np.ceil(point[-1]) if whole else point[-1]
        return Program(
            costs=_last(m + 2 * d + 1),
            upper=np.concatenate([ends, ends, [most]]),
            rows=self.frame.rows,
            links=links,
            start=point,
            gap=float_gap(self.precision, scale),
            scale=scale,
            goal=_STOP_AT * self.precision * scale / math.sqrt(d),
            error=self._steps / scale if whole else 0.0,
            leak=0.0 if whole else float_leak(self.precision),
            dense=True,
        )


def _last(size: int) -> NDArray[np.float64]:
    costs = np.zeros(size)
    costs[-1] = 1.0
    return costs


def _links(
    m: int,
    d: int,
    dense: NDArray[np.float64],
    constants: NDArray[np.float64],
    share: float,
    unit: float,
    *,
    refined: bool,
) -> Links:
    """Return the rows over z, the positive and negative parts, and t."""
    plus, minus, t = m + np.arange(d), m + d + np.arange(d), m + 2 * d
    one = np.ones(d)
    z = np.arange(m)
    # b + a z is plus - minus; the sum of both, divided by sqrt(d), is at most t.
    rows = [
        (np.append(z, [plus[j], minus[j]]), np.append(dense[j], [-1.0, 1.0]), -constants[j], True)
        for j in range(d)
    ]
    sums = np.concatenate([plus, minus, [t]])
    rows.append((sums, np.concatenate([share * one, share * one, [-unit]]), 0.0, False))
    if refined:
        rows += [
            (np.array([plus[j], minus[j], t]), np.array([1.0, 1.0, -1.0]), 0.0, False)
            for j in range(d)
        ]
        rows += [
            (np.append(z, t), np.append(dense[c], -1.0), -constants[c], False)
            for c in range(d, dense.shape[0])
        ]
    high = np.array([row[2] for row in rows])
    return Links(
        np.repeat(np.arange(len(rows)), [row[0].size for row in rows]),
        np.concatenate([row[0] for row in rows]),
        np.concatenate([row[1] for row in rows]),
        np.where([row[3] for row in rows], high, -np.inf),
        high,
    )


def _point(
    start: NDArray[np.bool_],
    d: int,
    dense: NDArray[np.float64],
    constants: NDArray[np.float64],
    share: float,
    *,
    refined: bool,
) -> NDArray[np.float64]:
    """Return the point (z, y) of a choice."""
    values = constants + dense[:, start].sum(axis=1)
    residual = values[:d]
    size = share * float(np.abs(residual).sum())
    if refined:
        size = max(size, float(np.abs(residual).max()), float(values[d:].max(initial=0.0)))
    parts = [np.maximum(residual, 0.0), np.maximum(-residual, 0.0)]
    return np.concatenate([start.astype(np.float64), *parts, [size]])


@dataclass(eq=False, slots=True)
class SquareForm:
    r"""The residual's square, for a backend that takes a quadratic objective.

    .. math:: \min \|r\|^2 \quad\text{s.t.}\quad r = b + \sum_i z_i a_i \quad\text{or}\quad
              r = b + \sum_i w_i a_i,\; w \ge 0,\; w_i = 0 \text{ where } z_i = 0

    The second is for nonnegative weights. No bound on them is known beforehand (vectors that
    nearly cancel may need any weight), hence the condition in place of a product with z.

    Attributes
    ----------
    matrix, offset
        As in :class:`AbsoluteForm`.
    weighted
        Whether there are weights.
    """

    frame: Frame
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    precision: float
    factor: float
    weighted: bool

    @classmethod
    def of(cls, problem: Problem, frame: Frame) -> SquareForm:
        """Return the form of a problem."""
        objective = problem.objective
        assert isinstance(objective, VectorMatching)
        if objective.weights == "uniform":
            plain = AbsoluteForm.of(problem, frame)
            return cls(frame, plain.matrix, plain.offset, plain.precision, plain.factor, False)
        unit = objective.scale or 1.0
        chosen = np.concatenate([frame.items, frame.forced])
        precision = max(objective.tolerance / unit, FINEST)
        vectors = objective.vectors[chosen] / unit
        return cls(frame, vectors, -objective.target / unit, precision, unit, True)

    @property
    def variables(self) -> int:
        """The number of variables."""
        m, d = self.matrix.shape
        return int(self.frame.size + d + (m if self.weighted else 0))

    @property
    def whole_scale(self) -> float:
        """Return 1: a square is not rounded to whole numbers."""
        return 1.0

    def refine(self, choices: list[NDArray[np.bool_]]) -> bool:
        """Return that the program is exact."""
        return False

    def program(
        self, scale: float, start: NDArray[np.bool_] | None, *, whole: bool = False
    ) -> Program:
        """Return the program over z, the residual, and the weights if there are any."""
        assert not whole
        m, (rows, d) = self.frame.size, self.matrix.shape
        weights = rows if self.weighted else 0
        parts = m + d + np.arange(rows) if self.weighted else np.arange(m)
        columns = np.concatenate([np.append(parts, m + j) for j in range(d)])
        entries = np.concatenate([np.append(self.matrix[:, j] * scale, -1.0) for j in range(d)])
        constants = -self.offset * scale
        switches = None
        if self.weighted:
            switches = np.stack([np.arange(m), d + np.arange(m)], axis=1)
        point = None
        if start is not None and not self.weighted:
            residual = scale * (self.offset + self.matrix[start].sum(axis=0))
            point = np.concatenate([start.astype(np.float64), residual])
        return Program(
            costs=np.zeros(m + d + weights),
            upper=np.full(d + weights, np.inf),
            rows=self.frame.rows,
            links=Links(np.repeat(np.arange(d), rows + 1), columns, entries, constants, constants),
            start=point,
            gap=0.0,
            scale=scale,
            goal=(_STOP_AT * self.precision * scale) ** 2,
            leak=float_leak(self.precision),
            squares=d,
            switches=switches,
        )
