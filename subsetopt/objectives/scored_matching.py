"""Scored matching: the most informative samples among those that represent the batch."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import as_float, is_number
from subsetopt.objectives.linear import LinearObjective
from subsetopt.objectives.mean_matching import MeanMatching

__all__ = ["ScoredMatching"]

# Share of the mean magnitude of the losses by which the sums that solvers compare are rounded.
_ROUNDING = 64.0 * float(np.finfo(np.float64).eps)


class ScoredMatching(LinearObjective):
    r"""Choose the k samples with the largest total score whose mean loss is the batch's.

    .. math:: \text{maximize} \quad \sum_i s_i z_i \quad\text{subject to}\quad
              \bigl| \bar l - \tfrac1k \sum_i z_i l_i \bigr| \le \varepsilon,
              \qquad z \in \{0, 1\}^n

    Such a subset is informative and representative at once: it has large scores by a rule of
    importance, and the mean loss of the batch. The match is a constraint: a subset outside the band
    is infeasible, and where no subset lies within it the status is INFEASIBLE, once a solver has
    proved that.

    Parameters
    ----------
    scores
        Per-sample scores, shape (n,), any real dtype, finite.
    losses
        Per-sample losses, shape (n,), any real dtype, finite; may be negative or tied.
    tolerance
        Half the width of the band, in the unit of the losses, at least 0; for example a thousandth
        of the mean of ``|losses|``.

    Raises
    ------
    ProblemError
        If scores or losses are not finite real vectors of one length, or the tolerance is
        negative or not a finite number.

    Notes
    -----
    The attribute ``tolerance`` is that of every objective: the difference of total scores that
    counts as none, ``1e-9`` of the largest score's magnitude. The tolerance given is the attribute
    ``band``. Sums are rounded and losses have a precision, so solvers widen the band by half the
    ``tolerance`` of :class:`MeanMatching` on the same losses, and a subset is verified with the
    whole of it: about 1e-7 of the losses' mean magnitude in float32 and 1e-9 in float64, or of 16
    times their span where that is less. Float64 arrays are kept without a copy: do not change them
    while the problem is in use.

    With fewer than k samples (``cardinality="at_most"``) the divisor stays k. The mean of the
    empty subset is 0.

    Examples
    --------
    >>> objective = ScoredMatching([5.0, 1.0, 2.0, 4.0], [1.0, 2.0, 3.0, 6.0], tolerance=0.5)
    >>> objective.target, objective.residual(np.array([0, 3]), k=2)
    (3.0, 0.5)
    """

    __slots__ = ("band", "losses", "matching", "slack")

    restricts: ClassVar[bool] = True

    def __init__(self, scores: ArrayLike, losses: ArrayLike, tolerance: float) -> None:
        super().__init__(scores)
        self.matching = MeanMatching(losses)
        self.losses = self.matching.losses
        if self.losses.size != self.n:
            raise ProblemError(
                f"losses has {self.losses.size} entries for {self.n} scores; pass one each."
            )
        self.band = _checked_band(tolerance)
        self.slack = max(self.matching.tolerance, _ROUNDING * self.matching.scale)

    @property
    def target(self) -> float:
        """Return the mean loss to match."""
        return self.matching.target

    def window(self, k: int) -> tuple[float, float]:
        """Return the least and the greatest sum of k losses that lie within the band."""
        half_width = self.band + 0.5 * self.slack
        return k * (self.target - half_width), k * (self.target + half_width)

    def centered(self) -> ScoredMatching:
        """Return the objective of the losses less a number, of the same value for k samples."""
        matching = self.matching.centered()
        return self._around(matching, matching.losses, self.slack)

    def for_fewer(self) -> ScoredMatching:
        """Return the objective whose band is widened relative to the losses' mean magnitude."""
        matching = self.matching.for_fewer()
        return self._around(matching, self.losses, matching.tolerance)

    def _around(self, matching: MeanMatching, losses: NDArray[Any], slack: float) -> ScoredMatching:
        """Return the objective with another mean matching; this one where that is its own."""
        if matching is self.matching:
            return self
        twin = copy.copy(self)
        twin.matching, twin.losses, twin.slack = matching, losses, slack
        return twin

    def residual(self, indices: NDArray[np.int64], k: int) -> float:
        """Return the distance of a subset's mean loss from the batch's."""
        losses, target = self.losses[indices], self.target
        if self.matching.base and indices.size == k > 0:
            losses, target = losses - self.matching.base, self.matching.offset
        return abs(target - (math.fsum(losses) / k if k else 0.0))

    def clearly_allows(self, indices: NDArray[np.int64], k: int) -> bool:
        """Whether the mean loss lies within the band that solvers search, for certain."""
        return self.residual(indices, k) <= self.band + 0.25 * self.slack

    def violations(self, indices: NDArray[np.int64], k: int) -> list[str]:
        """Return how far the mean loss lies outside the band, in words; nothing if it does not."""
        residual = self.residual(indices, k)
        if residual <= self.band + self.slack:
            return []
        return [f"the mean loss is off by {residual:g}, the tolerance is {self.band:g}"]

    def __repr__(self) -> str:
        return f"ScoredMatching(n={self.n}, tolerance={self.band!r})"


def _checked_band(tolerance: object) -> float:
    if not is_number(tolerance):
        raise ProblemError(f"tolerance must be a number, got {tolerance!r}.")
    band = as_float(tolerance)
    if not 0.0 <= band < math.inf:
        raise ProblemError(f"tolerance must be finite and at least 0, got {band!r}.")
    return band
