"""Nonnegative least squares over points that may be chosen: the state that the kernel works on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.vectors import nnls as kernel
from subsetopt.kernels.vectors.integer_products import padded
from subsetopt.kernels.vectors.quantized import WIDEST, code_bytes

__all__ = ["ActiveSet", "nonnegative_fit", "nonnegative_weights", "unit_for"]

# The smallest number whose reciprocal does not overflow.
_TINY = float(np.finfo(np.float64).tiny)
# Points whose norm is below this are made longer before they are fitted: their squares vanish.
_SHORT = 1e-140
# The largest weight: half of the largest float64, so that sums of a few stay finite.
_LARGEST = float(np.finfo(np.float64).max) / 2.0
_NO_POINTS = np.empty(0, dtype=np.int64)
# The largest cosine that rounding can leave where an angle is a right one.
_RIGHT = 1e-9
# Points whose cosine with the residual is below the negative of this take no part in a better fit.
_TIGHT = 1e-6
# The largest singular value of unit vectors that counts as 0.
_DEPENDENT = 1e-13
# Points that have at least this many coordinates together are read in integers.
_MANY = 1 << 14
# A residual that is shorter than this share of the target is rounding.
_ROUNDING = 4 * float(np.finfo(np.float64).eps)


def unit_for(norms: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Return what to divide points and target by, so that squares neither overflow nor vanish.

    Parameters
    ----------
    norms
        (n,) the norms of the points.
    target
        (d,) the vector to fit.
    """
    largest = max(_largest(norms), _largest(np.abs(target)))
    return 1.0 if 1e-60 < largest < 1e60 or largest < _TINY else largest


def _largest(values: NDArray[np.float64]) -> float:
    """Return the largest value, 0 for none; argmax takes a fifth of the time of max."""
    return float(values[values.argmax()]) if values.size else 0.0


class ActiveSet:
    r"""The points with a weight above 0, and the least squares fit on them.

    .. math:: \min_{w \ge 0} \; \Bigl\| t - \sum_{i \in A} w_i p_i \Bigr\|_2

    Points join one at a time, the one nearest in angle to the residual or the one with the largest
    inner product; points whose weight would fall below 0 leave. When none can join, the fit is the
    best over all points, because the problem is convex.

    Parameters
    ----------
    points
        The points, one per row, shape (n, d), float64.
    target
        The vector to fit, shape (d,), float64.
    size
        The largest number of points that may be active.
    allowed
        The positions of the points that may join; None lets all join.
    norms
        The norms of the points, shape (n,); None computes them.
    by_angle
        Whether the point nearest in angle joins; otherwise it is the one with the largest inner
        product.
    """

    def __init__(
        self,
        points: NDArray[np.float64],
        target: NDArray[np.float64],
        size: int,
        allowed: NDArray[np.int64] | None = None,
        norms: NDArray[np.float64] | None = None,
        *,
        by_angle: bool = True,
    ) -> None:
        n, d = points.shape
        if norms is None:
            norms = _norms(points)
        unit = unit_for(norms, target)
        self.points = points if unit == 1.0 else points / unit
        self.target = target if unit == 1.0 else target / unit
        self.unit = unit
        #: What the weights are to be multiplied by, as factors and exponents of 2, where points
        #: were made longer; None where none was.
        self.shortness: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None
        short = _NO_POINTS
        if n and norms.min() < _SHORT * unit:
            short = np.flatnonzero((norms > 0.0) & (norms < _SHORT * unit))
        norms = norms if unit == 1.0 else norms / unit
        if short.size:
            norms = norms.copy()
            norms[short] = 1.0
            self._lengthen(points, short)
        positive = norms > 0.0
        self.inverse_norms = np.divide(1.0, norms, out=np.zeros(n), where=positive)
        # Inner products with a point are divided by its length here before they are compared.
        lengths, self.scales = norms, self.inverse_norms
        if not by_angle:
            lengths = np.full(n, norms.max(initial=0.0))
            self.scales = np.divide(1.0, lengths, out=np.zeros(n), where=positive)
        self.state = np.zeros(n, dtype=np.int8)
        if allowed is not None:
            self.state[:] = kernel.CLOSED
            self.state[allowed] = kernel.OPEN
        self.state[~positive] = kernel.CLOSED
        coded = self._coded(norms, lengths)
        # More than d points are never independent.
        self.size = min(size, d, n)
        room = self.size + 1
        self.residual = self.target.copy()
        self.floor = (_ROUNDING**2) * float(self.target @ self.target)
        fitted = kernel.Points(self.points, self.scales, self.target, self.size, self.floor)
        self._active = kernel.Active(
            self.state, np.zeros(room, dtype=np.int64), np.zeros(room),
            np.zeros(1, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(1, dtype=np.int64),
        )  # fmt: skip
        basis = kernel.Basis(
            np.zeros((room, d)), np.zeros((room, room)), np.zeros(room), self.residual,
            np.zeros(room), np.empty(n),
        )  # fmt: skip
        # Calls take less time with plain tuples than with named ones.
        self._arrays = tuple(tuple(part) for part in (fitted, coded, self._active, basis))

    def _lengthen(self, points: NDArray[np.float64], short: NDArray[np.int64]) -> None:
        """Give some points the length 1, which changes the weights that they get."""
        directions = points[short]
        largest = np.abs(directions).max(axis=1)
        directions /= largest[:, None]
        lengths = np.sqrt(np.einsum("ij,ij->i", directions, directions))
        self.points = self.points.copy()
        self.points[short] = directions / lengths[:, None]
        fraction, exponent = math.frexp(self.unit)
        fractions, exponents = np.frexp(largest)
        self.shortness = np.ones(points.shape[0]), np.zeros(points.shape[0], dtype=np.int64)
        self.shortness[0][short] = fraction / (fractions * lengths)
        self.shortness[1][short] = exponent - exponents

    def _coded(self, norms: NDArray[np.float64], lengths: NDArray[np.float64]) -> kernel.Coded:
        """Return the points in 8 bits where there are many, and room for products with them."""
        n, d = self.points.shape
        if self.points.size < _MANY or d > WIDEST:
            n = 0
        width = padded(d)
        codes = np.empty((n, width), dtype=np.int8)
        units, errors, keys = np.empty((3, n), dtype=np.float32)
        if n:
            code_bytes(self.points, norms, lengths, codes, units, errors)
        code = np.empty(width, dtype=np.int16)
        products, candidates = np.empty((2, n), dtype=np.int32)
        return kernel.Coded(codes, units, errors, code, products, keys, candidates)

    def step(self, most: int = 1) -> tuple[int, int]:
        """Let at most ``most`` points join; return the outcome, and how many joined."""
        steps: Callable[..., tuple[int, int]] = kernel.steps
        outcome, done = steps(*self._arrays, most)
        return int(outcome), int(done)

    def close_all_but(self, allowed: NDArray[np.int64]) -> NDArray[np.int64]:
        """Keep all open points but these from joining; return the positions that were closed."""
        may = np.zeros(self.state.size, dtype=np.bool_)
        may[allowed] = True
        closed = np.flatnonzero((self.state == kernel.OPEN) & ~may)
        self.state[closed] = kernel.CLOSED
        return closed

    def reopen(self, closed: NDArray[np.int64]) -> None:
        """Undo :meth:`close_all_but`."""
        self.state[closed] = kernel.OPEN

    @property
    def chosen(self) -> NDArray[np.int64]:
        """Return the active positions."""
        return self._active.positions[: self._active.size[0]]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Return the weights of the active positions.

        The weight that a denormal point would need may not fit into float64; it gets the largest.
        """
        weights = self._active.weights[: self._active.size[0]]
        if self.shortness is None:
            return weights
        factors, exponents = (part[self.chosen] for part in self.shortness)
        with np.errstate(over="ignore"):
            return np.minimum(np.ldexp(weights * factors, exponents), _LARGEST)

    def dual_bound(self) -> float:
        r"""Return a lower bound on the residual over all allowed points, however many.

        Where no point forms an acute angle with the residual r, every weighted sum lies beyond the
        hyperplane through the fit: the distance is at least :math:`\langle t, r \rangle / \|r\|`.
        Where rounding leaves an acute angle, the bound loses its cosine times the largest weights
        that a fit may need, which are large where points are nearly dependent. The bound is 0 where
        nothing is left of it, and where the residual is rounding.
        """
        size = math.sqrt(float(self.residual @ self.residual))
        if size * size <= self.floor:
            return 0.0
        cosines = np.empty(self.state.size)
        kernel.correlate(self.points, self.residual, cosines)
        cosines *= self.inverse_norms / size
        may = self.state != kernel.CLOSED
        rounding = _ROUNDING * math.sqrt(self.target.size)
        acute = max(0.0, float(cosines[may].max(initial=0.0))) + rounding
        if acute > _RIGHT:
            return 0.0
        tight = np.flatnonzero(may & (cosines > -_TIGHT))
        weights = _largest_weights(self.points[tight] * self.inverse_norms[tight, None])
        if acute * weights > _TIGHT:
            return 0.0
        lost = 2.0 * acute * weights * math.sqrt(float(self.target @ self.target))
        return self.unit * max(0.0, min(float(self.target @ self.residual) / size, size) - lost)


def _largest_weights(directions: NDArray[np.float64]) -> float:
    """Return about how large the weights of unit vectors can be whose weighted sum has norm 1.

    Where vectors are dependent, an independent part of them is enough; those within rounding of
    dependence count as dependent.
    """
    if not directions.size:
        return 1.0
    singular = np.linalg.svd(directions, compute_uv=False)
    return math.sqrt(directions.shape[0]) / float(singular[singular > _DEPENDENT].min())


def _norms(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norm of every row, without overflow or underflow of the squares."""
    largest = np.abs(points).max(axis=1, initial=0.0)
    if not largest.size or (largest.min() > _SHORT and largest.max() < 1.0 / _SHORT):
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", points, points)))
    scaled = points / np.where(largest > 0.0, largest, 1.0)[:, None]
    return np.asarray(largest * np.sqrt(np.einsum("ij,ij->i", scaled, scaled)))


def nonnegative_weights(
    points: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weights, at least 0, whose sum of points is nearest the target."""
    return nonnegative_fit(points, target)[0]


def nonnegative_fit(
    points: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return the weights of :func:`nonnegative_weights`, and a bound that holds for all weights.

    No weights bring the sum nearer to the target than the bound; it is 0 where the fit is too
    inexact to prove one.
    """
    fit = ActiveSet(points, target, points.shape[0])
    fit.step(10 * points.shape[0] + 10)
    weights = np.zeros(points.shape[0])
    weights[fit.chosen] = fit.weights
    return weights, fit.dual_bound()
