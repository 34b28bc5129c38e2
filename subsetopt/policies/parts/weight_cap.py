"""A cap on training weights, and the record of what it took away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.inputs import checked_number
from subsetopt.policies.parts.saved_state import SavedState
from subsetopt.solution import Solution

__all__ = ["CappedPolicy", "Clipped", "WeightCap"]


class Clipped(NamedTuple):
    """What a cap took away.

    Attributes
    ----------
    samples
        The number of chosen samples whose weight was cut.
    weight
        The sum of what was cut from their weights; the weights of a selection sum to 1 on average.
    selections
        The number of selections looked at.
    """

    samples: int = 0
    weight: float = 0.0
    selections: int = 0


class WeightCap:
    """Cut training weights down to a multiple of the uniform weight 1/k.

    The other weights do not make up for what is cut, so that samples whose scores are small count
    for less than their share.

    Parameters
    ----------
    limit
        The largest weight, in units of 1/k, at least 1; None: no cap.

    Attributes
    ----------
    last, total
        What was cut from the weights of the last selection, and from those of all.

    Raises
    ------
    OptionError
        If the limit is below 1.

    Examples
    --------
    >>> cap = WeightCap(2.0)
    >>> cap(np.array([0.1, 0.2, 1.5, 0.2])), cap.last
    (array([0.1, 0.2, 0.5, 0.2]), Clipped(samples=1, weight=1.0, selections=1))
    """

    __slots__ = ("last", "limit", "total")

    def __init__(self, limit: float | None = None) -> None:
        self.limit = None if limit is None else checked_number("max_weight", limit, 1.0)
        self.last, self.total = Clipped(), Clipped()

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weights of one selection of k, shape (k,), none above limit / k."""
        k = weights.size
        if self.limit is None or not k:
            capped = weights
            self.last = Clipped(selections=1)
        else:
            capped = np.minimum(weights, self.limit / k)
            reduced = int(np.count_nonzero(capped < weights))
            self.last = Clipped(reduced, float((weights - capped).sum()), 1)
        samples, weight, selections = self.total
        self.total = Clipped(samples + self.last.samples, weight + self.last.weight, selections + 1)
        return capped

    def state_dict(self) -> dict[str, Any]:
        """Return the record."""
        return {"last": tuple(self.last), "total": tuple(self.total)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a record.

        Raises
        ------
        OptionError
            If it is none.
        """
        self.take_up(*self.checked(state))

    @staticmethod
    def checked(state: object) -> tuple[Clipped, Clipped]:
        """Return the two parts of a record to load.

        Raises
        ------
        OptionError
            If it is none.
        """
        saved = SavedState("a cap on weights", state, ["last", "total"])
        both = {name: [saved[name]] for name in ("last", "total")}
        rows = SavedState("a cap on weights", both, both)
        last, total = (rows.rows(name, "integer", "number", "integer")[0] for name in both)
        return Clipped(*last), Clipped(*total)

    def take_up(self, last: Clipped, total: Clipped) -> None:
        """Take up a record that was checked."""
        self.last, self.total = last, total


class CappedPolicy:
    """The part that policies with a cap on their weights share; a subclass sets ``_cap``."""

    _cap: WeightCap

    @property
    def clipped(self) -> Clipped:
        """What the cap cut from the weights of all selections."""
        return self._cap.total

    @property
    def last_clipped(self) -> Clipped:
        """What the cap cut from the weights of the last selection."""
        return self._cap.last

    def weigh(self, solution: Solution) -> NDArray[np.float64]:
        """Return the weights to train with: those of the solution, capped."""
        return self._cap(solution.weights)
