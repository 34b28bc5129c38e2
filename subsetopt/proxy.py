"""Select via Proxy over a data set in memory: from the scores of small models to a selection.

A proxy, which is a small model trained briefly, says how unsure it is of every sample (the scores
of :func:`subsetopt.policies.uncertainty_scores`). The target model is then trained on the samples
chosen here. For a single vector of scores a :class:`~subsetopt.TopScores` problem is enough, with
quotas if wanted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import as_array, is_integer

__all__ = ["alternating_selection", "class_balanced_selection", "rank_combination"]


def rank_combination(scores: ArrayLike) -> NDArray[np.float64]:
    r"""Return the sum of each sample's ranks over several proxies.

    .. math:: s_i = \sum_p \operatorname{rank}_p(i)

    with rank 1 for the smallest score of a proxy and n for the largest.

    Parameters
    ----------
    scores
        One row per proxy, shape (P, n), finite; larger for samples that are more wanted.

    Returns
    -------
    ndarray
        Shape (n,); larger for samples that are more wanted. Only the order of each proxy's scores
        matters.

    Raises
    ------
    ProblemError
        If the scores are not a finite matrix with at least one row.

    Notes
    -----
    Equal scores share the mean of their ranks. The cost is P sorts of n numbers.

    References
    ----------
    Coleman et al., Select via Proxy, sections 3.1 and 4.

    Examples
    --------
    >>> rank_combination([[0.1, 0.9, 0.5], [30.0, 20.0, 20.0]])
    array([4. , 4.5, 3.5])
    """
    total: NDArray[np.float64] = np.sum([_ranks(row) for row in _score_rows(scores)], axis=0)
    return total


def alternating_selection(scores: ArrayLike, k: int) -> NDArray[np.int64]:
    """Let several proxies take turns; each takes its most wanted sample that is still available.

    Parameters
    ----------
    scores
        One row per proxy, shape (P, n), finite; larger for samples that are more wanted. The
        proxy of the first row begins.
    k
        Number of samples to choose, 0 to n.

    Returns
    -------
    ndarray
        Shape (k,), int64, without repeats, in the order in which the samples were taken, so that
        its beginning is the selection of a smaller k.

    Raises
    ------
    ProblemError
        If the scores are not a finite matrix with at least one row, or k is not within 0 to n.

    Notes
    -----
    Among equal scores the lower index is taken. The cost is P sorts, then O(P n) in Python.

    References
    ----------
    Coleman et al., Select via Proxy, sections 3.1 and 4.

    Examples
    --------
    >>> alternating_selection([[0.9, 0.8, 0.1, 0.0], [0.9, 0.2, 0.7, 0.1]], 3)
    array([0, 2, 1])
    """
    matrix = _score_rows(scores)
    size = _checked_count(k, matrix.shape[1])
    queues = [iter(_descending(row).tolist()) for row in matrix]
    taken: dict[int, None] = {}  # a set that keeps the order
    while len(taken) < size:
        queue = queues[len(taken) % len(queues)]
        taken[next(sample for sample in queue if sample not in taken)] = None
    return np.fromiter(taken, dtype=np.int64, count=size)


def class_balanced_selection(scores: ArrayLike, labels: ArrayLike, k: int) -> NDArray[np.int64]:
    """Let the classes take turns; each gives its most wanted sample that is still available.

    Parameters
    ----------
    scores
        Shape (n,), finite; larger for samples that are more wanted.
    labels
        The class of every sample, shape (n,), any dtype that sorts.
    k
        Number of samples to choose, 0 to n.

    Returns
    -------
    ndarray
        Shape (k,), as :func:`alternating_selection` returns it.

    Raises
    ------
    ProblemError
        If the scores are not a finite vector, the labels have another length, or k is not within
        0 to n.

    Notes
    -----
    In every round the classes go in the order of the scores they offer, so that the names of the
    classes do not matter and an unfinished last round takes the most wanted samples. Among equal
    scores the lower index comes first. A class without samples left is passed over; before that
    happens, the counts of the classes differ by at most 1. The paper found that balancing harmed
    slightly where the classes are balanced already.

    References
    ----------
    Coleman et al., Select via Proxy, section 4.

    Examples
    --------
    >>> class_balanced_selection([0.9, 0.8, 0.7, 0.1], ["a", "a", "a", "b"], 3)
    array([0, 3, 1])
    """
    vector = _score_rows(scores, ndim=1)[0]
    size = _checked_count(k, vector.size)
    classes = as_array(labels, "labels")
    if classes.shape != vector.shape:
        raise ProblemError(
            f"labels must hold one class per sample, shape {vector.shape}, got {classes.shape}."
        )
    order = _descending(vector)
    rounds = _places_within(np.unique(classes, return_inverse=True)[1][order])
    return order[np.argsort(rounds, kind="stable")][:size]


def _ranks(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2.0)[inverse]
    return ranks


def _descending(row: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions by descending value; among equal values the lower comes first."""
    return np.argsort(-row, kind="stable")


def _places_within(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many entries of the same group stand before each entry."""
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    places = np.empty(groups.size, dtype=np.int64)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    places[order] = np.arange(groups.size) - starts
    return places


def _score_rows(scores: ArrayLike, ndim: int = 2) -> NDArray[np.float64]:
    """Return scores as a finite float64 matrix with a row per proxy."""
    array = as_array(scores, "scores")
    if array.ndim != ndim or array.dtype.kind not in "fiub" or (ndim == 2 and not len(array)):
        shape = "(proxies, n) with at least one proxy" if ndim == 2 else "(n,)"
        raise ProblemError(
            f"scores must be real numbers of shape {shape}, got shape {array.shape} and dtype "
            f"{array.dtype}."
        )
    matrix = np.atleast_2d(array.astype(np.float64))
    if not np.isfinite(matrix).all():
        proxy, sample = np.argwhere(~np.isfinite(matrix))[0]
        raise ProblemError(
            f"scores must be finite, got {matrix[proxy, sample]} for sample {sample}"
            + (f" of proxy {proxy}." if ndim == 2 else ".")
        )
    return matrix


def _checked_count(k: object, n: int) -> int:
    """Return the number of samples to choose."""
    if not is_integer(k) or not 0 <= k <= n:
        raise ProblemError(f"k must be an integer from 0 to {n}, the number of samples, got {k!r}.")
    return int(k)
