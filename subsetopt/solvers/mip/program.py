"""A mixed-integer program in neutral form, the forms that state one, and what a backend answers.

A form (``linear_form``, ``vector_form`` and ``coverage_form``) states a problem as programs, and
each backend knows how to run one. A search over a form may run several.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.solvers.mip.constraint_rows import Choice, Frame, Rows
from subsetopt.status import StopReason

__all__ = [
    "GAP",
    "LEAK",
    "NOT_CALLED",
    "STOP_AT",
    "Answer",
    "Form",
    "Limits",
    "Program",
    "Run",
]

# What a backend's tuning goes by: one dense row of losses or scores, one dense row of large numbers
# per dimension, or sparse rows of ones.
Kind = Literal["scalar", "dense", "sparse"]

# GAP is the share of the tolerance at which a backend of floats may stop, LEAK the share that is
# taken off its bound for its own tolerances. Both together are below 1, so that its proof survives
# our judgment.
GAP = 0.5
LEAK = 0.25
# Share of the tolerance at which a value is as good as 0; the rest is for rounding.
STOP_AT = 0.95
# The least precision asked of a backend, relative to mean|l|: the resolution of float64 sums.
_FINEST = 1e-14
# The word for the native status of a backend that there was no time to call.
NOT_CALLED = "not called"
# Gurobi's bound on the square of a norm may be off by this share of it, and by this much in the
# units of the scaled program, which is far above the tolerances of 1e-9 that are asked for.
_SQUARE_SHARE = 1e-11
_SQUARE_LEAK = 1e-6


@dataclass(frozen=True, eq=False, slots=True)
class Program:
    r"""Minimize a sum of costs over binary z and y within their ends, subject to rows.

    .. math:: \min_{z, y} \; c \cdot (z, y) \quad\text{or}\quad \min_{z, y} \; \|y_{1..p}\|^2

    Attributes
    ----------
    costs, upper
        Costs of all variables, the m binaries first, shape (m + c,), and upper ends of the
        continuous ones, shape (c,).
    rows
        The constraints.
    start
        A feasible point (z, y), or None.
    gap, goal
        The absolute gap at which a backend may stop, and a value that is as good as the least
        possible one (-inf when there is none), in scaled units.
    scale
        What the values of the form were multiplied by.
    slack
        By how much rounding or a backend's tolerances may lift its bound, in units of the form.
    offset
        What the costs leave out, in units of the form.
    squares
        How many of the first y are free, with their sum of squares minimized; 0 if linear.
    switches
        Pairs (position in z, position in y), shape (s, 2): y is 0 where z is.
    """

    costs: NDArray[np.float64]
    upper: NDArray[np.float64]
    rows: Rows
    start: NDArray[np.float64] | None
    gap: float
    scale: float
    goal: float = -math.inf
    slack: float = 0.0
    offset: float = 0.0
    squares: int = 0
    switches: NDArray[np.int64] | None = None

    @property
    def size(self) -> int:
        """The number of binaries."""
        return int(self.costs.size - self.upper.size)

    @property
    def entries(self) -> int:
        """The number of coefficients of rows, and of costs on the binaries."""
        return int(self.rows.columns.size + np.count_nonzero(self.costs[: self.size]))

    def bound(self, native: float) -> float:
        """Return a backend's bound in the units of the form, what it may be off by taken away."""
        if self.squares:
            native = math.sqrt(max(0.0, native * (1.0 - _SQUARE_SHARE) - _SQUARE_LEAK))
        return native / self.scale + self.offset - self.slack


@dataclass(eq=False, slots=True)
class Form(ABC):
    """A problem as mixed-integer programs.

    Attributes
    ----------
    kind
        What the tuning of a backend goes by.
    frame
        Candidates, and the constraints on them.
    precision
        Difference of values that counts as none, at least what float64 resolves.
    factor
        What a value is multiplied by to be an objective, or minus one that is maximized.
    floor
        A lower bound on the objective, or minus one that is maximized, that the answers so far
        prove together; -inf without.
    start
        A feasible subset that was found while the problem was stated, or None.
    """

    kind: ClassVar[Kind] = "sparse"
    frame: Frame
    precision: float
    factor: float
    floor: float = field(default=-math.inf, kw_only=True)
    start: NDArray[np.int64] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.precision = max(self.precision, _FINEST)

    @property
    def whole_scale(self) -> float:
        """Return the scale at which rounding costs little; 1 where there is nothing to round."""
        return 1.0

    @abstractmethod
    def program(self, scale: float, start: Choice | None, *, whole: bool = False) -> Program:
        """Return the program of values times a scale, in ``whole`` numbers or not.

        It begins with the choice ``start``, where that is not None.
        """

    def refine(self, answer: Answer, best: Choice | None) -> Form | None:
        """Return the form to go on with after an answer, given the best choice so far, or None.

        It may be this one, sharpened: every choice found is then valued rightly.
        """
        return None


@dataclass(frozen=True, eq=False, slots=True)
class Answer:
    """What a backend made of a program."""

    choices: list[Choice]  #: subsets it found, the best by its own account first
    bound: float  #: lower bound in the units of the form; -inf without
    word: str  #: the native status
    reason: StopReason  #: what the native status means
    iterations: int = 0  #: nodes or conflicts
    work: float = 0.0  #: deterministic work in the backend's unit; 0 where it counts none
    began: float = 0.0  #: seconds from the start of the deadline to that of the backend's search

    @property
    def ended(self) -> bool:
        """Whether the run came to its own end; TARGET is by the program's value, not yet ours."""
        return self.reason in (StopReason.COMPLETED, StopReason.TARGET)

    @property
    def infeasible(self) -> bool:
        """Whether the program was proved to have no point."""
        return self.word == "INFEASIBLE"

    @classmethod
    def none(cls, word: str = NOT_CALLED, reason: StopReason = StopReason.TIME) -> Answer:
        """Return the answer of a backend that did nothing; by default there was no time for it."""
        return cls([], -math.inf, word, reason)


class Limits(NamedTuple):
    """What limits a run besides the clock: nodes or conflicts, and work; None is no limit."""

    iterations: int | None = None
    work: float | None = None

    def less(self, iterations: int, work: float) -> Limits:
        """Return what is left after runs that did so much."""
        return Limits(
            None if self.iterations is None else max(0, self.iterations - iterations),
            None if self.work is None else max(0.0, self.work - work),
        )


# A backend that is ready to run programs: it is given a form, a choice to begin with or None, what
# the runs before have left of the limits, and the number of those runs, which makes seeds differ.
Run = Callable[[Form, "Choice | None", Limits, int], Answer]
