"""Draws in proportion to weights that change a few at a time, without looking at all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["WeightedPool"]

# The number of weights in a block.
_BLOCK = 256


class WeightedPool:
    """Weights of the ids 0 to n-1, and their sums over blocks of 256.

    Schaul et al. keep a binary tree of sums; two levels are enough here: a draw looks for its block
    among the sums, and for its id within the block, and all draws do so at once.

    Parameters
    ----------
    weights
        Shape (n,), float64, positive, n at least 1.

    Notes
    -----
    k draws take O(n / 256 + 256 k), an update of m weights takes O(256 m). An update computes the
    sums of its blocks anew, so that they depend on the weights alone.

    References
    ----------
    Schaul, Quan, Antonoglou & Silver, Prioritized Experience Replay, ICLR 2016, appendix B.2.1.

    Examples
    --------
    >>> pool = WeightedPool(np.array([1.0, 1.0, 2.0]))
    >>> ids, probabilities = pool.draw(4, np.random.default_rng(0))
    >>> ids, probabilities
    (array([0, 1, 2, 2]), array([0.25, 0.25, 0.5 , 0.5 ]))
    """

    __slots__ = ("_sums", "_weights", "n")

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.n = weights.size
        self._weights = np.zeros((-(-self.n // _BLOCK), _BLOCK))
        self._weights.ravel()[: self.n] = weights
        self._sums = self._weights.sum(axis=1)

    def update(self, ids: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Give ids new weights; where an id occurs twice, its last weight counts."""
        self._weights.ravel()[ids] = weights
        blocks = np.unique(ids // _BLOCK)
        self._sums[blocks] = self._weights[blocks].sum(axis=1)

    def draw(
        self, k: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Draw k ids with replacement, one from each k-th part of the total.

        Returns
        -------
        tuple
            The ids (k,), ascending, and the probability of each (k,). On average an id is drawn k
            times its probability.
        """
        ends = np.cumsum(self._sums)
        points = (np.arange(k) + rng.random(k)) * (ends[-1] / k)
        blocks = np.minimum(np.searchsorted(ends, points, side="right"), ends.size - 1)
        rest = points - (ends[blocks] - self._sums[blocks])
        within = np.cumsum(self._weights[blocks], axis=1)
        # Rounding may put a point at the very end of a block or of them all.
        ids = blocks * _BLOCK + (within <= rest[:, None]).sum(axis=1)
        ids = np.minimum(ids, self.n - 1)
        return ids, self._weights.ravel()[ids] / ends[-1]
