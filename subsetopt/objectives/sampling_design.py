"""Sampling designs: random subsets with prescribed inclusion probabilities, and their weights."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import DECIDED, as_array, as_carray, as_finite_vector, checked_flag
from subsetopt.objectives.base import Objective

__all__ = ["SamplingDesign"]

# The error of a sum of probabilities that is accepted, per candidate drawn, because they may be in
# single precision.
_SUM_SLACK = 1e-6


class SamplingDesign(Objective):
    r"""Draw k samples at random, with weights that make every weighted sum unbiased.

    Without replacement, candidate i is in the sample S with probability :math:`\pi_i`, and its
    Horvitz-Thompson weight is :math:`w_i = 1 / (n \pi_i)`; with replacement, each of k draws takes
    i with probability :math:`p_i`, and every time with weight :math:`w_i = 1 / (n p_i k)`. Then

    .. math:: \mathbb E \sum_{i \in S} w_i l_i = \frac 1 n \sum_i l_i
              \quad \text{for every } l, \qquad
              \text{objective} = \max_j
              \frac{\bigl| \sum_{i \in S} w_i x_{ij} - \frac1n \sum_i x_{ij} \bigr|}
                   {\frac1n \sum_i |x_{ij}|}

    for balancing variables x; the smaller the objective, the less is left to chance.

    Parameters
    ----------
    inclusion
        Without replacement, the inclusion probabilities, shape (n,), in [0, 1], summing to the k
        of the problem (within 1e-6 k): see :func:`~subsetopt.inclusion_probabilities`. With
        replacement, draw probabilities (summing to 1) or expected counts (summing to k), at least
        0. A float64 array that can be written to is kept without a copy.
    balance
        Balancing variables, shape (n,) or (n, p), finite, the most important first. The size is
        always balanced and need not be named. None balances nothing else.
    replacement
        Whether a candidate may be drawn more than once.

    Raises
    ------
    ProblemError
        If an argument is malformed, or the probabilities lie outside their range. A Problem raises
        it, too, when its k is not the sum of the probabilities.

    Notes
    -----
    A deviation is relative to the total of the variable's magnitudes, which is the total itself
    where all values have one sign, and is not near 0 where they cancel. The deviation of a variable
    that is 0 throughout is 0, and so is the objective without balance.

    A draw is never optimal: the status is FEASIBLE. A warm start is returned when no time is left
    to draw, and otherwise ignored, because preferring it would change the probabilities. Include
    and exclude are probabilities of 1 and 0 (within 1e-12). No other candidate stands for one of
    probability 0, so that totals miss its share. Constraints are refused.

    References
    ----------
    Horvitz & Thompson, JASA 1952; Hansen & Hurwitz, Ann. Math. Stat. 1943; Deville & Tille,
    Efficient balanced sampling: the cube method, Biometrika 2004.

    Examples
    --------
    >>> design = SamplingDesign([0.5, 0.5, 1.0], balance=[2.0, 1.0, 3.0])
    >>> design.weights_for(np.array([0, 2]), 2).round(3)
    array([0.667, 0.333])
    """

    __slots__ = (
        "balance",
        "certain",
        "inclusion",
        "magnitudes",
        "means",
        "n",
        "repeats",
        "scale",
        "tolerance",
    )

    provable: ClassVar[bool] = False
    restricts: ClassVar[bool] = True

    def __init__(
        self, inclusion: ArrayLike, balance: ArrayLike | None = None, replacement: bool = False
    ) -> None:
        self.repeats = checked_flag("replacement", replacement, error=ProblemError)
        self.inclusion, _ = as_finite_vector(inclusion, "inclusion")
        self.n = self.inclusion.size
        _check_range(self.inclusion, self.repeats)
        #: Candidates of probability 1, which are in every draw without replacement.
        self.certain = np.flatnonzero(self.inclusion >= 1.0 - DECIDED)
        #: Balancing variables (n, p), or None; their means and mean magnitudes (p,).
        self.balance = None if balance is None else _matrix(balance, self.n)
        if self.balance is not None:
            self.means, self.magnitudes = _moments(self.balance)
        self.scale = 1.0
        self.tolerance = 1e-9

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the names of its kinds: with or without replacement, and balanced."""
        how = "with_replacement" if self.repeats else "without_replacement"
        balanced = () if self.balance is None else ("SamplingDesign[balanced]",)
        return (f"SamplingDesign[{how}]", *balanced, *super().kinds)

    @property
    def replacement(self) -> bool:
        """Whether a candidate may be drawn more than once."""
        return self.repeats

    def __repr__(self) -> str:
        parts = [f"n={self.n}"]
        if self.balance is not None:
            parts.append(f"balance={self.balance.shape[1]}")
        if self.repeats:
            parts.append("replacement=True")
        return f"SamplingDesign({', '.join(parts)})"

    def size_problem(self, k: int) -> str | None:
        """Return why a sample cannot have k draws, or None."""
        total = float(self.inclusion.sum())
        slack = _SUM_SLACK * max(1, k)
        if abs(total - k) <= slack or (self.repeats and abs(total - 1.0) <= _SUM_SLACK):
            return None
        return (
            f"k = {k}, but inclusion sums to {total:g}; it must sum to k"
            + (" or to 1" if self.repeats else "")
            + ": make it with inclusion_probabilities(scores, k)."
        )

    def infeasibility(self, k: int) -> str | None:
        """Return why no sample of k draws can be drawn, or None."""
        if self.repeats or self.certain.size <= k:
            return None
        return f"{self.certain.size} candidates have inclusion probability 1, k is {k}"

    def violations(self, indices: NDArray[np.int64], k: int) -> list[str]:
        """Return every reason why a subset can never be drawn, in words."""
        broken = []
        never = indices[self.inclusion[indices] <= (0.0 if self.repeats else DECIDED)]
        if never.size:
            broken.append(f"drawn with inclusion probability 0: {never[:5].tolist()}")
        if self.certain.size and not self.repeats:
            drawn = np.zeros(self.n, dtype=np.bool_)
            drawn[indices] = True
            missing = self.certain[~drawn[self.certain]]
            if missing.size:
                broken.append(f"not drawn with inclusion probability 1: {missing[:5].tolist()}")
        return broken

    def weights_for(self, indices: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """Return ``1 / (n pi_i)``, with replacement ``1 / (n p_i k)`` for every draw."""
        with np.errstate(divide="ignore", over="ignore"):
            return 1.0 / self._counts(indices, k)

    def _counts(self, indices: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """Return n times how often each candidate is expected in a draw."""
        counts = self.inclusion[indices]
        if self.repeats and indices.size:
            counts *= k / float(self.inclusion.sum())
        counts *= self.n
        return counts

    def weight_problem(
        self, indices: NDArray[np.int64], weights: NDArray[np.float64], k: int
    ) -> str | None:
        """Return what is wrong with the weights of a draw, or None."""
        # Each weight times its count is 1. With a NaN the comparison is false.
        deviation = weights * self._counts(indices, k)
        deviation -= 1.0
        if indices.size and not float(np.abs(deviation).max()) <= 1e-12:
            return "weights are not those of the design"
        return None

    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return the largest relative deviation of a balance total, or 0.0 without balance."""
        if self.balance is None:
            return 0.0
        deviations = np.abs(weights @ self.balance[indices] - self.means)
        return float((deviations / self.magnitudes).max())


def _check_range(inclusion: NDArray[np.float64], repeats: bool) -> None:
    if not inclusion.size:
        return
    highest = math.inf if repeats else 1.0 + _SUM_SLACK
    at = int(inclusion.argmin() if inclusion.min() < 0.0 else inclusion.argmax())
    if not 0.0 <= inclusion[at] <= highest:
        raise ProblemError(
            f"inclusion must be {'at least 0' if repeats else 'within [0, 1]'}, got "
            f"{inclusion[at]} at position {at}."
        )


def _matrix(balance: ArrayLike, n: int) -> NDArray[np.float64] | None:
    """Return balancing variables as a finite float64 matrix (n, p); None when p is 0."""
    array = as_array(balance, "balance")
    if array.ndim not in (1, 2) or array.shape[0] != n:
        raise ProblemError(
            f"balance must have one row per candidate, shape ({n},) or ({n}, p), got {array.shape}."
        )
    matrix = array[:, None] if array.ndim == 1 else array
    if not matrix.size:
        return None
    for j, column in enumerate(matrix.T):
        as_finite_vector(column, f"column {j} of balance")
    return as_carray(np.asarray(matrix, dtype=np.float64))


def _moments(balance: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the variables' means, and their mean magnitudes, with infinity in place of 0."""
    with np.errstate(over="ignore"):
        magnitudes = np.abs(balance).mean(axis=0)
    if not np.isfinite(magnitudes).all():
        j = int(magnitudes.argmax())
        raise ProblemError(f"the sum of |column {j} of balance| overflows float64; scale it down.")
    magnitudes[magnitudes == 0.0] = np.inf
    return balance.mean(axis=0), magnitudes
