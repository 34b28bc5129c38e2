"""Sampling designs: multinomial with replacement, systematic and cube without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.inputs import DECIDED, checked_choice
from subsetopt.kernels.designs import cube as kernel
from subsetopt.kernels.designs.systematic import shuffle, systematic
from subsetopt.objectives.sampling_design import SamplingDesign
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = ["Cube", "Flight", "Multinomial", "Systematic"]

# The number of multiplications between two looks at the clock, which take about 50 microseconds.
_CHUNK = 40_000
# The number of entries of balancing variables that are read between two looks at the clock, which
# takes about a millisecond.
_ENTRIES = 100_000
# The number of units to look at where there is no limit.
_ALL = 1 << 62
# The seconds per candidate that it takes to put the units of a flight in order, without a look at
# the clock.
_SECONDS_PER_UNIT = 3e-7


@dataclass(frozen=True, slots=True)
class Multinomial:
    """Draw k times with replacement; a candidate drawn twice appears twice, with its weight.

    Notes
    -----
    It takes O(n + k log n), and does not look at the balance.

    References
    ----------
    Hansen & Hurwitz, Ann. Math. Stat. 1943; Katharopoulos & Fleuret, Not All Samples Are Created
    Equal, ICML 2018, algorithm 1.
    """

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the draw of the context's seed."""
        design = _design(problem)
        ends = np.cumsum(design.inclusion)
        points = context.generator().random(problem.k) * (ends[-1] if ends.size else 0.0)
        drawn = np.searchsorted(ends, points, side="right")
        if problem.k:
            # A point may be rounded up to the end of the last interval.
            drawn = np.minimum(drawn, np.flatnonzero(design.inclusion)[-1])
        return _answer(problem, drawn)


@dataclass(frozen=True, slots=True)
class Systematic:
    """Lay the probabilities end to end in some order and take equidistant points.

    Parameters
    ----------
    order
        ``"random"``: a uniform permutation; ``"given"``: that of the candidates, which stratifies
        by whatever they are sorted by, but makes many pairs impossible.

    Raises
    ------
    OptionError
        If ``order`` is not ``"random"`` or ``"given"``.

    Notes
    -----
    It takes O(n). The size is exact; the balance is not looked at.

    References
    ----------
    Madow, Ann. Math. Stat. 1949.
    """

    order: Literal["random", "given"] = "random"

    def __post_init__(self) -> None:
        checked_choice("order", self.order, ("random", "given"))

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the draw of the context's seed."""
        pi = _rounded(_design(problem).inclusion)
        rng = np.array([context.entropy], dtype=np.uint64)
        order = np.arange(problem.n)
        if self.order == "random":
            shuffle(order, rng)
        return _answer(problem, _take(pi, order, problem.k, rng))


@dataclass(frozen=True, slots=True)
class Cube:
    """Draw a sample whose weighted totals of the balancing variables are the true ones.

    The flight phase moves the vector of probabilities at random, with no change in expectation, in
    the space where the size and all balance totals stay the same, until at most p + 1 candidates
    are undecided. The landing phase decides those, dropping balancing variables from the last to
    the first, and the size never.

    Parameters
    ----------
    order
        The order in which the flight looks at candidates. ``"closest-last"``: those whose ratios of
        balancing variable to probability are typical come last, so that the landing errs little;
        ``"random"``: a uniform permutation, for more entropy.

    Raises
    ------
    OptionError
        If ``order`` is not one of these two words.

    Notes
    -----
    It takes O(n p^2). One iteration is one candidate looked at. When a limit ends the flight early,
    a systematic draw decides the rest: size and probabilities are right, balance is not. Linearly
    dependent balancing variables do no harm.

    References
    ----------
    Deville & Tille, Efficient balanced sampling: the cube method, Biometrika 2004. Chauvet &
    Tille, A fast algorithm for balanced sampling, Computational Statistics 2006.
    """

    order: Literal["closest-last", "random"] = "closest-last"

    def __post_init__(self) -> None:
        checked_choice("order", self.order, ("closest-last", "random"))

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the draw of the context's seed."""
        design = _design(problem)
        rng = np.array([context.entropy], dtype=np.uint64)
        if context.deadline.remaining() < _SECONDS_PER_UNIT * problem.n:
            drawn = _take(_rounded(design.inclusion), np.arange(problem.n), problem.k, rng)
            return _answer(problem, drawn, StopReason.TIME, 0)
        closest_last = self.order == "closest-last"
        balance = _balance(design)
        if problem.n <= _chunk(1 + balance.shape[1]):
            return _at_once(problem, balance, closest_last, context.max_iterations, rng)
        flight = Flight(design, rng, closest_last=closest_last)
        reason = flight.run(context)
        drawn = flight.finish(problem.k, balanced=reason is StopReason.COMPLETED)
        return _answer(problem, drawn, reason, flight.looked)


def _at_once(
    problem: Problem,
    balance: NDArray[np.float64],
    closest_last: bool,
    limit: int | None,
    rng: NDArray[np.uint64],
) -> RawResult:
    """Return the draw of a flight from one call, because many calls take longer than the work."""
    inclusion = _design(problem).inclusion
    draw: Callable[..., Any] = kernel.draw
    most = _ALL if limit is None else limit
    taken = np.empty(problem.n, dtype=np.bool_)
    looked, ended = draw(inclusion, balance, problem.k, closest_last, most, rng, taken)
    drawn = np.flatnonzero(taken)
    reason = StopReason.COMPLETED if ended else StopReason.ITERATION
    weights = 1.0 / (problem.n * inclusion[drawn])
    return RawResult(drawn, weights, stop_reason=reason, iterations=int(looked))


class Flight:
    """The arrays that the kernel works on, for the undecided units only.

    They are not made by compiled code, which makes arrays by calls of Python: these can end the
    process while an interrupt is pending.

    Attributes
    ----------
    certain
        Candidates that are in every sample.
    units, pi
        Undecided candidates, shape (m,), and their present probabilities.
    order
        A random permutation of the units. A systematic draw lays them out in this order; the flight
        looks at them from its last to its first, unless typical ones come last.
    looked
        The number of units looked at.
    """

    __slots__ = (
        "balance",
        "certain",
        "closest_last",
        "columns",
        "looked",
        "order",
        "pi",
        "rng",
        "state",
        "units",
    )

    def __init__(
        self, design: SamplingDesign, rng: NDArray[np.uint64], *, closest_last: bool
    ) -> None:
        inclusion = design.inclusion
        self.balance, self.closest_last = _balance(design), closest_last
        self.rng, self.looked = rng, 0
        self.certain = design.certain
        self.units = np.flatnonzero((inclusion > DECIDED) & (inclusion < 1.0 - DECIDED))
        self.pi = inclusion[self.units]
        self.order = np.arange(self.units.size)
        shuffle(self.order, rng)
        self.columns = np.empty((self.units.size, 0))
        self.state: tuple[NDArray[Any], ...] = ()

    def run(self, context: SolveContext) -> StopReason:
        """Fly until the end or a limit; return which of them it was."""
        try:
            if not self._prepare(context.deadline):
                return StopReason.TIME
            return self._fly(context)
        except KeyboardInterrupt:
            return StopReason.INTERRUPTED

    def _prepare(self, deadline: Deadline) -> bool:
        """Set up the columns and the state of the kernel; return whether there was time."""
        add_column: Callable[..., bool] = kernel.add_column
        m, p = self.units.size, self.balance.shape[1]
        columns = np.empty((m, 1 + p))
        columns[:, 0] = 1.0
        distances = np.zeros(m)
        rows, entries = 1, 0
        for j in range(p):
            entries += m
            if entries > _ENTRIES:
                if deadline.expired():
                    return False
                entries = 0
            rows += add_column(self.balance, j, self.units, self.pi, columns, rows, distances)
        self.columns = np.ascontiguousarray(columns[:, :rows])
        queue = self.order.copy()
        if self.closest_last:
            # NumPy's sort is much faster than Numba's where there are many units.
            queue = queue[np.argsort(distances[queue], kind="stable")]
        ints = np.zeros(kernel.N_INTS, dtype=np.int64)
        ints[kernel.I_QUEUED] = m
        inverse, basis = np.empty((rows, rows)), np.empty(rows, dtype=np.int64)
        kernel.restart(rows, inverse, basis, ints)
        room = (np.empty(rows), np.empty(rows), np.empty(rows))
        self.state = (queue, inverse, basis, *room, ints)
        return True

    def _fly(self, context: SolveContext) -> StopReason:
        """Decide units until none is left to look at, or until a limit."""
        rows = self.columns.shape[1]
        chunk = _chunk(rows)
        ints = self.state[-1]
        fly: Callable[..., int] = kernel.fly
        while ints[kernel.I_QUEUED]:
            if context.deadline.expired():
                return StopReason.TIME
            if context.max_iterations is not None:
                chunk = min(chunk, context.max_iterations - self.looked)
                if chunk <= 0:
                    return StopReason.ITERATION
            self.looked += fly(self.columns, self.pi, rows, self.state, self.rng, chunk)
        return StopReason.COMPLETED

    def finish(self, k: int, *, balanced: bool) -> NDArray[np.int64]:
        """Return the sample: undecided units are decided by landing, or systematically."""
        size = k - self.certain.size
        if balanced:
            rows = self.columns.shape[1]
            land: Callable[..., None] = kernel.land
            land(self.columns, self.pi, rows, self.state, self.rng, size)
            chosen = np.flatnonzero(self.pi == 1.0)
        else:
            chosen = _take(self.pi, self.order, size, self.rng)
        return np.concatenate([self.certain, self.units[chosen]])


def _design(problem: Problem) -> SamplingDesign:
    assert isinstance(problem.objective, SamplingDesign)
    return problem.objective


def _balance(design: SamplingDesign) -> NDArray[np.float64]:
    """Return the balancing variables as the kernels take them, (n, 0) without any."""
    if design.balance is None:
        return np.empty((design.n, 0))
    return design.balance


def _chunk(rows: int) -> int:
    """Return the units to look at between two looks at the clock."""
    return 1 + _CHUNK // (rows * rows + 40)


def _rounded(inclusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a copy of the probabilities, those near 0 or 1 rounded to it."""
    pi = inclusion.copy()
    pi[inclusion <= DECIDED] = 0.0
    pi[inclusion >= 1.0 - DECIDED] = 1.0
    return pi


def _take(
    pi: NDArray[np.float64], order: NDArray[np.int64], size: int, rng: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return the candidates that a systematic draw takes."""
    taken = np.empty(pi.size, dtype=np.bool_)
    systematic(pi, order, size, rng, taken)
    return np.flatnonzero(taken)


def _answer(
    problem: Problem,
    drawn: NDArray[np.int64],
    reason: StopReason = StopReason.COMPLETED,
    iterations: int = 1,
) -> RawResult:
    """Return a draw with its weights; ``solve`` checks both."""
    indices = np.sort(drawn)
    weights = problem.objective.weights_for(indices, problem.k)
    return RawResult(indices, weights, stop_reason=reason, iterations=iterations)
