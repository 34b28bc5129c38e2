"""A cap on training weights, and the record of what it took away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError
from subsetopt.policies.parts.sample_scores import check_number

__all__ = ["Clipped", "WeightCap"]


class Clipped(NamedTuple):
    """What a cap took away.

    Attributes
    ----------
    samples
        Chosen samples whose weight was cut.
    weight
        Sum of what was cut from their weights; the weights of a selection sum to 1 on average.
    selections
        Selections looked at.
    """

    samples: int = 0
    weight: float = 0.0
    selections: int = 0


class WeightCap:
    """Cut training weights down to a multiple of the uniform weight 1/k.

    Weights that are cut are not made up for by the others: what is lost is the share of samples
    that the scores call easy.

    Parameters
    ----------
    limit
        Largest weight, in units of 1/k, at least 1; None: no cap.

    Attributes
    ----------
    last, total
        What was cut from the last selection, and from all.

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
        self.limit = None if limit is None else check_number("max_weight", limit, 1.0)
        self.last, self.total = Clipped(), Clipped()

    def __call__(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weights of one selection of k, shape (k,), none above limit / k."""
        k = weights.size
        if self.limit is None or not k:
            capped, cut, lost = weights, 0, 0.0
        else:
            capped = np.minimum(weights, self.limit / k)
            cut = int(np.count_nonzero(capped < weights))
            lost = float((weights - capped).sum())
        self.last = Clipped(cut, lost, 1)
        samples, weight, selections = self.total
        self.total = Clipped(samples + cut, weight + lost, selections + 1)
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
        if set(state) != {"last", "total"}:
            raise OptionError(
                f"the record of a cap on weights holds ['last', 'total'], the state to load "
                f"{sorted(state)}: it was saved by another policy."
            )
        self.last, self.total = Clipped(*state["last"]), Clipped(*state["total"])
