"""Coverage: subsets near which, or similar to which, every candidate finds a member."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError, did_you_mean
from subsetopt.inputs import as_array, as_carray
from subsetopt.kernels.threads import share
from subsetopt.objectives.base import Objective, Sense
from subsetopt.objectives.nearest import (
    PIECE,
    farthest_square,
    largest_products,
    mend,
    nearest_squares,
    sampled,
    seconds_for_all,
    sum_of_parts,
)

__all__ = ["FacilityLocation", "KCenter"]

Similarity = Literal["cosine", "euclidean", "rbf", "dot"]
Distance = Literal["euclidean", "cosine"]

# Rows of a k-center problem that the time of its evaluation is measured with: so many that the
# first ones, which take longest, count for little.
_TIMED = 1024
# Multiplications that take as long as looking up a similarity.
_LOOKED_UP = 64
# Entries of a matrix in a block of rows that stays in the cache while it is read several times.
_CACHED = 1 << 16
# The least number of blocks that a thread takes at a time.
_TOGETHER = 64
# The largest number of parts that threads take, each of which needs a row of sums.
_PARTS = 64
# A squared distance that was made from squared norms and is below this share of them has lost so
# many digits that its root is wrong by part of the tolerance, and by how much differs with the
# shape of the product.
_CANCELLED = 1e-8
# Relative rounding in single and in double precision.
_SINGLE = float(np.finfo(np.float32).eps)
_DOUBLE = float(np.finfo(np.float64).eps)
# Powers of two up to this exponent are floats.
_LARGEST_POWER = 1023
# The exponent, in base two, of the magnitude of points less their mean below which the mean was
# rounded by a noticeable part of what is left, and is taken once more.
_NEAR_EACH_OTHER = -16
# Squared norms between these two neither overflow nor vanish in further products.
_USUAL = (1e-200, 1e200)
# Sums of similarities below this lose digits: the smallest float64 with all of them is 2e-308.
_VANISHING = 1e-300
# Sums of 512 similarities in single precision stay below the largest float32, 3.4e38, up to here.
_LARGEST_SINGLE = 1e35


class FacilityLocation(Objective):
    r"""Choose k samples such that every sample is similar to a chosen one.

    .. math:: \text{maximize} \quad \sum_{i=1}^n \max\bigl(0, \max_{j \in S} \mathrm{sim}(i, j)
              \bigr)

    Parameters
    ----------
    features
        One vector per sample, shape (n, d), finite. The similarities are computed in pieces when
        they are needed.
    similarity
        The similarities instead: shape (n, n), finite; ``similarity[i, j]`` tells how well j stands
        for i. A float32 or float64 array in C order that can be written to is kept without a copy.
    metric
        The similarity of features: ``"cosine"``, :math:`1 + \cos(x, y)`, shifted to be nonnegative
        (1 for a zero vector); ``"euclidean"``, :math:`D - \|x - y\|` with D twice the largest
        distance from the mean, at least the diameter; ``"rbf"``,
        :math:`\exp(-\|x - y\|^2 / (d\,v))` with the features' variance v; ``"dot"``,
        :math:`x \cdot y`, where that is positive.

    Raises
    ------
    ProblemError
        If not exactly one of features and similarity is given, if it is not a finite matrix (of
        the right shape), if there is no such metric, or if the similarities of features are too
        large or too small for float64.

    Notes
    -----
    Negative similarities count as 0, so the objective is monotone and submodular for every input,
    and 0 for the empty subset. A greedy then reaches 1 - 1/e of the optimum where the size is the
    only constraint. ``tolerance`` is ``1e-9`` of the value of choosing everything. Evaluation is
    in float64 and needs memory for a few thousand times k numbers.

    References
    ----------
    Mirzasoleiman et al., Coresets for data-efficient training of machine learning models (CRAIG),
    ICML 2020; Nemhauser, Wolsey & Fisher, Math. Prog. 1978.

    Examples
    --------
    >>> objective = FacilityLocation([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> objective.evaluate(np.array([1]), np.array([1.0]))
    4.0
    """

    __slots__ = (
        "alone",
        "error",
        "features",
        "metric",
        "n",
        "points",
        "reach",
        "scale",
        "similarity",
        "tolerance",
        "unit",
        "width",
    )

    sense: ClassVar[Sense] = "maximize"

    def __init__(
        self,
        features: ArrayLike | None = None,
        similarity: ArrayLike | None = None,
        metric: Similarity = "cosine",
    ) -> None:
        if (features is None) == (similarity is None):
            raise ProblemError("pass features or similarity, exactly one of them.")
        _check_metric(metric, ("cosine", "euclidean", "rbf", "dot"))
        self.metric = metric
        self.features: NDArray[Any] | None = None
        self.similarity: NDArray[Any] | None = None
        self.points: NDArray[np.float64] | None = None
        # The objective of every single sample, known where the similarities are given.
        self.alone: NDArray[np.float64] | None = None
        self.width = self.error = 0.0
        # Similarities of ``points`` are in this unit, with which no square of a point over- or
        # underflows. It is a power of two, so that it costs no digits.
        self.unit = 1.0
        if features is not None:
            self.features = _matrix(features, "features")
            self.n = self.features.shape[0]
            self.points = self._embed(self.features)
            reach = self._reach(self.points)
            self.reach = self.unit * reach
            if self.reach < _VANISHING and reach > 0.0:
                raise ProblemError(
                    "the sum of similarities vanishes in float64; scale the features up."
                )
        else:
            self.similarity = as_carray(_real(similarity, "similarity"))
            self.n = self.similarity.shape[0]
            if self.similarity.shape != (self.n, self.n):
                raise ProblemError(
                    f"similarity must be square, got shape {self.similarity.shape}; for vectors "
                    "pass features=."
                )
            best, self.alone = _survey(self.similarity)
            with np.errstate(over="ignore"):
                self.reach = float(np.maximum(best, 0.0).sum(dtype=np.float64)) * (1.0 + 1e-12)
            if best.dtype == np.float32 and best.max(initial=0.0) > _LARGEST_SINGLE:
                self.similarity = self.similarity.astype(np.float64)
        if not math.isfinite(self.reach):
            raise ProblemError("the sum of similarities overflows float64; scale the input down.")
        self.scale = None
        self.tolerance = 1e-9 * self.reach

    @property
    def trivial_bound(self) -> float:
        """Return the value of choosing every sample, or a little more."""
        return self.reach

    @property
    def single(self) -> bool:
        """Whether similarities may be computed in single precision."""
        if self.similarity is not None:
            return self.similarity.dtype == np.float32
        return self.metric in ("cosine", "dot")

    def _embed(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return the vectors whose products and norms give the similarities."""
        if self.metric == "cosine":
            extended = np.ones((self.n, features.shape[1] + 1))  # products are 1 + cos
            _unit(features.astype(np.float64, copy=False), extended[:, :-1])
            return extended
        if self.metric == "dot":
            points, exponent = _scaled(features.astype(np.float64, copy=False))
            self.unit = _power_of_two(2 * exponent)
            return points
        points, exponent = _centered(features)
        if self.metric == "euclidean":
            norms = np.linalg.norm(points, axis=1)
            self.width = 2.0 * float(norms.max(initial=0.0)) * (1.0 + 1e-7)
            self.unit = _power_of_two(exponent)
        else:
            spread = float(np.square(points).sum())
            self.width = spread / max(self.n, 1) or 1.0  # d times the variance
        return points

    def _reach(self, points: NDArray[np.float64]) -> float:
        """Return a bound on the objective in units; set how far a float32 similarity may be off."""
        squares = np.square(points).sum(axis=1)
        largest = float(squares.max(initial=0.0))
        rounding = _SINGLE if self.metric in ("cosine", "dot") else _DOUBLE
        self.error = 2.0 * (points.shape[1] + 4) * rounding * largest
        if self.metric == "cosine":
            return float(squares.sum()) * (1.0 + 1e-12)
        if self.metric == "dot":
            return float(np.sqrt(squares).sum()) * math.sqrt(largest) * (1.0 + 1e-12)
        if self.metric == "euclidean":
            self.error = math.sqrt(self.error) + _SINGLE * self.width
            return self.n * self.width
        self.error = self.error / self.width + _SINGLE
        return float(self.n)

    def similarities(self, chosen: NDArray[np.int64], clients: slice) -> NDArray[Any]:
        """Return sim(i, j) for chosen j (rows) and clients i (columns)."""
        if self.similarity is not None:
            return self.similarity[clients, chosen].T
        assert self.points is not None
        near = self.between(self.points[chosen], self.points[clients])
        return near if self.unit == 1.0 else self.unit * near

    def between(self, chosen: NDArray[Any], clients: NDArray[Any]) -> NDArray[Any]:
        """Return the similarities of some ``points`` (rows) to others (columns), in units."""
        products: NDArray[Any] = chosen @ clients.T
        if self.metric in ("cosine", "dot"):
            return products
        squares, client_squares = (np.square(x).sum(axis=1) for x in (chosen, clients))
        sizes = squares[:, None] + client_squares[None, :]
        distances = np.maximum(sizes - 2.0 * products, 0.0)
        if self.metric == "euclidean":
            if chosen.dtype == np.float64:
                mend(distances, distances < _CANCELLED * sizes, chosen, clients)
        return self._of_squares(distances)

    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return the sum over all samples of the similarity to the nearest chosen one."""
        if not indices.size:
            return 0.0
        return sum_of_parts(self._covered_by(indices), self.n, self._work(indices.size))

    def evaluation_time(self, size: int, clock: Callable[[], float]) -> float:
        """Return about how many seconds the evaluation of a subset takes, measured on a part."""
        chosen = sampled(self.n, size)
        return seconds_for_all(self._covered_by(chosen), self.n, self._work(size), clock)

    def _work(self, size: int) -> int:
        """Return what the similarities of one client to a subset take, in multiplications."""
        return size * (_LOOKED_UP if self.points is None else self.points.shape[1])

    def _covered_by(self, indices: NDArray[np.int64]) -> Callable[[slice], float]:
        """Return what sums up the similarities of some clients to their nearest chosen ones."""
        if self.points is None:
            return lambda part: _positive_sum(self.similarities(indices, part).max(axis=0))
        chosen, points = self.points[indices], self.points

        def covered(part: slice) -> float:
            return self.unit * _positive_sum(self._nearest(chosen, points[part]))

        return covered

    def _nearest(
        self, chosen: NDArray[np.float64], clients: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the similarity of some points to the nearest of the chosen ones, in units."""
        if self.metric in ("cosine", "dot"):
            return largest_products(clients, chosen)
        squares, magnitudes = nearest_squares(clients, chosen)
        near = self._of_squares(np.maximum(squares, 0.0))
        if self.metric == "euclidean":
            rough = np.flatnonzero(squares < _CANCELLED * magnitudes)
            step = max(1, PIECE // max(chosen.size, 1))
            for first in range(0, rough.size, step):
                few = rough[first : first + step]
                near[few] = self.between(chosen, clients[few]).max(axis=0)
        return near

    def _of_squares(self, distances: NDArray[Any]) -> NDArray[Any]:
        """Return similarities in units for squared distances."""
        if self.metric == "euclidean":
            return np.asarray(self.width - np.sqrt(distances))
        return np.asarray(np.exp(-distances / self.width))

    def __repr__(self) -> str:
        source = "similarity" if self.similarity is not None else f"metric={self.metric!r}"
        return f"FacilityLocation(n={self.n}, {source})"


class KCenter(Objective):
    r"""Choose k samples such that no sample is far from a chosen one.

    .. math:: \text{minimize} \quad \max_{i} \min_{j \in S} \mathrm{dist}(i, j)

    Parameters
    ----------
    features
        One vector per sample, shape (n, d), finite.
    metric
        ``"euclidean"``, or ``"cosine"``: :math:`1 - \cos(x, y)`, which is no metric in the sense
        of the triangle inequality (a zero vector is at 1 from all others).

    Raises
    ------
    ProblemError
        If the features are not a finite matrix, or there is no such metric.

    Notes
    -----
    ``tolerance`` is ``1e-9`` of twice the largest distance from the mean. The empty subset is
    infeasible when there are samples: they would be infinitely far from it. Evaluation is in
    float64, by differences where it matters, in O(n k d) time and little memory.

    References
    ----------
    Gonzalez, Theor. Comput. Sci. 1985; Sener & Savarese, Active learning for convolutional neural
    networks: a core-set approach, ICLR 2018.

    Examples
    --------
    >>> objective = KCenter([[0.0], [1.0], [2.0], [9.0]])
    >>> objective.evaluate(np.array([1, 3]), np.array([0.5, 0.5]))
    1.0
    """

    __slots__ = ("features", "metric", "n", "points", "scale", "tolerance", "unit")

    def __init__(self, features: ArrayLike, metric: Distance = "euclidean") -> None:
        _check_metric(metric, ("euclidean", "cosine"))
        self.metric = metric
        self.features = _matrix(features, "features")
        self.n = self.features.shape[0]
        points = self.features.astype(np.float64, copy=False)
        if self.n and not _magnitude(points) < 1e150:
            raise ProblemError("squared distances overflow float64; scale the features down.")
        # Distances of ``points`` are in this unit, a power of two with which no square vanishes.
        self.unit = 1.0
        if metric == "cosine":
            # Zero vectors get a coordinate of their own, at a squared distance of 2 from the rest.
            points = _unit(points)
            points = np.hstack([points, np.where(points.any(axis=1, keepdims=True), 0.0, 1.0)])
        else:
            points, exponent = _centered(points)
            self.unit = _power_of_two(exponent)
        self.points = np.ascontiguousarray(points)
        largest = float(np.linalg.norm(points, axis=1).max(initial=0.0))
        self.scale = None
        self.tolerance = 1e-9 * 2.0 * self.unit * largest

    def distance(self, square: float) -> float:
        """Return the distance for a squared distance of two of ``points``."""
        return self.unit * math.sqrt(square) if self.metric == "euclidean" else 0.5 * square

    def violations(self, indices: NDArray[np.int64], k: int) -> list[str]:
        """Return in words that there is no center, or nothing where there is one."""
        return ["no center is chosen"] if self.n and not indices.size else []

    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return the largest distance of a sample from its nearest chosen one."""
        return self.distance(farthest_square(self.points, self.points[indices]))

    def evaluation_time(self, size: int, clock: Callable[[], float]) -> float:
        """Return about how many seconds the evaluation of a subset takes, measured on a part."""
        chosen = self.points[sampled(self.n, size)]
        work = size * self.points.shape[1]
        return seconds_for_all(
            lambda part: farthest_square(self.points[part], chosen), self.n, work, clock, _TIMED
        )

    def __repr__(self) -> str:
        return f"KCenter(n={self.n}, metric={self.metric!r})"


def _scaled(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Return points over the power of two above the largest magnitude, and its exponent."""
    exponent = math.frexp(_magnitude(points))[1]
    if exponent < -_LARGEST_POWER:
        return np.ldexp(points, -exponent), exponent
    return points * math.ldexp(1.0, -exponent), exponent  # a third of the time of ldexp


def _magnitude(points: NDArray[np.float64]) -> float:
    """Return the largest magnitude of any coordinate; no array of magnitudes is made."""
    return max(float(points.max(initial=0.0)), -float(points.min(initial=0.0)))


def _centered(features: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
    """Return features less their mean, scaled as ``_scaled`` does, and the exponent."""
    points, exponent = _scaled(features.astype(np.float64, copy=False))
    for _ in range(2):
        points -= points.mean(axis=0) if points.size else 0.0
        points, further = _scaled(points)
        exponent += further
        if further > _NEAR_EACH_OTHER:
            break
    return points, exponent if points.any() else 0


def _power_of_two(exponent: int) -> float:
    """Return ``2 ** exponent``, infinity or 0 where that over- or underflows."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.ldexp(1.0, exponent))


def _unit(
    points: NDArray[np.float64], out: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return vectors scaled to norm 1, zero vectors as they are; in ``out`` if it is given."""
    unit = points
    out = np.empty_like(points) if out is None else out
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", points, points)
    if bool(((squares > _USUAL[0]) & (squares < _USUAL[1])).all()):
        np.divide(points, np.sqrt(squares)[:, None], out=out)
        return out
    # Division by the largest entry comes first, so that no square over- or underflows.
    for order in (np.inf, 2):
        norms = np.linalg.norm(unit, ord=order, axis=1, keepdims=True) if unit.size else unit
        unit = np.divide(unit, norms, out=np.zeros_like(unit), where=norms > 0.0)
    out[:] = unit
    return out


def _positive_sum(values: NDArray[Any]) -> float:
    """Return the sum of the positive ones of some values."""
    return float(np.maximum(values, 0.0).sum(dtype=np.float64))


def _check_metric(metric: object, known: tuple[str, ...]) -> None:
    if not isinstance(metric, str) or metric not in known:
        raise ProblemError(
            f"unknown metric {metric!r}.{did_you_mean(str(metric), known)} "
            f"Known: {', '.join(known)}."
        )


def _real(values: ArrayLike | None, name: str) -> NDArray[Any]:
    """Return values as a float32 or float64 matrix, without a copy where it is one."""
    array = as_array(values, name) if values is not None else np.empty(0)
    if array.ndim != 2:
        raise ProblemError(
            f"{name} must be two-dimensional, one row per sample, got shape {array.shape}."
        )
    if array.dtype.kind not in "fiub":
        raise ProblemError(f"{name} must be real numbers, got dtype {array.dtype}.")
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        array = array.astype(np.float64 if array.dtype != np.float16 else np.float32)
    return array


def _survey(similarity: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the largest entry of every row and the sums of the columns' positive entries.

    The matrix is read from memory once. Raises where an entry is not finite.
    """
    # Numba is loaded by what needs it, not by an import of the package.
    from subsetopt.kernels.coverage.gains import add_rises

    n = similarity.shape[0]
    largest, smallest = np.zeros((2, n), dtype=similarity.dtype)
    bottom, top = np.zeros_like(largest), np.full_like(largest, np.inf)
    block = max(1, _CACHED // max(n, 1))  # rows
    part_rows = max(_TOGETHER * block, -(-n // _PARTS))
    firsts = range(0, n, part_rows)
    sums = np.zeros((len(firsts), n))

    def survey_part(number: int) -> None:
        first = firsts[number]
        for start in range(first, min(first + part_rows, n), block):
            part = slice(start, min(start + block, n))
            similarity[part].max(axis=1, out=largest[part])
            similarity[part].min(axis=1, out=smallest[part])
            clients = np.arange(part.start, part.stop)
            add_rises(similarity, clients, bottom, top, sums[number], shared=False)

    share(survey_part, range(len(firsts)))
    _refuse(np.flatnonzero(~(np.isfinite(largest) & np.isfinite(smallest))), "similarity")
    return largest, sums.sum(axis=0)


def _refuse(rows: NDArray[np.int64], name: str) -> None:
    if rows.size:
        raise ProblemError(f"{name} must be finite; not finite in rows {rows[:5].tolist()}.")


def _matrix(values: ArrayLike | None, name: str) -> NDArray[Any]:
    """Return values as a finite float32 or float64 matrix, without a copy where it is one."""
    array = _real(values, name)
    # One sum per row finds NaN and infinity without a matrix of bools.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = np.flatnonzero(~np.isfinite(array.sum(axis=1, dtype=np.float64)))
    _refuse(np.array([i for i in suspect if not np.isfinite(array[i]).all()], np.int64), name)
    return array
