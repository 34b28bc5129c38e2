"""The problem: an objective, a size and the constraints a selection must satisfy."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.constraints.labels import as_labels
from subsetopt.constraints.normal_form import Constraints
from subsetopt.constraints.quotas import GroupQuotas
from subsetopt.errors import ProblemError
from subsetopt.inputs import (
    as_array,
    as_finite_vector,
    as_float,
    checked_choice,
    is_integer,
    is_number,
)
from subsetopt.objectives import Objective

__all__ = ["Cardinality", "Problem", "Quotas", "as_index_array", "size_from_rate"]

Cardinality = Literal["exact", "at_most"]
Quotas = Mapping[Any, int | tuple[int, int]]

_PLAIN: frozenset[str] = frozenset()
_AT_MOST = frozenset({"at_most"})


class Problem:
    """Choose k of n candidates, best for an objective, subject to constraints.

    Parameters
    ----------
    objective
        What to optimize, for example ``MeanMatching(losses)``; it fixes n.
    k
        Number of candidates to choose, 0 <= k <= n; of draws, where they are with replacement.
    cardinality
        ``"exact"``: exactly k; ``"at_most"``: k or fewer (the divisor of a mean stays k).
    include, exclude
        Candidates that must, or must not, be chosen: indices, or a bool mask of shape (n,); None
        names none.
    groups
        Group label of every candidate, shape (n,); None without quotas.
    quotas
        ``{label: count}`` or ``{label: (low, high)}``, both ends inclusive. Labels not named are
        free; None frees all. A key that no label equals has no candidates; one that no label can
        equal, or that seems misspelt, is an error. Needs ``groups``.
    costs
        Cost of every candidate, shape (n,), at least 0 (tokens, seconds); None without a capacity.
    capacity
        Largest total cost of the chosen candidates, in units of the costs; None and infinity set no
        limit. Exact for integers and decimals, widened by 1e-12 of itself for numbers of more
        digits. Needs ``costs``.

    Raises
    ------
    ProblemError
        If an argument is malformed or contradicts another. Constraints that are well formed but
        cannot all hold are not an error: solving ends with ``Status.INFEASIBLE``.

    Examples
    --------
    >>> from subsetopt import MeanMatching
    >>> Problem(MeanMatching([1.0, 2.0, 3.0]), k=2, include=[0])
    Problem(MeanMatching(n=3, target=2.0), k=2, include=1)
    """

    #: The form of the problem that one solver has prepared, for the next one to find. The module
    #: that defines the form writes it and knows its type: ``solvers/matching/pool.py``.
    prepared: object | None = None
    _twin: Problem | None = None

    def __init__(
        self,
        objective: Objective,
        k: int,
        cardinality: Cardinality = "exact",
        include: ArrayLike | None = None,
        exclude: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        quotas: Quotas | None = None,
        costs: ArrayLike | None = None,
        capacity: float | None = None,
    ) -> None:
        if not isinstance(objective, Objective):
            raise ProblemError(
                f"objective must be an objective such as MeanMatching(losses), got "
                f"{type(objective).__name__}."
            )
        if not isinstance(cardinality, str) or cardinality != "exact":
            checked_choice("cardinality", cardinality, ("exact", "at_most"), error=ProblemError)
            objective = objective.for_fewer()
        self.objective = objective
        self.n = n = objective.n
        self.k = _checked_size(k, n, objective.repeats)
        if (size_problem := objective.size_problem(self.k)) is not None:
            raise ProblemError(size_problem)
        self.cardinality: Cardinality = "at_most" if objective.at_most else cardinality
        self.include = as_index_array(include, n, "include")
        self.exclude = as_index_array(exclude, n, "exclude")
        self.groups, self.quotas = _checked_groups(groups, quotas, n)
        self._by_group: GroupQuotas | None = None
        if self.groups is not None and self.quotas is not None:
            self._by_group = GroupQuotas.of(self.groups, self.quotas)
        #: The costs in their own dtype, and the capacity as an int or a float.
        self.costs, self.capacity = _checked_costs(costs, capacity, n)
        #: Whether there is any constraint besides the size.
        self.constrained = not (
            self.include is None
            and self.exclude is None
            and self.quotas is None
            and self.costs is None
        )
        #: The features a solver must have to take this problem.
        self.features = self._features()
        if self.include is not None and self.exclude is not None:
            both = np.intersect1d(self.include, self.exclude)
            if both.size:
                raise ProblemError(
                    f"include and exclude both name {both[:5].tolist()}; each candidate can be in "
                    "one of them only."
                )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the prepared forms, several times the problem's size, which are made again."""
        again = ("prepared", "_twin")
        return {name: value for name, value in self.__dict__.items() if name not in again}

    def _features(self) -> frozenset[str]:
        """Return the features a solver must have to take this problem."""
        if not self.constrained:
            return _AT_MOST if self.cardinality == "at_most" else _PLAIN
        used = {
            "include": self.include is not None,
            "exclude": self.exclude is not None,
            "quotas": self.quotas is not None,
            "capacity": self.costs is not None,
            "at_most": self.cardinality == "at_most",
        }
        return frozenset(name for name, present in used.items() if present)

    @property
    def centered(self) -> Problem:
        """The problem as solvers are given it: the same objective in numbers nearer to 0.

        The problem itself where fewer than k are allowed, or where the numbers are not all large
        and near each other.
        """
        if self._twin is not None:
            return self._twin
        objective = self.objective.centered()
        if objective is self.objective:
            return self
        twin = copy.copy(self)
        twin.objective, twin.prepared = objective, None
        if self.constrained:
            twin.__dict__["constraints"] = self.constraints
        self._twin = twin
        return twin

    @cached_property
    def constraints(self) -> Constraints:
        """The constraints in the normal form that solvers work with."""
        return Constraints.normalize(
            self.n,
            self.k,
            at_most=self.cardinality == "at_most",
            include=self.include,
            exclude=self.exclude,
            quotas=self._by_group,
            costs=self.costs,
            capacity=self.capacity,
        )

    def __repr__(self) -> str:
        parts = [repr(self.objective), f"k={self.k}"]
        if self.cardinality != "exact":
            parts.append(f"cardinality={self.cardinality!r}")
        parts += [
            f"{name}={a.size}"
            for name in ("include", "exclude")
            if (a := getattr(self, name)) is not None
        ]
        if self.quotas is not None:
            parts.append(f"quotas={dict(self.quotas)!r}")
        if self.capacity is not None:
            parts.append(f"capacity={self.capacity!r}")
        return f"Problem({', '.join(parts)})"


def size_from_rate(n: int, rate: float) -> int:
    """Return ``min(n, max(1, floor(rate * n + 0.5)))``, and 0 when the rate or n is 0.

    Raises
    ------
    ProblemError
        If the rate is not within [0, 1].
    """
    try:
        value = as_float(rate)
    except (TypeError, ValueError):
        raise ProblemError(f"rate must be a number in [0, 1], got {rate!r}.") from None
    if not 0.0 <= value <= 1.0:
        raise ProblemError(f"rate must be in [0, 1], got {rate!r}; for a count use k.")
    if value == 0.0 or n == 0:
        return 0
    return min(n, max(1, math.floor(value * n + 0.5)))


def as_index_array(value: ArrayLike | None, n: int, name: str) -> NDArray[np.int64] | None:
    """Return sorted unique indices for indices or a bool mask; None for None or nothing named."""
    if value is None:
        return None
    array = as_array(value, name)
    if array.ndim != 1:
        raise ProblemError(
            f"{name} must be indices or a bool mask of shape ({n},), got shape {array.shape}."
        )
    if array.size == 0:
        return None
    if array.dtype == np.bool_:
        if array.size != n:
            raise ProblemError(f"{name} is a bool mask of shape ({array.size},), expected ({n},).")
        chosen = np.flatnonzero(array)
        return chosen if chosen.size else None
    if array.dtype.kind not in "iu":
        raise ProblemError(
            f"{name} must be integer indices or a bool mask, got dtype {array.dtype}."
        )
    indices = np.unique(array.astype(np.int64))
    if indices[0] < 0 or indices[-1] >= n:
        outside = indices[0] if indices[0] < 0 else indices[-1]
        raise ProblemError(f"{name} names candidate {outside}; valid indices are 0 to {n - 1}.")
    return indices


def _checked_size(k: object, n: int, repeats: bool) -> int:
    if not is_integer(k):
        raise ProblemError(f"k must be an integer, got {k!r}; for a fraction use rate.")
    if repeats and n and k > n:
        return int(k)
    if not 0 <= k <= n:
        raise ProblemError(
            f"k = {k} is not possible with n = {n} candidates; pass k between 0 and {n}."
        )
    return int(k)


def _checked_groups(
    groups: ArrayLike | None, quotas: Quotas | None, n: int
) -> tuple[NDArray[Any] | None, dict[Any, tuple[int, int]] | None]:
    if quotas is not None and groups is None:
        raise ProblemError("quotas need groups: pass groups=labels, one label per candidate.")
    if groups is None:
        return None, None
    labels = as_labels(as_array(groups, "groups"), groups)
    if labels.shape != (n,):
        raise ProblemError(
            f"groups must hold one label per candidate, shape ({n},), got {labels.shape}."
        )
    if quotas is None:
        return labels, None
    if not callable(getattr(quotas, "items", None)):
        raise ProblemError(
            f"quotas must be a mapping {{label: count}} or {{label: (low, high)}}, got {quotas!r}."
        )
    pairs = {_plain(label): _checked_quota(label, quota) for label, quota in quotas.items()}
    return labels, pairs or None


def _plain(label: Any) -> Any:
    """Return a label as one of Python; dates and durations of NumPy stay, which have no other."""
    if isinstance(label, np.generic) and label.dtype.kind not in "mM":
        return label.item()
    return label


def _checked_quota(label: object, quota: object) -> tuple[int, int]:
    pair = quota if isinstance(quota, (tuple, list)) else (quota, quota)
    if len(pair) != 2 or not all(map(is_integer, pair)):
        raise ProblemError(
            f"the quota of group {label!r} must be an int or a pair (low, high) of ints, "
            f"got {quota!r}."
        )
    low, high = int(pair[0]), int(pair[1])
    if not 0 <= low <= high:
        raise ProblemError(
            f"the quota of group {label!r} must satisfy 0 <= low <= high, got ({low}, {high})."
        )
    return low, high


def _checked_costs(
    costs: ArrayLike | None, capacity: float | None, n: int
) -> tuple[NDArray[Any] | None, float | None]:
    if (costs is None) != (capacity is None):
        present, absent = ("capacity", "costs") if costs is None else ("costs", "capacity")
        raise ProblemError(
            f"{present} without {absent}: the two go together, pass both or neither."
        )
    if costs is None or capacity is None:
        return None, None
    vector, dtype = as_finite_vector(costs, "costs")
    if vector.size != n:
        raise ProblemError(f"costs has {vector.size} entries for {n} candidates; pass one each.")
    if n and vector.min() < 0.0:
        at = int(vector.argmin())
        raise ProblemError(f"costs must be at least 0, got {vector[at]} at position {at}.")
    if not is_number(capacity) or capacity != capacity:
        raise ProblemError(f"capacity must be a number, got {capacity!r}.")
    return (vector if dtype.kind == "V" else np.asarray(costs)), _plain_number(capacity)


def _plain_number(number: float) -> float:
    """Return a number as an int or a float of Python, the decimal that it prints as."""
    if is_integer(number):
        return int(number)
    return float(str(number)) if isinstance(number, np.floating) else float(number)
