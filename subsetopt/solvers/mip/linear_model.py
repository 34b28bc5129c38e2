"""Mean matching and top scores as one linear model, and the rows that all models share.

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

__all__ = ["FINEST", "GAP", "LEAK", "Frame", "LinearModel", "Row", "accepted", "formulate", "frame"]

# Shares of the tolerance: the gap at which a backend of floats may stop, and what is taken off
# its bound for its own tolerances. Together below 1, so that its proof survives our judgment.
GAP = 0.5
LEAK = 0.25

# Right-hand side of the cost row after scaling: a backend's absolute tolerance of 1e-6 is then
# 1e-10 of the capacity, a fifth of what the normal form of the constraints leaves for rounding.
_CAPACITY_UNITS = 1e4
_CAPACITY_SLACK = 0.5e-9
# Least precision asked of a backend, relative to mean|l|: the resolution of float64 sums.
FINEST = 1e-14


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """A constraint ``low <= coefficients @ z[positions] <= high``.

    Attributes
    ----------
    positions
        Which variables, as positions in ``LinearModel.items``.
    coefficients
        Their coefficients; None counts (all ones, integral ends).
    low, high
        Ends, either may be infinite for a row of costs.
    """

    positions: NDArray[np.int64]
    coefficients: NDArray[np.float64] | None
    low: float
    high: float


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """What may be chosen, and the constraints that every objective shares.

    Forced items are in the ends of the rows; excluded ones, and those that do not fit into the
    capacity, have no variable.

    Attributes
    ----------
    items
        Original index of each variable, shape (m,).
    forced
        Original indices that are always chosen.
    rows
        The constraints; the first is that of the size.
    """

    items: NDArray[np.int64]
    forced: NDArray[np.int64]
    rows: tuple[Row, ...]

    @property
    def size(self) -> int:
        """The number of variables for items."""
        return self.items.size

    @property
    def entries(self) -> int:
        """The number of coefficients of the constraints, and one for each variable."""
        return self.size + sum(row.positions.size for row in self.rows)

    def subset(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the original indices of a choice, sorted."""
        return np.sort(np.concatenate([self.forced, self.items[chosen]]))

    def choice(self, indices: NDArray[np.int64] | None) -> NDArray[np.bool_] | None:
        """Return original indices as a bool per variable; None for None."""
        return None if indices is None else np.isin(self.items, indices)


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


def frame(problem: Problem) -> Frame | RawResult:
    """Return what every model of a problem shares, or the answer where nothing is to choose."""
    rules = problem.constraints
    if problem.constrained and (why := rules.infeasibility()) is not None:
        return RawResult(None, infeasible=True, extras={"why": why, "native_status": "not called"})
    items, remaining = _affordable(rules)
    need = rules.k - rules.forced.size
    if need == 0 or items.size == 0 or (items.size == need and not rules.at_most):
        chosen = items[:need] if not rules.at_most else items[:0]
        return _only(problem, np.sort(np.concatenate([rules.forced, chosen])))
    rows = (*_size_rows(rules, items, need), *_cost_rows(rules, items, remaining))
    return Frame(items, rules.forced, rows)


def _only(problem: Problem, indices: NDArray[np.int64]) -> RawResult:
    objective = problem.objective
    if broken := objective.violations(indices, problem.k):
        return RawResult(
            None, infeasible=True, extras={"why": broken[0], "native_status": "not called"}
        )
    weights = objective.weights_for(indices, problem.k)
    assert weights is not None
    value = objective.evaluate(indices, weights)
    return RawResult(indices, bound=value, extras={"native_status": "not called"})


def _affordable(rules: Constraints) -> tuple[NDArray[np.int64], float]:
    """Return the free items that fit into what the forced ones leave of the capacity."""
    if rules.costs is None:
        return rules.free, math.inf
    remaining = rules.capacity - math.fsum(rules.costs[rules.forced])
    return rules.free[rules.costs[rules.free] <= remaining], remaining


def _size_rows(rules: Constraints, items: NDArray[np.int64], need: int) -> list[Row]:
    rows = [Row(np.arange(items.size), None, 0 if rules.at_most else need, need)]
    if rules.codes is None or rules.low is None or rules.high is None:
        return rows
    taken = np.bincount(rules.codes[rules.forced], minlength=rules.low.size)
    for code in range(rules.low.size - 1):
        members = np.flatnonzero(rules.codes[items] == code)
        low = max(0, int(rules.low[code] - taken[code]))
        high = min(members.size, int(rules.high[code] - taken[code]))
        if low > 0 or high < members.size:
            rows.append(Row(members, None, low, high))
    return rows


def _cost_rows(rules: Constraints, items: NDArray[np.int64], remaining: float) -> list[Row]:
    if rules.costs is None:
        return []
    costs = rules.costs[items]
    # The widened capacity less half of the widening: room for the backend's tolerance.
    high = remaining - _CAPACITY_SLACK * abs(rules.capacity)
    if math.fsum(costs) <= high:
        return []
    unit = max(abs(high), float(costs.max())) / _CAPACITY_UNITS
    return [Row(np.arange(items.size), costs / unit, -math.inf, high / unit)]


def _band_rows(problem: Problem, rules: Constraints, items: NDArray[np.int64]) -> list[Row]:
    """Return the band of scored matching, about 0 where the size is exact."""
    objective = problem.objective
    if not isinstance(objective, ScoredMatching):
        return []
    # As for costs: a backend's tolerance is then a small part of the width left for rounding.
    unit = (objective.matching.scale or 1.0) / _CAPACITY_UNITS
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


def accepted(
    problem: Problem, model: Frame, chosen: NDArray[np.bool_] | None
) -> NDArray[np.int64] | None:
    """Return a backend's choice as indices, or None where its tolerances broke a constraint."""
    if chosen is None:
        return None
    indices = model.subset(chosen)
    broken = problem.constraints.violations(indices)
    return None if broken or problem.objective.violations(indices, problem.k) else indices
