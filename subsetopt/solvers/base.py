"""What a solver is: the protocol, what it is given and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline
from subsetopt.problem import Problem
from subsetopt.seeding import generator_from
from subsetopt.status import StopReason

__all__ = ["RawResult", "RawTable", "SolveContext", "Solver"]


@dataclass(frozen=True, slots=True)
class SolveContext:
    """What a solver is given besides the problem.

    Attributes
    ----------
    deadline
        When to stop by the clock. Look at it between chunks of about 50 microseconds of work.
    entropy
        The seed, as one 64-bit number.
    max_iterations
        When to stop by work, in the solver's own unit; None is the solver's default.
    warm_start
        Indices of a feasible subset, sorted, or None.
    backend_params
        Native parameters of a backend, set last and verbatim.
    """

    deadline: Deadline = field(default_factory=Deadline)
    entropy: int = 0
    max_iterations: int | None = None
    warm_start: NDArray[np.int64] | None = None
    backend_params: Mapping[str, Any] = field(default_factory=dict)

    def generator(self) -> np.random.Generator:
        """Return a fresh NumPy generator for the seed; equal on every call."""
        return generator_from(self.entropy)


@dataclass(slots=True)
class RawResult:
    """What a solver returns; the front door makes a Solution of it.

    Attributes
    ----------
    indices
        The chosen subset, in any order, or None where no subset was found.
    weights
        Training weights aligned with the indices; None takes the objective's own.
    bound
        Proved bound on the optimal objective (from below when minimizing), or None.
    stop_reason
        Why work stopped.
    iterations
        Work done, in the solver's own unit.
    setup_time
        Seconds spent before the search began: building a model, starting an environment.
    infeasible
        Whether the solver proved that no subset satisfies the constraints.
    solver
        Name of the solver that produced the indices; None where it is the one that was called.
    extras
        Further facts: native status, Frank-Wolfe gap.
    """

    indices: NDArray[np.int64] | None
    weights: NDArray[np.float64] | None = None
    bound: float | None = None
    stop_reason: StopReason = StopReason.COMPLETED
    iterations: int = 0
    setup_time: float = 0.0
    infeasible: bool = False
    solver: str | None = None
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class RawTable:
    """What a search of many problems returns, a row for each; the front door judges every row.

    Attributes
    ----------
    indices
        The subsets of all rows, one after the other, ascending in each.
    places
        Where the subset of each row begins, and the end of the last, shape (rows + 1,).
    reached
        Whether the search of a row came to its goal, shape (rows,).
    bounds
        Proved bound on the optimal objective of each row, shape (rows,).
    iterations
        Work done for each row, in the solver's own unit, shape (rows,).
    solver
        Name of the solver that produced the indices.
    """

    indices: NDArray[np.int64]
    places: NDArray[np.int64]
    reached: NDArray[np.bool_]
    bounds: NDArray[np.float64]
    iterations: NDArray[np.int64]
    solver: str


@runtime_checkable
class Solver(Protocol):
    """A frozen dataclass of hyperparameters that can solve problems."""

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return the best subset found within the context's limits."""
