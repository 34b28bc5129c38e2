"""Vector matching: choose samples whose weighted sum of vectors is the batch's mean vector."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import as_array, as_carray, as_finite_vector, checked_choice
from subsetopt.objectives.base import Objective
from subsetopt.objectives.precision import (
    ROUNDING,
    SMALLEST_TOLERANCE,
    is_single,
    relative_tolerance,
)

__all__ = ["VectorMatching", "Weighting"]

Weighting = Literal["uniform", "nonnegative"]

# Vectors are near each other where none is farther from the first than this share of their mean
# norm.
_NEAR = 1.0 / 16.0
# The norm of the mean of such vectors is at least this share of their mean norm.
_ALIKE = 1.0 - 2.0 * _NEAR
# Squares of vectors vanish that are shorter than this share of the unit that they are measured in.
_SHORT = 1e-140
# Weights whose sum differs from 1 by at most this are those of k samples.
_SUM_ROUNDING = 1e-12
_WEIGHTINGS = ("uniform", "nonnegative")


class VectorMatching(Objective):
    r"""Match the mean vector of the batch with a weighted subset.

    .. math:: \text{minimize} \quad \Bigl\| t - \sum_i w_i v_i \Bigr\|_2, \qquad
              |\operatorname{supp} w| \le k,

    with :math:`w_i \in \{0, 1/k\}` (``"uniform"``) or :math:`w_i \ge 0` (``"nonnegative"``). With
    the gradient of each loss with respect to the logits as vectors, the subset's gradient is the
    batch's.

    Parameters
    ----------
    vectors
        One vector per sample, shape (n, d), any real dtype, finite. A float64 array in C order that
        can be written to is kept without a copy: do not change it while the problem is in use.
    target
        The vector to match, shape (d,); None matches the mean of the vectors.
    weights
        ``"uniform"``: ``1/k`` each; ``"nonnegative"``: whatever the solver chooses, at least 0,
        and then the size is always at most k.

    Raises
    ------
    ProblemError
        If the vectors are not a finite real matrix, the target does not fit them, or ``weights``
        is not one of the two words.

    Notes
    -----
    ``scale`` is the mean norm of the vectors. ``tolerance`` is the precision of the data:
    ``eps(float32) * scale`` for float32 and narrower input, ``1e-9 * scale`` otherwise, and at
    least 1e-13 of the target's largest magnitude. Where
    weights are uniform and the vectors span less than a sixteenth of the scale, as with a constant
    added to all of them, 16 times their span takes its place. Nonnegative weights of a given subset
    solve its nonnegative least squares problem.

    References
    ----------
    Campbell & Broderick, Automated scalable Bayesian inference via Hilbert coresets, JMLR 2019.
    Killamsetty et al., GRAD-MATCH, ICML 2021.

    Examples
    --------
    >>> objective = VectorMatching([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    >>> objective.target, objective.d
    (array([1., 1.]), 2)
    """

    __slots__ = (
        "at_most",
        "base",
        "d",
        "n",
        "norms",
        "offset",
        "relative_tolerance",
        "scale",
        "spread",
        "target",
        "tolerance",
        "vectors",
        "weights",
    )

    scale: float

    def __init__(
        self,
        vectors: ArrayLike,
        target: ArrayLike | None = None,
        weights: Weighting = "uniform",
    ) -> None:
        checked_choice("weights", weights, _WEIGHTINGS, error=ProblemError)
        # The norms are those of the vectors, shape (n,).
        self.vectors, self.norms, total, dtype = _as_finite_matrix(vectors)
        self.n, self.d = self.vectors.shape
        self.weights = weights
        self.at_most = weights == "nonnegative"
        self.target = _target(target, total, self.n)
        #: The first vector if all others are near it and the weights sum to 1, None otherwise.
        self.base: NDArray[np.float64] | None = None
        #: The target less the base.
        self.offset = self.target
        self.scale = float(np.add.reduce(self.norms)) / self.n if self.n else 0.0
        if not math.isfinite(self.scale):
            raise ProblemError(
                f"the norms of the vectors overflow float64 (largest magnitude "
                f"{np.abs(self.vectors).max():g}); scale the vectors down."
            )
        relative = relative_tolerance(is_single(dtype))
        #: What the tolerance is a share of: the mean norm, or 16 times the span of the vectors.
        self.spread = self.scale
        # The mean of vectors that are near each other is about as long as they are.
        if self.n and not self.at_most and _as_long_as(total, _ALIKE * self.scale * self.n):
            self._center(mean=target is None)
        self.relative_tolerance = relative
        self.tolerance = self._precision()

    def _precision(self) -> float:
        """Return the tolerance."""
        farthest = float(np.abs(self.offset).max()) if self.d else 0.0
        return max(self.relative_tolerance * self.spread, ROUNDING * farthest, SMALLEST_TOLERANCE)

    def _center(self, *, mean: bool) -> None:
        """Set the base, the offset and the spread where the vectors are near each other."""
        differences = self.vectors - self.vectors[0]
        span = float(_scaled_norms(differences).max())
        if span >= _NEAR * self.scale:
            return
        self.base, self.spread = self.vectors[0].copy(), span / _NEAR
        self.offset = differences.mean(axis=0) if mean else self.target - self.base

    def centered(self) -> VectorMatching:
        """Return the objective of the vectors less the base, of the same value for k samples."""
        if self.base is None:
            return self
        twin = copy.copy(self)
        twin.vectors = self.vectors - self.base
        twin.norms = _scaled_norms(twin.vectors)
        twin.scale = float(np.add.reduce(twin.norms)) / self.n
        twin.base, twin.target = None, self.offset
        return twin

    def for_fewer(self) -> VectorMatching:
        """Return the objective with a tolerance relative to the mean norm."""
        if self.base is None:
            return self
        twin = copy.copy(self)
        twin.base, twin.offset, twin.spread = None, self.target, self.scale
        twin.tolerance = twin._precision()
        return twin

    @property
    def trivial_bound(self) -> float:
        """Return 0, or the value of every k samples where all vectors are equal."""
        return _norm(self.offset) if self.base is not None and self.spread == 0.0 else 0.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the names under which a solver's row may list it."""
        return (f"VectorMatching[{self.weights}]", *Objective.kinds.__get__(self))

    def __repr__(self) -> str:
        return f"VectorMatching(n={self.n}, d={self.d}, weights={self.weights!r})"

    def weights_for(self, indices: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """Return ``1/k`` for each, or the nonnegative weights that match best."""
        if self.weights == "uniform" or not indices.size:
            return np.full(indices.size, 1.0 / k if k else 0.0)
        # Numba is loaded by what needs it, not by an import of the package.
        from subsetopt.nnls import nonnegative_weights

        return nonnegative_weights(self.vectors[indices], self.target)

    def fit(self, indices: NDArray[np.int64], k: int) -> tuple[NDArray[np.float64], float]:
        """Return the weights of a subset, and a bound on its residual under any weights."""
        if self.weights == "uniform" or not indices.size:
            return Objective.fit(self, indices, k)
        from subsetopt.nnls import nonnegative_fit

        weights, bound = nonnegative_fit(self.vectors[indices], self.target)
        return weights, bound - 0.5 * self.tolerance

    def weight_problem(
        self, indices: NDArray[np.int64], weights: NDArray[np.float64], k: int
    ) -> str | None:
        """Return what is wrong with the weights of a subset, or None."""
        if self.weights == "uniform":
            return Objective.weight_problem(self, indices, weights, k)
        if not np.isfinite(weights).all():
            return "weights are not finite"
        if weights.size and weights.min() < 0.0:
            return f"weights are negative, the least is {weights.min()}"
        return None

    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return ``||target - sum_i w_i v_i||`` over the chosen indices."""
        # BLAS is not used: waking its threads takes longer than a product of this size.
        if self.base is None:
            return _norm(self.target - np.einsum("i,ij->j", weights, self.vectors[indices]))
        missing = 1.0 - float(np.add.reduce(weights))
        missing = missing if abs(missing) > _SUM_ROUNDING else 0.0
        residual = self.offset - np.einsum("i,ij->j", weights, self.vectors[indices] - self.base)
        return _norm(residual + missing * self.base)


def _as_long_as(vector: NDArray[np.float64], length: float) -> bool:
    """Whether the norm of a vector, which is not much above a length, is at least the length."""
    if 1e-140 < length < 1e140:
        return float(vector.dot(vector)) >= length * length
    return _norm(vector) >= length


def _norm(vector: NDArray[np.float64]) -> float:
    """Return a norm whose squares neither overflow nor vanish."""
    magnitudes = np.abs(vector)
    # For a few values argmax takes a fifth of the time of max.
    largest = float(magnitudes[magnitudes.argmax()]) if vector.size else 0.0
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    if 1e-140 < largest < 1e140:
        return math.sqrt(float(vector.dot(vector)))
    return largest * math.sqrt(float(np.square(vector / largest).sum()))


def _moments(
    vectors: NDArray[np.float64],
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Return the norm of every row, and the sum of all rows.

    The norms are None where squares overflow, vanish or are not finite.
    """
    # Numba is loaded by what needs it, not by an import of the package.
    from subsetopt.kernels.vectors.moments import squares_and_sum

    n, d = vectors.shape
    squares, total = np.empty(n), np.zeros(d)
    if not n:
        return squares, total
    squares_and_sum(vectors, squares, total)
    # A NaN among the squares is their maximum, and is in no range.
    if not 1e-200 < float(squares.max()) < 1e280:
        return None, total
    norms = np.sqrt(squares)
    _measure_short(vectors, norms, 1.0)
    return norms, total


def _scaled_norms(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norm of every row of a finite matrix, without overflow of the squares."""
    largest = float(max(vectors.max(), -vectors.min()))
    if largest == 0.0:
        return np.zeros(vectors.shape[0])
    unit = vectors / largest
    with np.errstate(over="ignore"):
        norms = np.asarray(largest * np.sqrt(np.einsum("ij,ij->i", unit, unit)))
    _measure_short(vectors, norms, largest)
    return norms


def _measure_short(
    vectors: NDArray[np.float64], norms: NDArray[np.float64], largest: float
) -> None:
    """Compute the norms anew of vectors so short beside the largest that their squares vanish."""
    short = np.flatnonzero(norms < _SHORT * largest)
    if not short.size:
        return
    short = short[vectors[short].any(axis=1)]
    own = vectors[short]
    peaks = np.abs(own).max(axis=1, initial=0.0)
    own = own / peaks[:, None]
    norms[short] = peaks * np.sqrt(np.einsum("ij,ij->i", own, own))


def _as_finite_matrix(
    values: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], np.dtype[Any]]:
    """Return vectors as a finite float64 matrix in C order, their norms, sum and given dtype."""
    array = as_array(values, "vectors")
    if array.ndim != 2:
        raise ProblemError(
            f"vectors must have shape (n, d), one row per sample, got shape {array.shape}"
            + ("; for one number per sample use MeanMatching." if array.ndim == 1 else ".")
        )
    if array.shape[1] == 0:
        raise ProblemError("vectors must have at least one coordinate, got shape (n, 0).")
    if array.dtype == np.float64:
        # Norms in the usual range prove that every value is finite.
        matrix = as_carray(array)
        norms, total = _moments(matrix)
        if norms is not None:
            return matrix, norms, total, array.dtype
    flat, dtype = as_finite_vector(array.reshape(-1), "vectors")
    matrix = flat.reshape(array.shape)
    norms, total = _moments(matrix)
    return matrix, _scaled_norms(matrix) if norms is None else norms, total, dtype


def _target(target: ArrayLike | None, total: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return the vector to match: the mean unless one is given; 0 for an empty batch."""
    if target is None:
        return total / n if n else total
    vector, _ = as_finite_vector(target, "target")
    if vector.size != total.size:
        raise ProblemError(f"target has {vector.size} entries for vectors of length {total.size}.")
    return vector if n else total
