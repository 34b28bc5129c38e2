"""Inclusion probabilities proportional to scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import as_finite_vector, is_integer

__all__ = ["inclusion_probabilities"]


def inclusion_probabilities(scores: ArrayLike, k: int) -> NDArray[np.float64]:
    r"""Return inclusion probabilities proportional to scores, capped at 1.

    .. math:: \pi_i = \min(1, c\, s_i), \qquad \sum_i \pi_i = k

    Candidates whose share of k exceeds 1 get 1, what is left of k is shared among the rest in
    proportion to the scores, and so on until no share exceeds 1. With fewer than k positive scores
    these get 1, and the zeros share the rest equally.

    Parameters
    ----------
    scores
        Scores, shape (n,), any real dtype, finite, at least 0, in any unit.
    k
        The expected size of the sample, which is its actual size, too; 0 <= k <= n.

    Returns
    -------
    ndarray
        The probabilities, shape (n,), float64, in [0, 1]; they sum to k up to rounding.

    Raises
    ------
    ProblemError
        If the scores are not a finite real vector or one is negative, or k is no integer from 0
        to n.

    Notes
    -----
    It takes O(n log n): sorting finds at once where the capping would end. A candidate of score 0
    beside k or more positive scores is never drawn, which biases any estimate of a total that it
    adds to. Unless that is meant, mix a constant in, as in ``0.8 * s / s.mean() + 0.2``.

    References
    ----------
    Tille, Sampling Algorithms, Springer 2006, section 2.10.

    Examples
    --------
    >>> inclusion_probabilities([6.0, 1.0, 1.0, 2.0], k=2)
    array([1.  , 0.25, 0.25, 0.5 ])
    """
    values, _ = as_finite_vector(scores, "scores")
    n = values.size
    _check(values, k)
    positive = int(np.count_nonzero(values))
    if positive <= k:
        zeros = n - positive
        return np.where(values > 0.0, 1.0, (k - positive) / zeros if zeros else 1.0)
    if k == 0:
        return np.zeros(n)
    ascending = np.sort(values)
    totals = np.cumsum(ascending)
    # A score is not capped where it, times the number of draws that are left for it and all smaller
    # scores, is at most their total. A product of a denormal number is exact, a quotient is not.
    first = n - k
    with np.errstate(over="ignore"):
        claims = ascending[first:] * np.arange(1, k + 1)
    last = first + int(np.flatnonzero(claims <= totals[first:])[-1])
    # A score above that total is capped anyway, and its quotient by a denormal total may overflow.
    inclusion: NDArray[np.float64] = np.minimum(values, totals[last]) / totals[last]
    inclusion *= last - first + 1
    return np.minimum(inclusion, 1.0, out=inclusion)


def _check(values: NDArray[np.float64], k: object) -> None:
    n = values.size
    if not is_integer(k):
        raise ProblemError(f"k must be an integer, got {k!r}.")
    if not 0 <= k <= n:
        raise ProblemError(
            f"k = {k} is not possible with n = {n} scores; pass k between 0 and {n}."
        )
    if n and values.min() < 0.0:
        at = int(values.argmin())
        raise ProblemError(f"scores must be at least 0, got {values[at]} at position {at}.")
