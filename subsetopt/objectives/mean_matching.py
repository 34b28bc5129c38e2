"""Mean matching: choose samples whose mean loss is the batch's (the OBTF problem)."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import (
    UNTHREADED,
    as_array,
    as_finite_vector,
    as_float,
    as_vector,
    require_finite,
)
from subsetopt.objectives.base import Objective
from subsetopt.objectives.precision import (
    ROUNDING,
    SMALLEST_TOLERANCE,
    is_single,
    relative_tolerance,
)

__all__ = ["MeanMatching", "MeanMatchingRows"]

# Distances from a sum to hit that lies beyond this would overflow.
_LARGEST_SUM = sys.float_info.max / 4.0
# The number of losses from which on reading all of them takes longer than a call of NumPy does.
_MANY = 4096
# Losses are near each other where they span less than this share of their mean magnitude.
_NEAR = 1.0 / 16.0
# Weights whose sum differs from 1 by at most this are those of k samples.
_SUM_ROUNDING = 1e-12


class MeanMatching(Objective):
    r"""Match the mean loss of the batch with a subset of size k.

    .. math:: \text{minimize} \quad \bigl| \bar l - \tfrac1k \sum_i z_i l_i \bigr|,
              \qquad z \in \{0, 1\}^n

    Parameters
    ----------
    losses
        Per-sample losses, shape (n,), any real dtype, finite; may be negative or tied. A float64
        array is kept without a copy: do not change it while the problem is in use.
    target
        The number to match, in units of the losses; None matches their mean.
    base_weights
        Weights the batch already carries, shape (n,), at least 0, not all 0; None: 1 each. They
        are scaled to mean 1 and multiply the losses: the target becomes the weighted mean
        ``sum(b * l) / sum(b)``, a subset's mean ``(1/k) sum(b_i l_i)`` with the scaled ``b``,
        and the solution's weights ``b_i / k``. This is linear in the choice, hence unbiased under
        uniform selection.

    Raises
    ------
    ProblemError
        If the losses are not a finite real vector, or the target or base weights are malformed.

    Notes
    -----
    ``tolerance`` is the precision of the data: ``eps(float32) * mean|l|`` for float32 and narrower
    input, ``1e-9 * mean|l|`` otherwise, and at least ``1e-13 |target|``. It is finer where the
    losses span less than a sixteenth of ``mean|l|``, as with a constant added to all of them, and
    exactly k samples are chosen: 16 times their span stands for ``mean|l|`` then, and the target's
    distance from the losses for ``|target|``. The objective is bounded below by 0, so a subset
    within tolerance of 0 is proved optimal. With fewer than k samples (``cardinality="at_most"``)
    the divisor stays k.

    References
    ----------
    Dong et al., One Backward from Ten Forward, eq. 5.

    Examples
    --------
    >>> objective = MeanMatching([1.0, 2.0, 3.0, 6.0])
    >>> objective.target, objective.scale
    (3.0, 3.0)
    """

    __slots__ = (
        "base",
        "base_weights",
        "losses",
        "n",
        "offset",
        "relative_tolerance",
        "scale",
        "single",
        "spread",
        "target",
        "tolerance",
        "values",
    )

    least_tolerance: ClassVar[float] = SMALLEST_TOLERANCE
    scale: float

    def __init__(
        self, losses: ArrayLike, target: float | None = None, base_weights: ArrayLike | None = None
    ) -> None:
        values, dtype = as_vector(losses, "losses")
        self.n = n = values.size
        self.losses = values
        total, magnitude = _finite_sums(values, "losses", narrow=dtype.itemsize <= 4)
        self.base_weights: NDArray[np.float64] | None = None
        if base_weights is not None:
            self.base_weights = _mean_one_weights(base_weights, n)
            values = values * self.base_weights
            total, magnitude = _finite_sums(values, "losses * base_weights", narrow=False)
        self.values = values
        self.target = _target(target, total, n)
        self.scale = magnitude / n if n else 0.0
        self.single = is_single(dtype)
        self.relative_tolerance = relative_tolerance(self.single)
        #: A loss that all others are near, so that their differences from it are exact, or 0.
        self.base = 0.0
        #: The target less the base.
        self.offset = self.target
        #: What the tolerance is a share of: ``mean|l|``, or 16 times the span of the losses.
        self.spread = self.scale
        # In nearly every batch two losses show that not all are near each other.
        if n and abs(values.item(0) - values.item(-1)) < _NEAR * self.scale and self._near():
            self.base = float(values[0])
            self.offset -= self.base
            if target is None:
                self.offset = float(np.add.reduce(values - self.base)) / n
                self.target = self.base + self.offset
        self.tolerance = self._precision()

    def _precision(self) -> float:
        """Return the tolerance."""
        return max(
            self.relative_tolerance * self.spread,
            ROUNDING * abs(self.offset),
            self.least_tolerance,
        )

    def _near(self) -> bool:
        """Whether the losses are near each other and carry no weights; sets the spread if so."""
        span = float(self.values.max()) - float(self.values.min())
        if span >= _NEAR * self.scale or self.base_weights is not None:
            return False
        self.spread = span / _NEAR
        return True

    def centered(self) -> MeanMatching:
        """Return the objective of the losses less the base, of the same value for k samples."""
        if not self.base:
            return self
        twin = copy.copy(self)
        twin.losses = twin.values = self.values - self.base
        twin.base, twin.target, twin.scale = 0.0, self.offset, _NEAR * self.spread
        return twin

    def for_fewer(self) -> MeanMatching:
        """Return the objective with a tolerance relative to the losses' mean magnitude."""
        if not self.base:
            return self
        twin = copy.copy(self)
        twin.base, twin.offset, twin.spread = 0.0, self.target, self.scale
        twin.tolerance = twin._precision()
        return twin

    def target_sum(self, k: int) -> float:
        """Return k times the target, or the end of the range in which distances do not overflow."""
        return max(-_LARGEST_SUM, min(_LARGEST_SUM, k * self.target))

    def __repr__(self) -> str:
        return f"MeanMatching(n={self.n}, target={self.target!r})"

    def weights_for(self, indices: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """Return ``1/k`` for each, times the base weights where the batch has them."""
        uniform = np.empty(indices.size)
        uniform.fill(1.0 / k if k else 0.0)  # faster than np.full
        return uniform if self.base_weights is None else uniform * self.base_weights[indices]

    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return ``|target - sum_i w_i l_i|`` over the chosen indices."""
        if not self.base:
            return abs(self.target - _weighted_sum(weights, self.losses[indices]))
        missing = 1.0 - float(np.add.reduce(weights))
        if abs(missing) <= _SUM_ROUNDING:
            missing = 0.0
        residual = _weighted_sum(weights, self.losses[indices] - self.base)
        return abs(self.offset - residual + missing * self.base)


@dataclass(frozen=True, eq=False, slots=True)
class MeanMatchingRows:
    """Many objectives without base weights, one row each, that share their arrays.

    Attributes
    ----------
    values
        A copy of the losses of all rows, one after the other, float64; less their base where they
        are near each other, as a solver is given them.
    starts
        Where the losses of each row begin, and the end of the last, shape (rows + 1,).
    targets
        The target of each row less its base, shape (rows,).
    scales, tolerances, single
        What the :class:`MeanMatching` of each row has, shape (rows,).
    near
        The objectives of the rows whose losses are near each other, by row.
    """

    values: NDArray[np.float64]
    starts: NDArray[np.int64]
    targets: NDArray[np.float64]
    scales: NDArray[np.float64]
    tolerances: NDArray[np.float64]
    single: NDArray[np.bool_]
    near: dict[int, MeanMatching]

    @classmethod
    def of_matrix(cls, losses: NDArray[Any]) -> MeanMatchingRows:
        """Return ``MeanMatching(row)`` of every row, with the sums of all computed at once.

        Raises
        ------
        ProblemError
            As ``MeanMatching`` does for the first row that it refuses.
        """
        losses = as_array(losses, "losses")
        first = MeanMatching(losses[0])
        rows, n = losses.shape
        values = np.array(losses, dtype=np.float64, order="C")
        with np.errstate(over="ignore", invalid="ignore"):
            scales = np.add.reduce(np.abs(values), axis=1) / n
        for row in np.flatnonzero(~np.isfinite(scales))[:1]:
            MeanMatching(losses[row])  # raises what is wrong with it
        targets = np.add.reduce(values, axis=1) / n
        tolerances = np.maximum(first.relative_tolerance * scales, first.least_tolerance)
        np.maximum(tolerances, ROUNDING * np.abs(targets), out=tolerances)
        near = {}
        for row in np.flatnonzero(np.abs(values[:, 0] - values[:, -1]) < _NEAR * scales).tolist():
            alone = MeanMatching(np.array(losses[row]))
            targets[row], tolerances[row] = alone.offset, alone.tolerance
            if alone.base:
                near[row] = alone
                values[row] -= alone.base
        return cls(
            values.ravel(),
            np.arange(rows + 1) * n,
            targets,
            scales,
            tolerances,
            np.full(rows, first.single),
            near,
        )

    @classmethod
    def of_objectives(cls, objectives: Sequence[MeanMatching]) -> MeanMatchingRows:
        """Return objectives, at least one, as rows."""
        lengths = [objective.n for objective in objectives]
        return cls(
            np.concatenate([objective.centered().values for objective in objectives]),
            np.concatenate([[0], np.cumsum(lengths)]),
            np.array([objective.offset for objective in objectives]),
            np.array([objective.scale for objective in objectives]),
            np.array([objective.tolerance for objective in objectives]),
            np.array([objective.single for objective in objectives]),
            {row: objective for row, objective in enumerate(objectives) if objective.base},
        )

    def target_sums(self, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what :meth:`MeanMatching.target_sum` does, per row for its size, shape (rows,)."""
        with np.errstate(over="ignore"):
            return np.clip(sizes * self.targets, -_LARGEST_SUM, _LARGEST_SUM)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of losses of each row, shape (rows,)."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return self.targets.size

    def __getitem__(self, row: int) -> MeanMatching:
        if row in self.near:
            return self.near[row]
        objective = MeanMatching.__new__(MeanMatching)
        losses = self.values[self.starts[row] : self.starts[row + 1]]
        objective.losses = objective.values = losses
        objective.n = losses.size
        objective.base_weights = None
        objective.base = 0.0
        objective.target = objective.offset = float(self.targets[row])
        objective.scale = objective.spread = float(self.scales[row])
        objective.tolerance = float(self.tolerances[row])
        objective.single = bool(self.single[row])
        objective.relative_tolerance = relative_tolerance(objective.single)
        return objective


def _weighted_sum(weights: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the sum of values times weights, without waking the threads of BLAS."""
    if values.size <= UNTHREADED:
        return float(weights.dot(values))
    return float(np.add.reduce(weights * values))


def _finite_sums(values: NDArray[np.float64], name: str, *, narrow: bool) -> tuple[float, float]:
    """Return the sum of values and the sum of their magnitudes, which prove all values finite.

    Parameters
    ----------
    values
        The values, shape (n,).
    name
        What messages call them.
    narrow
        Whether the values come from a dtype of at most 32 bits, whose sums cannot overflow.

    Raises
    ------
    ProblemError
        If a value, or the sum of the magnitudes, is not finite.
    """
    if narrow and values.size < _MANY:
        magnitude = float(np.add.reduce(np.abs(values)))
        if math.isfinite(magnitude):
            return float(np.add.reduce(values)), magnitude
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.add.reduce(values))
        # Losses are rarely negative, and their minimum takes less time than their magnitudes.
        if values.size >= _MANY and values.min() >= 0.0:
            magnitude = total
        else:
            magnitude = float(np.add.reduce(np.abs(values)))
    if not math.isfinite(magnitude):
        require_finite(values, name)
    return total, magnitude


def _target(target: object, total: float, n: int) -> float:
    """Return the number to match: the mean unless one is given; 0 for an empty batch."""
    if target is None:
        return total / n if n else 0.0
    try:
        number = as_float(target)
    except (TypeError, ValueError):
        raise ProblemError(f"target must be a number or None, got {target!r}.") from None
    if not math.isfinite(number):
        raise ProblemError(f"target must be finite, got {number}.")
    return number if n else 0.0


def _mean_one_weights(base_weights: ArrayLike, n: int) -> NDArray[np.float64]:
    """Return base weights scaled to mean 1."""
    weights, _ = as_finite_vector(base_weights, "base_weights")
    if weights.size != n:
        raise ProblemError(
            f"base_weights has {weights.size} entries for {n} losses; pass one each."
        )
    if n and (weights.min() < 0.0 or weights.max() <= 0.0):
        raise ProblemError(
            f"base_weights must be at least 0 and not all 0, got values from {weights.min()} "
            f"to {weights.max()}."
        )
    if not n:
        return weights
    if math.isinf(n / float(weights.sum())):
        weights = np.divide(weights, weights.max())  # denormal numbers
    return weights * (n / float(weights.sum()))
