"""The answer: the chosen subset, how good it is, and what is known of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import InfeasibleError, NoSolutionError, ProblemError
from subsetopt.status import Status, StopReason

__all__ = ["Solution", "Solutions"]

_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, eq=False, slots=True, repr=False)
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

    def __repr__(self) -> str:
        return (
            f"Solution({self.status.name}, {self.indices.size} of {self.n}, "
            f"objective={self.objective:.6g}, bound={self.bound:.6g}, solver={self.solver!r})"
        )

    def __str__(self) -> str:
        lines = {
            "status": f"{self.status.name}: {self.status.value}",
            "chosen": f"{self.indices.size} of {self.n}",
            "objective": f"{self.objective:.6g}",
            "bound": f"{self.bound:.6g} (gap {self.gap:.3g}, relative {self.relative_gap:.3g})",
            "solver": f"{self.solver}, {self.iterations:,} iterations",
            "stopped": f"{self.stop_reason.name}: {self.stop_reason.value}",
            "time": f"{self.solve_time * 1e3:.3f} ms, {self.setup_time * 1e3:.3f} of them set-up",
        }
        if not self.has_solution:
            for name in ("chosen", "objective", "bound"):
                del lines[name]
        for name in ("why", "error"):
            if name in self.extras:
                lines[name] = str(self.extras[name])
        for name, why in self.extras.get("fallbacks", []):
            lines[f"not {name}"] = str(why)
        if self.has_solution:
            lines["indices"] = _shortened(self.indices.tolist())
            weights = [f"{weight:.4g}" for weight in self.weights.tolist()]
            equal = len(set(weights)) == 1
            lines["weights"] = f"{weights[0]} each" if equal else _shortened(weights)
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {fact}" for name, fact in lines.items())

    def to_dict(self) -> dict[str, Any]:
        """Return the solution as a dict that JSON can hold, see :meth:`from_dict`.

        Status and stop reason are their names. Numbers that are not finite, which JSON does not
        have, are the words ``"nan"``, ``"inf"`` and ``"-inf"``. What is no number, text, list or
        dict in the extras becomes text.

        Examples
        --------
        >>> import subsetopt as so
        >>> so.select([3.0, 1.0, 2.0], k=1, seed=0).to_dict()["status"]
        'OPTIMAL'
        """
        record = {item.name: _as_plain(getattr(self, item.name)) for item in fields(self)}
        return {**record, "status": self.status.name, "stop_reason": self.stop_reason.name}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Solution:
        """Return the solution that a dict of :meth:`to_dict` stands for.

        Parameters
        ----------
        record
            The dict, also after a way through JSON.

        Raises
        ------
        ProblemError
            If a field is missing, unknown or malformed.

        Notes
        -----
        Nothing is recomputed: what comes from elsewhere is checked by :func:`subsetopt.verify`.
        """
        names = [item.name for item in fields(cls)]
        if not isinstance(record, Mapping) or set(record) != set(names):
            got = ", ".join(map(str, record)) if isinstance(record, Mapping) else repr(record)
            raise ProblemError(f"a solution has the fields {', '.join(names)}; got {got}.")
        try:
            extras = dict(record["extras"])
            if "fallbacks" in extras:
                extras["fallbacks"] = [(name, why) for name, why in extras["fallbacks"]]
            indices = np.array(record["indices"], dtype=np.int64).reshape(-1)
            weights = np.array([float(weight) for weight in record["weights"]])
            scale = record["scale"]
            solution = cls(
                indices,
                weights,
                int(record["n"]),
                float(record["objective"]),
                float(record["bound"]),
                Status[record["status"]],
                StopReason[record["stop_reason"]],
                str(record["solver"]),
                float(record["setup_time"]),
                float(record["solve_time"]),
                int(record["iterations"]),
                None if scale is None else float(scale),
                extras,
            )
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ProblemError(f"the record is no solution: {error}.") from None
        if indices.shape != weights.shape:
            raise ProblemError(f"the record has {weights.size} weights for {indices.size} indices.")
        return solution

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


# How many indices and weights are printed: the first ones and, after a gap, the last.
_SHOWN = 16
_SHOWN_LAST = 3


def _shortened(values: list[Any]) -> str:
    """Return the values in a line, with a gap where there are many."""
    words = [str(value) for value in values]
    if len(words) > _SHOWN + _SHOWN_LAST:
        words = [*words[:_SHOWN], "...", *words[-_SHOWN_LAST:]]
    return " ".join(words)


def _as_plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return _as_plain(value.tolist())
    if isinstance(value, np.generic):
        return _as_plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _as_plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_plain(item) for item in value]
    return str(value)


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
