"""Mean matching, top scores and scored matching as one linear model.

The model is neutral: rows, values and an offset, in units in which losses are near 1. A backend
scales it to its own tolerances, solves it, and hands numbers back to be turned into a subset and
a bound in the objective's units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints
from subsetopt.objectives import MeanMatching, ScoredMatching, TopScores
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult
from subsetopt.solvers.mip.frame import CAPACITY_UNITS, FINEST, Frame, Row, frame

__all__ = ["LinearModel", "formulate"]


@dataclass(frozen=True, eq=False, slots=True)
class LinearModel(Frame):
    r"""Minimize ``offset + values @ z``, or its magnitude, over binary ``z`` subject to rows.

    .. math:: \min_z \; d + v \cdot z \quad\text{or}\quad \min_z \; |d + v \cdot z|

    Forced items are in the offset.

    Attributes
    ----------
    values
        Value of each variable, shape (m,), in multiples of ``unit``.
    offset
        The constant, in multiples of ``unit``.
    absolute
        Whether the magnitude is minimized.
    precision
        Difference of two values that counts as none: the objective's tolerance in these units.
    factor
        What a value is multiplied by to be an objective: ``unit/k``, or ``-unit`` for scores.
    at_least_zero
        Whether the objective is a magnitude, also where its sign is known and the model linear.
    """

    values: NDArray[np.float64]
    offset: float
    absolute: bool
    precision: float
    factor: float
    at_least_zero: bool

    @property
    def span(self) -> float:
        """A bound on ``|offset + values @ z|`` over all z."""
        return abs(self.offset) + float(np.abs(self.values).sum())

    def value(self, chosen: NDArray[np.bool_]) -> float:
        """Return the value to minimize of a choice, a bool per variable."""
        total = self.offset + float(self.values[chosen].sum())
        return abs(total) if self.absolute else total

    def bound(self, value: float, leak: float = 0.0) -> float | None:
        """Return a lower bound on the value as a bound on the objective, in its own units.

        Parameters
        ----------
        value
            The backend's lower bound, scaled back to the units of ``values``.
        leak
            By how much the backend's tolerances may have overstated it.
        """
        if not self.values.any():
            value, leak = self.value(np.zeros(self.size, dtype=np.bool_)), 0.0
        objective = (value - leak) * self.factor
        if not math.isfinite(objective):
            return None
        return max(0.0, objective) if self.at_least_zero else objective


def formulate(problem: Problem) -> LinearModel | RawResult:
    """Return the linear model of a problem, or its answer where there is nothing to choose.

    Parameters
    ----------
    problem
        A problem with a :class:`MeanMatching`, :class:`TopScores` or :class:`ScoredMatching`
        objective.

    Returns
    -------
    LinearModel or RawResult
        The result when the constraints clash (``infeasible``) or leave one subset only.
    """
    made = frame(problem)
    if isinstance(made, RawResult):
        return made
    rules, items = problem.constraints, made.items
    rows = (*made.rows, *_band_rows(problem, rules, items))
    values, offset, absolute, precision, factor = _objective(problem, rules, items)
    at_least_zero = isinstance(problem.objective, MeanMatching)
    return LinearModel(
        items, rules.forced, rows, values, offset, absolute, precision, factor, at_least_zero
    )


def _band_rows(problem: Problem, rules: Constraints, items: NDArray[np.int64]) -> list[Row]:
    """Return the band of scored matching, about 0 where the size is exact."""
    objective = problem.objective
    if not isinstance(objective, ScoredMatching):
        return []
    # As for costs: a backend's tolerance is then a small part of the width left for rounding.
    unit = (objective.matching.scale or 1.0) / CAPACITY_UNITS
    center = 0.0 if rules.at_most else objective.target
    losses = objective.losses / unit - center / unit
    low, high = (end / unit - problem.k * (center / unit) for end in objective.window(problem.k))
    settled = math.fsum(losses[rules.forced])
    return [Row(np.arange(items.size), losses[items], low - settled, high - settled)]


def _objective(
    problem: Problem, rules: Constraints, items: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float, bool, float, float]:
    """Return values, offset, absolute, precision and factor of the objective."""
    objective = problem.objective
    if isinstance(objective, (TopScores, ScoredMatching)):
        unit = float(np.abs(objective.values).max()) or 1.0
        scores = objective.values / unit
        offset = -math.fsum(scores[rules.forced])
        precision = max(objective.tolerance / unit, FINEST)
        return -scores[items], offset, False, precision, -unit
    assert isinstance(objective, MeanMatching)
    unit = objective.scale or 1.0
    precision = max(problem.k * objective.tolerance / unit, FINEST)
    values, offset, sign = _residual(problem, rules, unit)
    signed = values[items] if sign == 0 else sign * values[items]
    offset = offset + math.fsum(values[rules.forced])
    return signed, sign * offset if sign else offset, sign == 0, precision, unit / problem.k


def _residual(
    problem: Problem, rules: Constraints, unit: float
) -> tuple[NDArray[np.float64], float, int]:
    """Return values and offset of the sum to bring to 0, and its sign where that is known.

    With an exact size the target is taken from every value, which keeps the numbers small; a sum
    that is on one side of 0 for every subset needs no absolute value.
    """
    objective = problem.objective
    assert isinstance(objective, MeanMatching)
    plain = objective.values / unit
    offset = -problem.k * (objective.target / unit)
    if rules.at_most:
        values, constant = plain, offset
    else:
        values, constant = plain - objective.target / unit, 0.0
    lowest, highest = rules.greedy_by(values), rules.greedy_by(-values)
    assert not isinstance(lowest, str) and not isinstance(highest, str)
    if constant + math.fsum(values[lowest]) >= 0.0:
        return plain, offset, 1
    if constant + math.fsum(values[highest]) <= 0.0:
        return plain, offset, -1
    return values, constant, 0
