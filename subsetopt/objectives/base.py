"""What every objective has."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Objective", "Sense"]

Sense = Literal["minimize", "maximize"]


class Objective(ABC):
    """A number for every weighted subset of ``n`` candidates.

    Attributes
    ----------
    sense
        Whether the number is minimized or maximized.
    n
        Number of candidates.
    scale
        What a gap is divided by to be relative, in units of the objective; None stands for the
        bound itself.
    tolerance
        The difference of two objectives that counts as none, in units of the objective.
    trivial_bound
        A bound that needs no work.
    provable
        Whether a subset can be optimal at all; a random draw cannot.
    repeats
        Whether a candidate may be chosen more than once.
    restricts
        Whether the objective itself makes subsets infeasible, see :meth:`violations`.
    at_most
        Whether fewer than k are always allowed, whatever the problem's cardinality says.
    """

    __slots__ = ()

    sense: ClassVar[Sense] = "minimize"
    provable: ClassVar[bool] = True
    at_most: bool = False
    repeats: bool = False
    restricts: ClassVar[bool] = False
    n: int
    scale: float | None
    tolerance: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the names under which a solver's row may list it, the narrowest first."""
        return _class_names(type(self))

    @property
    def trivial_bound(self) -> float:
        """Return a bound that needs no work: 0 for a distance, an infinity otherwise."""
        return 0.0 if self.sense == "minimize" else math.inf

    def centered(self) -> Objective:
        """Return an objective of the same value for every k samples, in numbers nearer to 0.

        It is the objective itself where there is no other. Solvers work on it, because sums of
        large numbers that are near each other lose the digits that tell them apart.
        """
        return self

    def for_fewer(self) -> Objective:
        """Return the objective for problems in which fewer than k may be chosen.

        Its tolerance is a share of the numbers' magnitude: where a constant is added to all
        numbers, the values of fewer than k samples change, unlike those of k samples.
        """
        return self

    def size_problem(self, k: int) -> str | None:
        """Return why no subset of this objective has size k, or None."""
        return None

    def weights_for(self, indices: NDArray[np.int64], k: int) -> NDArray[np.float64] | None:
        """Return the training weights of a subset; None where the solver chooses them, too."""
        return np.full(indices.size, 1.0 / k if k else 0.0)

    def fit(self, indices: NDArray[np.int64], k: int) -> tuple[NDArray[np.float64], float]:
        """Return the weights of a subset, and a bound on its objective under any weights.

        The bound is the objective itself where the weights are given, not found by a fit.
        """
        weights = self.weights_for(indices, k)
        assert weights is not None
        return weights, self.evaluate(indices, weights)

    def weight_problem(
        self, indices: NDArray[np.int64], weights: NDArray[np.float64], k: int
    ) -> str | None:
        """Return what is wrong with the weights of a subset, or None."""
        own = self.weights_for(indices, k)
        if own is not None and not np.allclose(own, weights, rtol=1e-12, atol=0.0):
            return "weights are not the objective's own"
        return None

    def infeasibility(self, k: int) -> str | None:
        """Return why the objective's own constraints leave no subset of size k, or None.

        It is asked only where the objective ``restricts``, and tells only what needs no search.
        """
        return None

    def violations(self, indices: NDArray[np.int64], k: int) -> list[str]:
        """Return every way in which a subset breaks the objective's own constraints, in words."""
        return []

    def clearly_allows(self, indices: NDArray[np.int64], k: int) -> bool:
        """Whether a subset keeps the objective's own constraints by more than their rounding.

        Only such a subset refutes a solver's proof.
        """
        return not self.violations(indices, k)

    def evaluation_time(self, size: int, clock: Callable[[], float]) -> float:
        """Return the seconds to keep back for one evaluation of a subset, under a time limit.

        Parameters
        ----------
        size
            Size of the subset.
        clock
            Monotonic clock in seconds.

        Returns
        -------
        float
            About how long it takes; 0 where that is nothing to speak of.
        """
        return 0.0

    @abstractmethod
    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return the objective of a weighted subset in float64."""


@cache
def _class_names(kind: type) -> tuple[str, ...]:
    """Return the names of a class and its bases, the narrowest first."""
    return tuple(base.__name__ for base in kind.__mro__)
