"""What may be chosen and the constraints that all models share, as rows in neutral form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints
from subsetopt.constraints.remaining import Remaining
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult

__all__ = [
    "CAPACITY_UNITS",
    "FINEST",
    "GAP",
    "LEAK",
    "STOP_AT",
    "Choice",
    "Frame",
    "Row",
    "feasible",
    "frame_of",
    "framed",
    "value_of",
]

# GAP is the share of the tolerance at which a backend of floats may stop, LEAK the share that is
# taken off its bound for its own tolerances. Both together are below 1, so that its proof survives
# our judgment.
GAP = 0.5
LEAK = 0.25
# Share of the tolerance at which a value is as good as 0; the rest is for rounding.
STOP_AT = 0.95

# The right-hand side of the cost row after scaling: a backend's absolute tolerance of 1e-6 is then
# 1e-10 of the capacity.
CAPACITY_UNITS = 1e4
# The least precision asked of a backend, relative to mean|l|: the resolution of float64 sums.
FINEST = 1e-14

# Which candidates are chosen: a bool per variable, shape (m,).
Choice = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """A constraint ``low <= coefficients @ z[positions] <= high``.

    Attributes
    ----------
    positions
        Which variables, as positions in ``Frame.items``.
    coefficients
        Their coefficients; None counts (all ones, integral ends).
    low, high
        Ends, either may be infinite for a row of costs.
    unit
        What a backend of floats divides all these numbers by.
    """

    positions: NDArray[np.int64]
    coefficients: NDArray[np.float64] | None
    low: float
    high: float
    unit: float = 1.0


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

    def subset(self, chosen: Choice) -> NDArray[np.int64]:
        """Return the original indices of a choice, sorted."""
        return np.sort(np.concatenate([self.forced, self.items[chosen]]))

    def choice(self, indices: NDArray[np.int64] | None) -> Choice | None:
        """Return original indices as a bool per variable; None for None."""
        return None if indices is None else np.isin(self.items, indices)

    def without(self, choices: Iterable[Choice]) -> Frame:
        """Return the frame in which some choices break a row, and no other choice does."""
        signs = [(chosen, np.where(chosen, 1.0, -1.0)) for chosen in choices]
        every = np.arange(self.size)
        cuts = [Row(every, sign, -math.inf, chosen.sum() - 1.0) for chosen, sign in signs]
        return replace(self, rows=(*self.rows, *cuts))


def frame_of(problem: Problem) -> Frame | RawResult:
    """Return what every model of a problem shares, or the answer where nothing is to choose."""
    rules = problem.constraints
    if problem.constrained and (why := rules.infeasibility()) is not None:
        return _infeasible(why)
    remaining = rules.remaining
    items, size = remaining.affordable(), remaining.size
    if size == 0 or items.size == 0 or (items.size == size and not rules.at_most):
        chosen = items[:size] if not rules.at_most else items[:0]
        return _only(problem, np.sort(np.concatenate([rules.forced, chosen])))
    return framed(rules)


def framed(rules: Constraints) -> Frame:
    """Return the frame of constraints that leave something to choose."""
    remaining = rules.remaining
    items = remaining.affordable()
    rows = (*_size_rows(remaining, items), *_cost_rows(rules, items))
    return Frame(items, rules.forced, rows)


def feasible(problem: Problem, indices: NDArray[np.int64]) -> bool:
    """Whether a subset keeps all constraints and that of the objective."""
    broken = problem.constraints.violations(indices)
    return not broken and not problem.objective.violations(indices, problem.k)


def value_of(problem: Problem, indices: NDArray[np.int64]) -> float:
    """Return the objective of a subset, or minus one that is maximized."""
    objective = problem.objective
    weights = objective.weights_for(indices, problem.k)
    assert weights is not None
    value = objective.evaluate(indices, weights)
    return value if objective.sense == "minimize" else -value


def _infeasible(why: str) -> RawResult:
    return RawResult(None, infeasible=True, extras={"why": why, "native_status": "not called"})


def _only(problem: Problem, indices: NDArray[np.int64]) -> RawResult:
    if broken := problem.objective.violations(indices, problem.k):
        return _infeasible(broken[0])
    value = value_of(problem, indices)
    value = value if problem.objective.sense == "minimize" else -value
    return RawResult(indices, bound=value, extras={"native_status": "not called"})


def _size_rows(remaining: Remaining, items: NDArray[np.int64]) -> list[Row]:
    size, quotas = remaining.size, remaining.quotas
    rows = [Row(np.arange(items.size), None, 0 if remaining.at_most else size, size)]
    if quotas is None:
        return rows
    for code in range(quotas.size - 1):
        members = np.flatnonzero(quotas.codes[items] == code)
        low, high = int(quotas.low[code]), min(members.size, int(quotas.high[code]))
        if low > 0 or high < members.size:
            rows.append(Row(members, None, low, high))
    return rows


def _cost_rows(rules: Constraints, items: NDArray[np.int64]) -> list[Row]:
    if rules.limit is None:
        return []
    costs = rules.limit.costs[items]
    # Costs are whole numbers: half a unit more lets no further subset in.
    high = rules.remaining.capacity + 0.5
    if float(costs.sum()) <= high:
        return []
    unit = max(abs(high), float(costs.max())) / CAPACITY_UNITS
    return [Row(np.arange(items.size), costs, -math.inf, high, unit)]
