"""Mean matching, top scores and scored matching: one value per candidate, and a constant.

All numbers are in units in which losses or scores are near 1; a backend scales them to its own
tolerances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.narrowing import narrowed
from subsetopt.objectives import MeanMatching, ScoredMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.mip.constraint_rows import (
    CAPACITY_UNITS,
    FAR,
    LARGEST_SUM,
    Choice,
    Frame,
    Rows,
    framed,
)
from subsetopt.solvers.mip.program import GAP, LEAK, STOP_AT, Answer, Form, Program

__all__ = ["LinearForm"]

# A whole number is a hundredth of the tolerance of one chosen item: finer steps are slower, coarser
# ones have fewer solutions.
_STEPS = 100.0
# The smallest unit of losses: half of it is 0.
_SMALLEST = float(np.finfo(np.float64).smallest_subnormal)
# Largest magnitude up to which float64 holds each whole number.
_EXACT = 2.0**53
# Share of the tolerance, less what rounding costs, at which whole numbers may stop.
_WHOLE_GAP = 0.95


@dataclass(eq=False, slots=True)
class LinearForm(Form):
    r"""A sum of values, its magnitude by a bound t on both signs, or a band about 0.

    .. math:: \min_z \; d + v \cdot z \quad\text{or}\quad
              \min_{z, t} \; t \quad\text{s.t.}\quad -t \le d + v \cdot z \le t

    Forced items are in the constant, and a band on the losses is among the frame's constraints.

    Attributes
    ----------
    values
        Value of each candidate, shape (m,).
    offset
        The constant d.
    absolute
        Whether it is the magnitude.
    bands
        Shares of the precision. While there is one, the program asks for a magnitude within the
        first and minimizes nothing.
    """

    kind = "scalar"
    values: NDArray[np.float64]
    offset: float
    absolute: bool
    bands: tuple[float, ...] = ()

    @classmethod
    def of(cls, problem: Problem, frame: Frame) -> LinearForm:
        """Return the form of a problem."""
        objective = problem.objective
        if isinstance(objective, MeanMatching):
            unit = max(objective.scale, FAR * abs(objective.target)) or 1.0
            frame, values, offset, sign = _residual(problem, frame, unit)
            absolute, factor = sign == 0, unit / problem.k
            precision = problem.k * objective.tolerance / unit
        else:
            assert isinstance(objective, (TopScores, ScoredMatching))
            unit = factor = float(np.abs(objective.values).max()) or 1.0
            values, offset, sign, absolute = objective.values / unit, 0.0, -1, False
            precision = objective.tolerance / unit
        if isinstance(objective, ScoredMatching):
            frame = _banded(problem, frame)
        offset = (sign or 1) * (offset + math.fsum(values[frame.forced]))
        values = (sign or 1) * values[frame.items]
        if absolute and not values.any():
            offset, absolute = abs(offset), False
        return cls(frame, precision, factor, values, offset, absolute)

    @property
    def whole_scale(self) -> float:
        """Return the scale at which rounding costs a hundredth of the precision, or the largest."""
        span = float(np.abs(self.values).sum()) + (abs(self.offset) if self.absolute else 0.0)
        fine = _STEPS * max(1.0, self.frame.most) / self.precision
        return min(fine, LARGEST_SUM / (span or 1.0))

    def refine(self, answer: Answer, best: Choice | None) -> LinearForm | None:
        """Go on to the next band where choices missed the tolerance, otherwise to minimizing."""
        if not self.bands:
            return None
        if answer.infeasible:
            self.floor = (self.bands[0] - LEAK) * self.precision * self.factor
        self.bands = self.bands[1:] if answer.choices else ()
        return self

    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program over z, and t where a magnitude is minimized."""
        m, precision = self.frame.size, self.precision * scale
        values, offset = self.values * scale, self.offset * scale
        if self.bands:
            end = self.bands[0] * precision
            band = Rows.one(np.arange(m), values, -end - offset, end - offset)
            return Program(np.zeros(m), np.empty(0), self.frame.rows(band), None, 0.0, scale)
        gap, slack = GAP * precision, LEAK * self.precision
        if whole:
            values, offset = np.rint(values), float(round(offset))
            # Half a whole number for each chosen item and the constant.
            slack = 0.5 * (self.frame.most + 1.0) / scale
            gap = max(0.0, math.floor(_WHOLE_GAP * (self.precision - 2.0 * slack) * scale))
        if not self.values.any():
            slack = 0.0  # The value is the constant.
        costs, upper, both = values, np.empty(0), []
        point = None if start is None else start.astype(np.float64)
        if self.absolute:
            most = abs(offset) + math.fsum(np.abs(values)) if whole else math.inf
            most = most if most < _EXACT else math.nextafter(most, math.inf)
            costs, upper, every = np.append(np.zeros(m), 1.0), np.array([most]), np.arange(m + 1)
            both = [
                Rows.one(every, np.append(values, -1.0), -math.inf, -offset),
                Rows.one(every, np.append(values, 1.0), -offset, math.inf),
            ]
            if start is not None:
                point = np.append(start, abs(offset + math.fsum(values[start])))
        return Program(
            costs=costs,
            upper=upper,
            rows=self.frame.rows(*both, whole=whole),
            start=point,
            gap=gap,
            scale=scale,
            goal=STOP_AT * precision if self.absolute else -math.inf,
            slack=slack,
            offset=0.0 if self.absolute else self.offset,
        )


def _banded(problem: Problem, frame: Frame) -> Frame:
    """Return the frame with the band of scored matching, about 0 where the size is exact.

    Candidates that no subset within the band has, or every one, are taken out.
    """
    objective, rules, k = problem.objective, problem.constraints, problem.k
    assert isinstance(objective, ScoredMatching)
    # As for costs, a backend's tolerance is then a small part of the width left for rounding.
    unit = max((objective.matching.scale or 1.0) / CAPACITY_UNITS, _SMALLEST)
    center = 0.0 if rules.at_most else objective.target
    losses = objective.losses / unit - center / unit
    low, high = (end / unit - k * (center / unit) for end in objective.window(k))
    slack = k * objective.slack / unit
    fewer = narrowed(rules, losses, low - slack, high + slack)
    frame = frame if fewer is rules else framed(fewer)
    forced = math.fsum(losses[frame.forced])
    own = losses[frame.items]
    band = Rows.one(np.arange(frame.size), own, low - forced, high - forced)
    return replace(frame, constraints=(*frame.constraints, band))


def _residual(
    problem: Problem, frame: Frame, unit: float
) -> tuple[Frame, NDArray[np.float64], float, int]:
    """Return the frame, values and offset of the sum to bring to 0, and its sign where known.

    With an exact size the target is taken from every value, which keeps the numbers small; a sum
    that is on one side of 0 for every subset needs no absolute value. Candidates that no optimal
    subset has, or every one, are taken out: one loss far above all others would hide these from a
    backend of floats.
    """
    objective, rules = problem.objective, problem.constraints
    assert isinstance(objective, MeanMatching)
    plain = objective.values / unit
    target = objective.target / unit
    offset = -problem.k * target
    centered = plain - target, 0.0
    values, constant = (plain, offset) if rules.at_most else centered
    while True:
        ends = [rules.best_by(values), rules.best_by(-values)]
        totals = [constant + math.fsum(values[end]) for end in ends]
        if totals[0] >= 0.0:
            return frame, plain, offset, 1
        if totals[1] <= 0.0:
            return frame, plain, offset, -1
        reached = [abs(totals[i]) for i, end in enumerate(ends) if rules.affords(end)]
        within = min(reached, default=math.inf) + problem.k * objective.tolerance / unit
        fewer = narrowed(rules, values, -within - constant, within - constant)
        if fewer is rules:
            return frame, values, constant, 0
        rules, frame = fewer, framed(fewer)
