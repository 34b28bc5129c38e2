"""A mixed-integer program in neutral form, the forms that state one, and what a backend answers.

A form (``linear_form``, ``vector_form`` and ``coverage_form``) states a problem as programs, and
each backend knows how to run one. A search over a form may run several.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from subsetopt.solvers.mip.constraint_rows import Choice, Frame, Row
from subsetopt.status import StopReason

__all__ = ["Answer", "Form", "Kind", "Links", "Program", "Run", "stacked"]

# What a backend's tuning goes by: one dense row of losses or scores, the same row as a band that
# only has to be met, one dense row of large numbers per dimension, or sparse rows of ones.
Kind = Literal["scalar", "band", "dense", "sparse"]

# Gurobi's bound on the square of a norm may be off by this share of it, and by this much in the
# units of the scaled program, which is far above the tolerances of 1e-9 that are asked for.
_SQUARE_SHARE = 1e-11
_SQUARE_LEAK = 1e-6


@dataclass(frozen=True, eq=False, slots=True)
class Links:
    """Sparse rows ``low <= A @ (z, y) <= high``.

    Attributes
    ----------
    rows, columns, coefficients
        Entries of A, shape (e,), by ascending row.
    low, high
        Ends of the rows, shape (r,); either may be infinite.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    coefficients: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each row begins among the entries, and the end: shape (r + 1,)."""
        return np.searchsorted(self.rows, np.arange(self.low.size + 1))

    @classmethod
    def joined(
        cls,
        columns: list[NDArray[np.int64]],
        coefficients: list[NDArray[np.float64]],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
    ) -> Links:
        """Return rows from lists with the columns and the coefficients of each row."""
        sizes = [row.size for row in columns]
        rows = np.repeat(np.arange(low.size), sizes)
        if not sizes:
            return cls(rows, np.empty(0, dtype=np.int64), np.empty(0), low, high)
        return cls(rows, np.concatenate(columns), np.concatenate(coefficients), low, high)


@dataclass(frozen=True, eq=False, slots=True)
class Program:
    r"""Minimize ``costs @ (z, y)`` over binary z and y within their ends, subject to rows.

    .. math:: \min_{z, y} \; c \cdot (z, y) \quad\text{or}\quad \min_{z, y} \; \|y_{1..p}\|^2

    Attributes
    ----------
    costs, upper
        Costs of all variables, the m binaries first, shape (m + c,), and upper ends of the
        continuous ones, shape (c,).
    rows, links
        Constraints on z alone, and all others.
    start
        A feasible point (z, y), or None.
    gap, goal
        The absolute gap at which a backend may stop, and a value that is as good as the least
        possible one (-inf when there is none), in scaled units.
    scale
        What the values of the form were multiplied by.
    error, leak
        By how much rounding and a backend's tolerances may lift its bound, in units of the form.
    offset
        What the costs leave out, in units of the form.
    squares
        How many of the first y are free, with their sum of squares minimized; 0 if linear.
    switches
        Pairs (position in z, position in y), shape (s, 2): y is 0 where z is.
    """

    costs: NDArray[np.float64]
    upper: NDArray[np.float64]
    rows: tuple[Row, ...]
    links: Links
    start: NDArray[np.float64] | None
    gap: float
    scale: float
    goal: float = -math.inf
    error: float = 0.0
    offset: float = 0.0
    leak: float = 0.0
    squares: int = 0
    switches: NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """The number of binaries."""
        return int(self.costs.size - self.upper.size)

    @property
    def entries(self) -> int:
        """The number of coefficients of rows and links, and of costs on the binaries."""
        in_rows = sum(row.positions.size for row in self.rows)
        return int(in_rows + self.links.columns.size + np.count_nonzero(self.costs[: self.size]))

    def bound(self, native: float) -> float:
        """Return a backend's bound in the units of the form, what it may be off by taken away."""
        if self.squares:
            native = math.sqrt(max(0.0, native * (1.0 - _SQUARE_SHARE) - _SQUARE_LEAK))
        return native / self.scale + self.offset - self.error - self.leak


@dataclass(eq=False, slots=True)
class Form(ABC):
    """A problem as mixed-integer programs.

    Attributes
    ----------
    frame
        Candidates, and the constraints on them.
    precision
        Difference of values that counts as none.
    factor
        What a value is multiplied by to be an objective, or minus one that is maximized.
    """

    frame: Frame
    precision: float
    factor: float

    @property
    def kind(self) -> Kind:
        """Return what the tuning of a backend goes by."""
        return "sparse"

    @property
    def whole_scale(self) -> float:
        """Return the scale at which rounding costs little; 1 where there is nothing to round."""
        return 1.0

    @abstractmethod
    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program.

        Parameters
        ----------
        scale
            What all values are multiplied by.
        start
            A choice to begin with, a bool per candidate; None is none.
        whole
            Whether all numbers are to be whole.
        """

    def refine(self, choices: list[Choice]) -> bool:
        """Sharpen what the program says of some choices; False where it is exact already."""
        return False

    @property
    def alternative(self) -> Form | None:
        """Return the form to go on with where a backend's numbers cannot prove this one."""
        return None


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What a backend made of a program.

    Attributes
    ----------
    choices
        Subsets it found, a bool per binary, the best by its own account first.
    bound
        Lower bound in the units of the form; -inf without.
    word, reason
        The native status, and what it means.
    iterations, began
        Its work, and the seconds from the start of the deadline to that of its search.
    """

    choices: list[Choice]
    bound: float
    word: str
    reason: StopReason
    iterations: int
    began: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the run came to its own end; TARGET is by the program's value, not yet ours."""
        return self.reason in (StopReason.COMPLETED, StopReason.TARGET)

    @property
    def infeasible(self) -> bool:
        """Whether the program was proved to have no point."""
        return self.word == "INFEASIBLE"

    @classmethod
    def none(cls, word: str = "not called", reason: StopReason = StopReason.TIME) -> Answer:
        """Return the answer of a backend that did nothing; by default there was no time for it."""
        return cls([], -math.inf, word, reason, 0)


# A backend that is ready to run programs: it is given a form, a choice to begin with or None, the
# work done by the runs before (to be taken off the limit), and the number of those runs, which
# makes seeds differ.
Run = Callable[[Form, "Choice | None", int, int], Answer]


def stacked(frame_rows: tuple[Row, ...], links: Links) -> Links:
    """Return the rows on z alone and the links as one matrix."""
    sizes = [row.positions.size for row in frame_rows]
    scaled = [
        np.ones(row.positions.size) if row.coefficients is None else row.coefficients / row.unit
        for row in frame_rows
    ]
    return Links(
        np.concatenate([np.repeat(np.arange(len(sizes)), sizes), links.rows + len(sizes)]),
        np.concatenate([*(row.positions for row in frame_rows), links.columns]),
        np.concatenate([*scaled, links.coefficients]),
        np.concatenate([[row.low / row.unit for row in frame_rows], links.low]),
        np.concatenate([[row.high / row.unit for row in frame_rows], links.high]),
    )
