"""What may be chosen and the constraints that all models share, as rows in neutral form."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult

__all__ = [
    "CAPACITY_UNITS",
    "FAR",
    "LARGEST_SUM",
    "Choice",
    "Frame",
    "Rows",
    "feasible",
    "frame_of",
    "framed",
    "sign_of",
    "value_of",
]

# Largest magnitude of a sum of whole numbers that a program is made of.
LARGEST_SUM = 2.0**60
# The right-hand side of the cost row after scaling: a backend's absolute tolerance of 1e-6 is then
# 1e-10 of the capacity.
CAPACITY_UNITS = 1e4
# Values are measured in this share of a target that is far beyond them, so that no quotient is too
# large for a backend.
FAR = 1e-6
# Steps per item, at most, into which the coefficients of a band are rounded.
_BAND_STEPS = 4e9

# Which candidates are chosen: a bool per variable, shape (m,).
Choice = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Sparse rows ``low <= A @ (z, y) <= high`` on a choice z and a program's other variables y.

    Attributes
    ----------
    rows, columns, coefficients
        Entries of A, shape (e,), by ascending row.
    low, high
        Ends of the rows, shape (r,); either may be infinite.
    unit
        What a backend of floats divides coefficients and ends by.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    coefficients: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    unit: float = 1.0

    @classmethod
    def one(
        cls, columns: NDArray[np.int64], coefficients: NDArray[np.float64], low: float, high: float
    ) -> Rows:
        """Return a single row."""
        ends = np.array([low, high], dtype=np.float64)
        return cls(np.zeros_like(columns), columns, coefficients, ends[:1], ends[1:])

    @classmethod
    def joined(cls, blocks: list[Rows]) -> Rows:
        """Return the rows of some blocks in turn, divided by their units."""
        firsts = np.cumsum([0, *(block.low.size for block in blocks)])
        return cls(
            np.concatenate([b.rows + first for b, first in zip(blocks, firsts, strict=False)]),
            np.concatenate([block.columns for block in blocks]),
            np.concatenate([block.coefficients / block.unit for block in blocks]),
            np.concatenate([block.low / block.unit for block in blocks]),
            np.concatenate([block.high / block.unit for block in blocks]),
        )

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each row begins among the entries, and the end: shape (r + 1,)."""
        return np.searchsorted(self.rows, np.arange(self.low.size + 1))

    def rounded(self) -> Rows:
        """Return a row on z in whole numbers, which no choice breaks that keeps this one."""
        whole = np.rint(self.coefficients)
        if np.array_equal(whole, self.coefficients):
            return replace(self, low=np.ceil(self.low), high=np.floor(self.high), unit=1.0)
        finest = _BAND_STEPS * self.columns.size
        factor = min(finest, LARGEST_SUM / float(np.abs(self.coefficients).sum()))
        whole = np.rint(self.coefficients * factor)
        # The ends are widened by what rounding may move a sum, and are not beyond all sums.
        moved, reach = 0.5 * self.columns.size, float(np.abs(whole).sum())
        low = np.floor(np.clip(self.low * factor - moved, -reach - 2.0, reach + 1.0))
        high = np.ceil(np.clip(self.high * factor + moved, -reach - 1.0, reach + 2.0))
        return replace(self, coefficients=whole, low=low, high=high)


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
    constraints
        Single rows on the variables; the first is that of the size.
    """

    items: NDArray[np.int64]
    forced: NDArray[np.int64]
    constraints: tuple[Rows, ...]

    @property
    def size(self) -> int:
        """The number of variables for items."""
        return self.items.size

    @property
    def most(self) -> float:
        """The largest number of items that can be chosen."""
        return float(self.constraints[0].high[0])

    @property
    def counting(self) -> bool:
        """Whether all constraints count items, without coefficients."""
        return all((row.coefficients == 1.0).all() for row in self.constraints)

    def rows(self, *blocks: Rows, whole: bool = False) -> Rows:
        """Return the constraints, in ``whole`` numbers or not, and below them further rows."""
        own = [row.rounded() for row in self.constraints] if whole else self.constraints
        return Rows.joined([*own, *blocks])

    def subset(self, chosen: Choice) -> NDArray[np.int64]:
        """Return the original indices of a choice, sorted."""
        return np.sort(np.concatenate([self.forced, self.items[chosen]]))

    def choice(self, indices: NDArray[np.int64] | None) -> Choice | None:
        """Return original indices as a bool per variable; None for None."""
        return None if indices is None else np.isin(self.items, indices)

    def without(self, choices: Iterable[Choice]) -> Frame:
        """Return the frame in which some choices break a row, and no other choice does."""
        every = np.arange(self.size)
        cuts = [
            Rows.one(every, np.where(chosen, 1.0, -1.0), -math.inf, chosen.sum() - 1.0)
            for chosen in choices
        ]
        return replace(self, constraints=(*self.constraints, *cuts))


def frame_of(problem: Problem) -> Frame | RawResult:
    """Return what every model of a problem shares, or the answer where nothing is to choose."""
    rules = problem.constraints
    why = rules.infeasibility() if problem.constrained else None
    if why is None:
        frame, remaining = framed(rules), rules.remaining
        every = frame.size == remaining.size and not remaining.at_most
        if frame.size and remaining.size and not every:
            return frame
        indices = frame.subset(np.full(frame.size, every))
        broken = problem.objective.violations(indices, problem.k)
        if not broken:
            bound = sign_of(problem) * value_of(problem, indices)
            return RawResult(indices, bound=bound, extras={"native_status": "not called"})
        why = broken[0]
    return RawResult(None, infeasible=True, extras={"why": why, "native_status": "not called"})


def framed(rules: Constraints) -> Frame:
    """Return the frame of constraints that can be met."""
    remaining, quotas = rules.remaining, rules.remaining.quotas
    items, size = remaining.affordable(), remaining.size
    every = np.arange(items.size)
    rows = [Rows.one(every, np.ones(every.size), 0 if remaining.at_most else size, size)]
    for code in range(0 if quotas is None else quotas.size - 1):
        assert quotas is not None
        members = np.flatnonzero(quotas.codes[items] == code)
        low, high = int(quotas.low[code]), min(members.size, int(quotas.high[code]))
        if low > 0 or high < members.size:
            rows.append(Rows.one(members, np.ones(members.size), low, high))
    if remaining.costs is not None:
        costs = remaining.costs[items]
        # Costs are whole numbers: half a unit more lets no further subset in.
        most = remaining.capacity + 0.5
        if float(costs.sum()) > most:
            unit = max(most, float(costs.max())) / CAPACITY_UNITS
            rows.append(replace(Rows.one(every, costs, -math.inf, most), unit=unit))
    return Frame(items, rules.forced, tuple(rows))


def feasible(problem: Problem, indices: NDArray[np.int64]) -> bool:
    """Whether a subset keeps all constraints and that of the objective."""
    broken = problem.constraints.violations(indices)
    return not broken and not problem.objective.violations(indices, problem.k)


def sign_of(problem: Problem) -> float:
    """Return what a value to minimize is multiplied by to be an objective: 1 or -1."""
    return 1.0 if problem.objective.sense == "minimize" else -1.0


def value_of(problem: Problem, indices: NDArray[np.int64] | None) -> float:
    """Return the objective of a subset, or minus one that is maximized; infinity without one."""
    if indices is None:
        return math.inf
    weights = problem.objective.weights_for(indices, problem.k)
    assert weights is not None
    return sign_of(problem) * problem.objective.evaluate(indices, weights)
