"""Mean matching, top scores and scored matching: one value per candidate, and a constant.

All numbers are in units in which losses or scores are near 1; a backend scales them to its own
tolerances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints
from subsetopt.objectives import MeanMatching, ScoredMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.mip.constraint_rows import (
    CAPACITY_UNITS,
    FINEST,
    GAP,
    LEAK,
    STOP_AT,
    Choice,
    Frame,
    Row,
    framed,
)
from subsetopt.solvers.mip.program import Form, Kind, Links, Program

__all__ = ["LinearForm"]

# A whole number is a hundredth of the tolerance of one chosen item: finer steps are slower, coarser
# ones have fewer solutions.
_STEPS = 100.0
# Largest magnitude of a sum of whole numbers, and that up to which float64 holds each of them.
_LARGEST = 2.0**60
_EXACT = 2.0**53
# Share of the summed magnitudes by which a sum of float64 numbers may be off.
_ROUNDING = 1e-13
# Share of the tolerance, less what rounding costs, at which whole numbers may stop.
_WHOLE_GAP = 0.95


@dataclass(eq=False, slots=True)
class LinearForm(Form):
    r"""A sum of values, its magnitude by a bound t on both signs, or a band about 0.

    .. math:: \min_z \; d + v \cdot z \quad\text{or}\quad
              \min_{z, t} \; t \quad\text{s.t.}\quad -t \le d + v \cdot z \le t

    Forced items are in the constant, and a band on the losses is among the frame's rows.

    Attributes
    ----------
    values
        Value of each candidate, shape (m,).
    offset
        The constant d.
    absolute
        Whether it is the magnitude.
    share
        The share of the precision that the magnitude may have, with nothing to minimize; 0
        minimizes.
    """

    values: NDArray[np.float64]
    offset: float
    absolute: bool
    share: float = 0.0

    @property
    def kind(self) -> Kind:
        """Return "band" where there is nothing to minimize, "scalar" otherwise."""
        return "band" if self.share else "scalar"

    @classmethod
    def of(cls, problem: Problem, frame: Frame) -> LinearForm:
        """Return the form of a problem."""
        objective = problem.objective
        if isinstance(objective, MeanMatching):
            unit = objective.scale or 1.0
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
        return cls(frame, max(precision, FINEST), factor, values, offset, absolute)

    @property
    def whole_scale(self) -> float:
        """Return the scale at which rounding costs a hundredth of the precision, or the largest."""
        span = float(np.abs(self.values).sum()) + (abs(self.offset) if self.absolute else 0.0)
        fine = _STEPS * max(1.0, self.frame.rows[0].high) / self.precision
        return min(fine, _LARGEST / (span or 1.0))

    def value(self, chosen: Choice) -> float:
        """Return the value to minimize of a choice, a bool per candidate."""
        total = self.offset + float(self.values[chosen].sum())
        return abs(total) if self.absolute else total

    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program over z, and t where a magnitude is minimized."""
        m, rows = self.frame.size, self.frame.rows
        values, offset, precision = self.values * scale, self.offset * scale, self.precision * scale
        gap, error, leak = GAP * precision, 0.0, LEAK * self.precision
        if whole:
            values, offset = np.rint(values), float(round(offset))
            # Half a whole number for each chosen item and the constant.
            error, leak = 0.5 * (rows[0].high + 1.0) / scale, 0.0
            gap = max(0.0, math.floor(_WHOLE_GAP * (self.precision - 2.0 * error) * scale))
        if not self.values.any():
            error = leak = 0.0  # The value is the constant.
        point = None if start is None else start.astype(np.float64)
        if self.share:
            low, high = -self.share * precision - offset, self.share * precision - offset
            band = Links.joined([np.arange(m)], [values], np.array([low]), np.array([high]))
            return Program(np.zeros(m), np.empty(0), rows, band, point, 0.0, scale)
        if not self.absolute:
            nothing = Links.joined([], [], np.empty(0), np.empty(0))
            return Program(
                values, np.empty(0), rows, nothing, point, gap, scale,
                error=error, offset=self.offset, leak=leak,
            )  # fmt: skip
        both = Links.joined(
            [np.arange(m + 1)] * 2,
            [np.append(values, -1.0), np.append(values, 1.0)],
            np.array([-math.inf, -offset]),
            np.array([-offset, math.inf]),
        )
        most = math.inf
        if whole:
            most = abs(offset) + math.fsum(np.abs(values))
            most = most if most < _EXACT else math.nextafter(most, math.inf)
        if start is not None:
            point = np.append(start, abs(offset + math.fsum(values[start])))
        return Program(
            np.append(np.zeros(m), 1.0), np.array([most]), rows, both, point, gap, scale,
            goal=STOP_AT * precision, error=error, leak=leak,
        )  # fmt: skip


def _banded(problem: Problem, frame: Frame) -> Frame:
    """Return the frame with the band of scored matching, about 0 where the size is exact.

    Candidates that no subset within the band has, or every one, are taken out.
    """
    objective, rules, k = problem.objective, problem.constraints, problem.k
    assert isinstance(objective, ScoredMatching)
    # As for costs, a backend's tolerance is then a small part of the width left for rounding.
    unit = (objective.matching.scale or 1.0) / CAPACITY_UNITS
    center = 0.0 if rules.at_most else objective.target
    losses = objective.losses / unit - center / unit
    low, high = (end / unit - k * (center / unit) for end in objective.window(k))
    slack = k * objective.slack / unit
    fewer = _narrowed(rules, losses, low - slack, high + slack)
    frame = frame if fewer is rules else framed(fewer)
    forced = math.fsum(losses[frame.forced])
    row = Row(np.arange(frame.size), losses[frame.items], low - forced, high - forced)
    return replace(frame, rows=(*frame.rows, row))


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
    offset = -problem.k * (objective.target / unit)
    if rules.at_most:
        values, constant = plain, offset
    else:
        values, constant = plain - objective.target / unit, 0.0
    while True:
        ends = [rules.best_by(values), rules.best_by(-values)]
        totals = [constant + math.fsum(values[end]) for end in ends]
        if totals[0] >= 0.0:
            return frame, plain, offset, 1
        if totals[1] <= 0.0:
            return frame, plain, offset, -1
        reached = [abs(totals[i]) for i, end in enumerate(ends) if rules.affords(end)]
        within = min(reached, default=math.inf) + problem.k * objective.tolerance / unit
        fewer = _narrowed(rules, values, -within - constant, within - constant)
        if fewer is rules:
            return frame, values, constant, 0
        rules, frame = fewer, framed(fewer)


def _narrowed(
    rules: Constraints, values: NDArray[np.float64], low: float, high: float
) -> Constraints:
    """Return constraints of the candidates that matter to sums within ends.

    For each candidate, the least and the greatest sum of subsets of the right size are taken that
    have it, and of those that do not.
    """
    items, size = rules.free, rules.remaining.size
    ranked = np.sort(np.append(values[items], np.zeros(size if rules.at_most else 0)))
    if not 0 < size < ranked.size:
        return rules
    forced, own = math.fsum(values[rules.forced]), values[items]
    least, greatest = (forced + math.fsum(part) for part in (ranked[:size], ranked[-size:]))
    rounding = _ROUNDING * (float(np.abs(ranked).sum()) + abs(forced))
    low, high = low - rounding, high + rounding
    # The last inside and the first outside of the least, and of the greatest sum.
    low_in, low_out, high_out, high_in = ranked[[size - 1, size, -size - 1, -size]]
    never = (least + np.maximum(own - low_in, 0.0) > high) | (
        greatest - np.maximum(high_in - own, 0.0) < low
    )
    always = (least + np.maximum(low_out - own, 0.0) > high) | (
        greatest - np.maximum(own - high_out, 0.0) < low
    )
    free = items[~(never | always)]
    fewer = replace(rules, forced=np.sort(np.append(rules.forced, items[always])), free=free)
    left = fewer.remaining
    if not (never | always).any() or left.size <= 0 or left.affordable().size <= left.size:
        return rules
    return rules if isinstance(fewer.cheapest, str) else _narrowed(fewer, values, low, high)
