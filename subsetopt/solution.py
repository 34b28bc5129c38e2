"""The answer: the chosen subset, how good it is, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import InfeasibleError, NoSolutionError
from subsetopt.status import Status, StopReason

__all__ = ["Solution", "Solutions"]

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False, slots=True)
class Solution:
    """A chosen subset and its certificate.

    Attributes
    ----------
    indices
        Chosen candidates, int64, sorted; empty without a solution.
    weights
        Training weight of each index, float64, aligned with ``indices``: the loss to train on is
        ``sum_i w_i l_i``.
    n
        Number of candidates.
    objective
        Objective of the subset, recomputed in float64; nan without a solution.
    bound
        Proved bound on the optimum (from below when minimizing); an infinity or 0 when nothing
        better is known.
    status, stop_reason
        What is known of the answer, and why work stopped.
    solver
        Name of the solver that produced the indices.
    setup_time, solve_time
        Seconds before the search, and from call to return in all.
    iterations
        Work done, in the solver's own unit.
    scale
        What ``relative_gap`` is measured in: mean|l| for matching; None takes
        ``max(|bound|, tiny)``.
    extras
        Further facts: ``why`` (infeasible), ``native_status``, ``fallbacks``, ``fw_gap``.
    """

    indices: NDArray[np.int64]
    weights: NDArray[np.float64]
    n: int
    objective: float
    bound: float
    status: Status
    stop_reason: StopReason
    solver: str
    setup_time: float = 0.0
    solve_time: float = 0.0
    iterations: int = 0
    scale: float | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def has_solution(self) -> bool:
        """Whether there is a feasible subset to use."""
        return self.status is Status.OPTIMAL or self.status is Status.FEASIBLE

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The choice as a bool mask of shape (n,)."""
        mask = np.zeros(self.n, dtype=np.bool_)
        mask[self.indices] = True
        return mask

    @property
    def gap(self) -> float:
        """``|objective - bound|``; nan without a solution."""
        return abs(self.objective - self.bound)

    @property
    def relative_gap(self) -> float:
        """The gap over mean|l| for matching, over ``max(|bound|, tiny)`` otherwise."""
        gap = self.gap
        if self.scale is not None:
            return gap / self.scale if self.scale > 0.0 else (0.0 if gap == 0.0 else math.inf)
        if math.isinf(self.bound):
            return math.inf
        return gap / max(abs(self.bound), _TINY)

    def require(self) -> Solution:
        """Return self when there is a subset to use, and raise otherwise.

        Raises
        ------
        InfeasibleError
            If the constraints were proved to clash.
        NoSolutionError
            If no subset was found for another reason.
        """
        if self.has_solution:
            return self
        if self.status is Status.INFEASIBLE:
            why = self.extras.get("why")
            raise InfeasibleError(f"{self.status.value}" + (f" Here {why}." if why else ""))
        detail = self.extras.get("error") or self.stop_reason.value
        raise NoSolutionError(f"{self.status.value} ({self.solver}: {detail})")


class Solutions(Sequence[Solution]):
    """The answers of many solves, in order; each is made when it is first looked at.

    Parameters
    ----------
    answers
        The answers; None for one that is still to be made.
    make
        Makes the answer at a position. Not needed where there is no None.

    Examples
    --------
    >>> import subsetopt as so
    >>> answers = so.select_many([[1.0, 2.0, 3.0], [5.0, 5.0]], 1, seed=0)
    >>> len(answers), answers[1].objective
    (2, 0.0)
    """

    def __init__(
        self, answers: list[Solution | None], make: Callable[[int], Solution] | None = None
    ) -> None:
        self._answers = answers
        self._make = make

    def __len__(self) -> int:
        return len(self._answers)

    @overload
    def __getitem__(self, index: int) -> Solution: ...

    @overload
    def __getitem__(self, index: slice) -> list[Solution]: ...

    def __getitem__(self, index: int | slice) -> Solution | list[Solution]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        answer = self._answers[index]
        if answer is None:
            assert self._make is not None
            answer = self._answers[index] = self._make(range(len(self))[index])
        return answer

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[type[Solutions], tuple[list[Solution]]]:
        """Make every answer, so that the copy needs nothing to make one."""
        return Solutions, (list(self),)

    def __repr__(self) -> str:
        return f"Solutions(n={len(self)})"
