"""Greedy iterative geodesic ascent: nonnegative weights on the sphere."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.budget import Deadline, OutOfTimeError
from subsetopt.constraints.partial_subset import Partial
from subsetopt.constraints.subsets import random_subset
from subsetopt.inputs import checked_flag
from subsetopt.kernels.vectors.geodesic import geodesic_steps, start_products
from subsetopt.kernels.vectors.integer_products import padded
from subsetopt.kernels.vectors.products import LANES
from subsetopt.kernels.vectors.quantized import code_rows
from subsetopt.nnls import nonnegative_weights, unit_for
from subsetopt.objectives import VectorMatching
from subsetopt.problem import Problem
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.solvers.vectors.units import pieces
from subsetopt.status import StopReason

__all__ = ["GeodesicAscent"]

# Coordinates that are read between two looks at the clock, in about 50 microseconds.
_CHUNK = 2_000_000
# Coordinates that are read between two looks for an interrupt, in about a millisecond, where no
# time limit is set.
_LONG_CHUNK = 20 * _CHUNK
# Near the target, where many atoms have to be looked at in double precision, a step may take this
# many times as long as the one before.
_LONGER = 6.0
# A cosine with the target so low that the kernel never looks at the atom.
_BEHIND = -8.0
# No weight is near the largest float64 where the target is at most this many times longer than
# the shortest vector.
_LONGER = 1e280
# A share of the target below this is rounding.
_NOTHING = 1e-12
# The largest weight: half of the largest float64, so that sums of a few stay finite.
_LARGEST = sys.float_info.max / 2.0
# The smallest length of a vector: in units of a target far longer, it may be rounded to 0.
_SMALLEST = float(np.finfo(np.float64).smallest_subnormal)


@dataclass(frozen=True, slots=True)
class GeodesicAscent:
    r"""Walk along great circles of the unit sphere towards the target's direction.

    Each of k steps picks the vector whose geodesic from the current point is best aligned with the
    one to the target,

    .. math:: \arg\max_i \Bigl\langle \frac{\hat t - \langle \hat t, y \rangle y}{\|\cdot\|},
              \frac{\hat v_i - \langle \hat v_i, y \rangle y}{\|\cdot\|} \Bigr\rangle ,

    and goes along it to the nearest point; the length is fitted at the end. With ``include`` it
    sets out from the point that the included vectors reach by themselves; a vector after which
    quotas or the capacity could not be kept any more is passed over.

    Parameters
    ----------
    refit
        Whether to fit the weights anew on the vectors found, by nonnegative least squares: a
        smaller residual, for about as much time again. With include, quotas or costs it is always
        done.

    Raises
    ------
    OptionError
        If ``refit`` is not a bool.

    Notes
    -----
    O(k n d), deterministic; the residual falls at a geometric rate. One iteration is one step; a
    step may pick a vector again, so fewer than k may be chosen.

    References
    ----------
    Campbell & Broderick, Bayesian coreset construction via greedy iterative geodesic ascent, ICML
    2018.
    """

    refit: bool = False

    def __post_init__(self) -> None:
        checked_flag("refit", self.refit)

    def solve(self, problem: Problem, context: SolveContext) -> RawResult:
        """Return at most k indices and their weights."""
        objective = problem.objective
        assert isinstance(objective, VectorMatching)
        rules = problem.constraints
        simple = rules.unbound and not rules.forced.size
        known = rules.free if simple else np.sort(np.concatenate([rules.forced, rules.free]))
        allowed = known[objective.norms[known] > 0.0]
        steps = problem.k
        if context.max_iterations is not None:
            steps = min(steps, context.max_iterations)
        chunk = _CHUNK if context.deadline.limited else _LONG_CHUNK
        limits = None if simple else Partial(rules)
        try:
            walk = _Walk(objective, allowed, chunk, limits, context.deadline)
        except OutOfTimeError:
            chosen = random_subset(rules, context.generator(), context.deadline)
            return RawResult(chosen, stop_reason=StopReason.TIME)
        done, stop = walk.run(steps, context)
        if walk.limits is not None:
            return RawResult(walk.limits.completed(), stop_reason=stop, iterations=done)
        weights = walk.weights()
        support = weights.nonzero()[0]
        chosen = allowed[support]
        if self.refit:
            return RawResult(chosen, stop_reason=stop, iterations=done)
        return RawResult(chosen, weights[support], stop_reason=stop, iterations=done)


class _Walk:
    """The point on the sphere, and the weights that make it of unit vectors."""

    def __init__(
        self,
        objective: VectorMatching,
        allowed: NDArray[np.int64],
        chunk: int,
        limits: Partial | None,
        deadline: Deadline,
    ) -> None:
        self.allowed, self.limits = allowed, limits
        unit = unit_for(objective.norms, objective.target)
        self.norms = objective.norms[allowed] / unit
        self.vectors, self.all_norms = objective.vectors, objective.norms
        target = objective.target / unit
        self.length = math.sqrt(float(target @ target))
        self.target = target / self.length if self.length > 0.0 else target
        self.y = np.zeros(target.size)
        self.shares = np.zeros(allowed.size)
        # Integers narrow the choice down, and double precision decides.
        self.codes = np.empty((allowed.size, padded(objective.d)), dtype=np.int16)
        for part in pieces(self.codes.shape, deadline):
            code_rows(objective.vectors, objective.norms, allowed[part], self.codes[part])
        self.ahead = np.empty(allowed.size, dtype=np.float32)
        products = np.empty(allowed.size, dtype=np.int32)
        code = np.empty(self.codes.shape[1], dtype=np.int16)
        start_products(self.codes, self.target, code, products, self.ahead)
        products[:] = 0
        self.scratch = (
            products, code, np.empty(allowed.size, dtype=np.float32),
            np.empty(LANES, dtype=np.float32), np.empty(target.size),
        )  # fmt: skip
        self.batch = max(1, chunk // max(self.codes.size, 1))
        if limits is not None:
            self.batch = 1
            if limits.rules.forced.size and self.length > 0.0:
                self._set_out(limits.rules.forced)

    def _set_out(self, forced: NDArray[np.int64]) -> None:
        """Begin at the direction of what the included vectors make of the target."""
        own = np.flatnonzero(np.isin(self.allowed, forced))
        rows = self.allowed[own]
        atoms = self.vectors[rows] / self.all_norms[rows, None]
        weights = nonnegative_weights(atoms, self.target)
        point = weights @ atoms
        size = math.sqrt(float(point @ point))
        if size > _NOTHING:
            self.y = point / size
            self.shares[own] = weights / size

    def _shut(self) -> None:
        """Take atoms out of the choice that constraints do not let in; they never come back."""
        assert self.limits is not None
        may = self.limits.mask.copy()
        may[self.limits.allowed()] = True
        self.ahead[~may[self.allowed]] = _BEHIND

    def _note(self) -> None:
        """Enter what was picked for the first time."""
        assert self.limits is not None
        picked = self.allowed[self.shares > 0.0]
        for new in picked[~self.limits.mask[picked]]:
            self.limits.take(int(new))

    def run(self, steps: int, context: SolveContext) -> tuple[int, StopReason]:
        """Go along at most ``steps`` geodesics; return how many there were, and why it ended."""
        done, left = 0, context.deadline.remaining()
        walk: Callable[..., int] = geodesic_steps
        if self.length == 0.0:
            return 0, StopReason.COMPLETED
        try:
            while done < steps:
                batch = min(self.batch, steps - done)
                if self.limits is not None:
                    if self.limits.slots == 0:
                        break
                    self._shut()
                count = walk(
                    (self.vectors, self.all_norms, self.allowed, self.codes),
                    (self.target, self.y, self.ahead, self.shares, *self.scratch),
                    batch,
                )
                done += count
                if self.limits is not None:
                    self._note()
                if count < batch:
                    break
                before, left = left, context.deadline.remaining()
                if context.deadline.limited and left <= _LONGER * (before - left):
                    return done, StopReason.TIME
        except KeyboardInterrupt:
            return done, StopReason.INTERRUPTED
        return done, StopReason.COMPLETED

    def weights(self) -> NDArray[np.float64]:
        """Return the weights of the vectors themselves, at the length that fits the target.

        The weight that a denormal vector would need may not fit into float64; it gets the largest.
        """
        reach = max(0.0, float(self.target @ self.y)) * self.length
        if self.norms.size and reach < _LONGER * self.norms.item(self.norms.argmin()):
            return np.asarray(self.shares * (reach / self.norms))
        with np.errstate(over="ignore"):
            each = np.minimum(reach / np.maximum(self.norms, _SMALLEST), _LARGEST)
            return np.minimum(self.shares * each, _LARGEST)
