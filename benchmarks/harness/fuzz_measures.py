"""What subsets are worth: each objective evaluated anew, exactly or in extended precision."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.fuzz_exact import as_float, square_root, subset_sums, whole_numbers
from benchmarks.harness.fuzz_fits import Fits
from benchmarks.harness.fuzz_questions import Question

__all__ = ["Measure", "measure_of"]

Array = NDArray[Any]
Chosen = Sequence[int]
# 80-bit floats where the platform has them: squares of 1e200 neither vanish nor overflow.
_Wide = np.longdouble
_SINGLE, _DOUBLE = Fraction(1, 2**23), Fraction(1, 10**9)
# Times the largest distance from the mean: the number that distances are subtracted from.
_WIDTH = 2.0 * (1.0 + 1e-7)
# The least tolerance of a distance.
_LEAST = 4e-323
# The least probability that a weight is made of.
_RARE = 1e-300
# Sums of float64 numbers may be off by this share of what was added, and by so much per number,
# where numbers are denormal.
_ROUNDING = 1e-14
_DENORMAL = 1e-323


class Measure(ABC):
    """The objective of a question.

    Attributes
    ----------
    maximized
        Whether it is maximized.
    tolerance
        By how much an optimal answer may miss the optimum, as the documentation states it.
    rounding
        What float64 arithmetic may be off by.
    """

    maximized = False
    tolerance: float
    rounding: float

    def __init__(self, question: Question) -> None:
        self.question = question
        self.n, self.k = question.n, question.k

    @abstractmethod
    def value(self, chosen: Chosen, weights: Array) -> float:
        """Return the objective of a subset."""

    @abstractmethod
    def best(self, subsets: Array) -> float:
        """Return the best objective of some subsets; NaN without any."""

    def table(self, subsets: Array) -> Array:
        """Return which subsets surely satisfy the objective's own constraints."""
        return np.ones(subsets.size, dtype=np.bool_)

    def verdict(self, chosen: Chosen) -> tuple[bool, bool]:
        """Return whether a subset surely, and possibly, satisfies the objective's constraints."""
        return True, True

    def weights(self, chosen: Chosen) -> Array | None:
        """Return the training weights of a subset; None where the solver chooses them."""
        return np.full(len(chosen), 1.0 / self.k if self.k else 0.0)

    def weights_are_right(self, chosen: Chosen, weights: Array) -> bool:
        """Whether the weights of a subset are what they have to be."""
        own = self.weights(chosen)
        if own is None:
            return bool((weights >= 0.0).all() and np.isfinite(weights).all())
        return own.shape == weights.shape and bool(np.allclose(own, weights, rtol=1e-12, atol=0.0))


def _wide(numbers: Array) -> Array:
    """Return float64 numbers in extended precision: the library reads all numbers as float64."""
    return numbers.astype(np.float64).astype(_Wide)


def _precision(numbers: Array) -> Fraction:
    """Return the share of the mean magnitude that counts as no difference."""
    dtype = numbers.dtype
    return _SINGLE if dtype.kind == "f" and dtype.itemsize <= 4 else _DOUBLE


class _Mean(Measure):
    """``|target - sum(chosen)/k|``, in whole numbers."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        data, n = question.data, self.n
        self.whole, unit = whole_numbers(data["losses"])
        self.base = [1] * n
        if data.get("base_weights") is not None:
            self.base, _ = whole_numbers(data["base_weights"])
            self.whole = [a * b for a, b in zip(self.whole, self.base, strict=True)]
        # The unit of losses times weights that are scaled to mean 1.
        step = unit * n / (sum(self.base) or 1)
        mean = Fraction(sum(self.whole)) * step / max(1, n)
        given = data.get("target")
        self.target = mean if given is None else Fraction(given)
        if not n:
            self.target = Fraction(0)
        self._share(step / max(1, self.k))
        self._scale(step, question, weighted=data.get("base_weights") is not None)

    def _share(self, share: Fraction) -> None:
        """Keep the residual as ``|here - there * sum| / below`` in whole numbers."""
        self.here = self.target.numerator * share.denominator
        self.there = self.target.denominator * share.numerator
        self.below = self.target.denominator * share.denominator

    def _scale(self, step: Fraction, question: Question, *, weighted: bool) -> None:
        scale = sum(map(abs, self.whole)) * step / max(1, self.n)
        far = abs(self.target)
        spread = scale
        if self.n and not question.at_most and not weighted:
            span = (max(self.whole) - min(self.whole)) * step
            if 16 * span < scale:
                spread, far = 16 * span, abs(self.target - self.whole[0] * step)
        precision = _precision(question.data["losses"])
        self.tolerance = max(as_float(precision * spread), 1e-13 * as_float(far), _LEAST)
        size = as_float(scale * self.n / max(1, self.k) + abs(self.target))
        self.rounding = _ROUNDING * size + 1e-6 * self.tolerance + self.n * _DENORMAL
        self.magnitude = as_float(scale)

    def residual(self, chosen: Chosen) -> Fraction:
        total = sum(self.whole[j] for j in chosen)
        return Fraction(abs(self.here - self.there * total), self.below)

    def value(self, chosen: Chosen, weights: Array) -> float:
        return as_float(self.residual(chosen))

    def offs(self, subsets: Array) -> list[int]:
        """Return the residuals of subsets in whole numbers, to be divided by ``below``."""
        sums = subset_sums(self.whole)
        here, there = self.here, self.there
        return [abs(here - there * sums[subset]) for subset in subsets.tolist()]

    def best(self, subsets: Array) -> float:
        if not subsets.size:
            return math.nan
        return as_float(Fraction(min(self.offs(subsets)), self.below))

    def weights(self, chosen: Chosen) -> Array:
        share = Fraction(self.n, max(1, self.k) * (sum(self.base) or 1))
        return np.array([as_float(self.base[j] * share) for j in chosen])


class _Top(Measure):
    """The total score, in whole numbers."""

    maximized = True

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.whole, self.unit = whole_numbers(self.scores())
        largest = as_float(max(map(abs, self.whole), default=0) * self.unit)
        self.tolerance = 1e-9 * largest
        self.rounding = _ROUNDING * self.n * largest + _DENORMAL

    def scores(self) -> Array:
        scores: Array = self.question.data["scores"]
        return scores

    def value(self, chosen: Chosen, weights: Array) -> float:
        return as_float(sum(self.whole[j] for j in chosen) * self.unit)

    def best(self, subsets: Array) -> float:
        if not subsets.size:
            return math.nan
        sums = subset_sums(self.whole)
        return as_float(max(sums[subset] for subset in subsets.tolist()) * self.unit)


class _Weighted(_Top):
    """The total of scores that are put together from importances."""

    def scores(self) -> Array:
        data = self.question.data
        losses, methods = data["losses"].astype(_Wide), data["methods"]
        if isinstance(methods, dict):
            importances = [values.astype(_Wide) for values in methods.values()]
        else:
            importances = [_softmax(losses if m == "big-loss" else -losses) for m in methods]
        shares = data.get("weights", np.full(len(importances), 1.0 / len(importances)))
        total = sum(_Wide(w) * a for w, a in zip(shares, importances, strict=True))
        reward = data.get("reward", 1.0)
        if isinstance(reward, float) and reward != 1.0 and losses.size:
            squares = (losses * losses).sum()
            reward = np.exp(-_Wide(reward) * (losses - losses.min()) / squares) if squares else 1.0
        return np.asarray(reward * total)


def _softmax(scores: Array) -> Array:
    """Return the softmax of the standardized scores; equal shares where they are equal."""
    if not scores.size:
        return scores
    spread = np.sqrt(((scores - scores.mean()) ** 2).mean())
    unit = (scores - scores.mean()) / spread if np.ptp(scores) else np.zeros_like(scores)
    powers = np.exp(unit)
    return np.asarray(powers / powers.sum())


class _Scored(_Top):
    """The total score; the mean loss has to be within a band around the batch's."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.matching = _Mean(question)
        matching = self.matching
        band = Fraction(question.data["tolerance"])
        slack = max(matching.tolerance, 2.0**-46 * matching.magnitude) * (1.0 + 1e-6)
        slack += matching.rounding
        self.sure = math.floor(band * matching.below)
        self.possible = math.floor((band + Fraction(slack)) * matching.below)

    def table(self, subsets: Array) -> Array:
        offs = self.matching.offs(subsets)
        return np.array([off <= self.sure for off in offs], dtype=np.bool_)

    def verdict(self, chosen: Chosen) -> tuple[bool, bool]:
        off = self.matching.residual(chosen) * self.matching.below
        return off <= self.sure, off <= self.possible


class _Vectors(Measure):
    """The distance from the target of a mean of vectors, in whole numbers."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        vectors, given = question.data["vectors"], question.data.get("target")
        d = vectors.shape[1]
        flat = vectors.astype(np.float64).ravel()
        target = np.zeros(0) if given is None or not self.n else np.asarray(given)
        whole, self.unit = whole_numbers(np.concatenate([flat, target]))
        self.columns = [whole[j : self.n * d : d] for j in range(d)]
        # The target in parts of n, where it is the mean.
        self.parts = max(1, self.n) if not target.size else 1
        self.aim = whole[self.n * d :] if target.size else [sum(c) for c in self.columns]
        self._scale(_wide(vectors), question)

    def _scale(self, vectors: Array, question: Question) -> None:
        norms = np.sqrt((vectors * vectors).sum(axis=1))
        scale = spread = float(norms.mean()) if self.n else 0.0
        if self.n and not question.at_most:
            span = float(np.sqrt(((vectors - vectors[0]) ** 2).sum(axis=1)).max())
            spread = min(scale, 16.0 * span)
        self.tolerance = max(float(_precision(question.numbers)) * spread, _LEAST)
        aim = square_root(sum((Fraction(a) ** 2 for a in self.aim), Fraction(0)))
        size = scale * self.n / max(1, self.k) + aim / self.parts * as_float(self.unit)
        size = size if math.isfinite(size) else math.inf
        self.rounding = _ROUNDING * size + 1e-6 * self.tolerance + 2 * self.n * _DENORMAL

    def value(self, chosen: Chosen, weights: Array) -> float:
        """Return the objective under equal weights, or under the weights given."""
        parts, k = self.parts, max(1, self.k)
        total = 0
        for column, aim in zip(self.columns, self.aim, strict=True):
            total += (k * aim - parts * sum(column[j] for j in chosen)) ** 2
        return square_root(Fraction(total, (parts * k) ** 2) * self.unit**2)

    def best(self, subsets: Array) -> float:
        if not subsets.size:
            return math.nan
        parts, k = self.parts, max(1, self.k)
        squares = [0] * subsets.size
        chosen = subsets.tolist()
        for column, aim in zip(self.columns, self.aim, strict=True):
            sums, here = subset_sums(column), k * aim
            squares = [
                square + (here - parts * sums[subset]) ** 2
                for square, subset in zip(squares, chosen, strict=True)
            ]
        return square_root(Fraction(min(squares), (parts * k) ** 2) * self.unit**2)


class _Fitted(_Vectors):
    """The distance under the best nonnegative weights."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.fits: Fits | None = None

    def value(self, chosen: Chosen, weights: Array) -> float:
        exact = [Fraction(weight) for weight in weights.tolist()]
        total = Fraction(0)
        for column, aim in zip(self.columns, self.aim, strict=True):
            reached = sum((w * column[j] for w, j in zip(exact, chosen, strict=True)), Fraction(0))
            total += (Fraction(aim, self.parts) - reached) ** 2
        return square_root(total * self.unit**2)

    def best(self, subsets: Array) -> float:
        if not subsets.size:
            return math.nan
        self.fits = self.fits or Fits(self.columns, self.aim)
        square = self.fits.least(subsets)
        return square_root(square * self.unit**2 / self.parts**2)

    def weights(self, chosen: Chosen) -> Array | None:
        return None


class _Facility(Measure):
    """The sum over all samples of the similarity to the nearest chosen one."""

    maximized = True

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        data = question.data
        if "similarity" in data:
            self.similarity = _wide(data["similarity"])
            reach = float(np.maximum(self.similarity, 0).max(axis=1, initial=0).sum())
        else:
            points = _wide(data["features"])
            self.similarity, reach = _similarities(points, data["metric"])
        self.tolerance = 1e-9 * reach
        self.rounding = 1e-11 * reach

    def value(self, chosen: Chosen, weights: Array) -> float:
        return float(self.similarity[:, list(chosen)].max(axis=1, initial=0).sum())

    def best(self, subsets: Array) -> float:
        if not subsets.size:
            return math.nan
        covered = np.zeros((1, self.n), dtype=_Wide)
        for j in range(self.n):
            covered = np.concatenate([covered, np.maximum(covered, self.similarity[:, j])])
        return float(covered.sum(axis=1)[subsets].max())


def _distances(points: Array) -> Array:
    return np.asarray(np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=2)))


def _off_mean(points: Array) -> Array:
    """Return points less their mean; less one of them first, as the mean is rounded."""
    near = points - points[:1]
    return np.asarray(near - near.mean(axis=0) if len(points) else near)


def _units(points: Array) -> Array:
    norms = np.sqrt((points * points).sum(axis=1, keepdims=True))
    return np.divide(points, norms, out=np.zeros_like(points), where=norms > 0)


def _similarities(points: Array, metric: str) -> tuple[Array, float]:
    """Return the similarities of vectors, and a bound on the value of choosing all."""
    n = len(points)
    if metric == "dot":
        norms = np.sqrt((points * points).sum(axis=1))
        return points @ points.T, float(norms.sum() * norms.max(initial=0))
    if metric == "cosine":
        units = _units(points)
        return 1 + units @ units.T, 2.0 * n
    off, apart = _off_mean(points), _distances(points)
    if metric == "euclidean":
        width = _WIDTH * np.sqrt((off * off).sum(axis=1)).max(initial=0)
        return width - apart, float(n * width)
    variance = (off * off).sum() / max(1, n) or _Wide(1)
    return np.exp(-apart * apart / variance), float(n)


class _Center(Measure):
    """The largest distance of a sample from the nearest chosen one."""

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        points = _wide(question.data["features"])
        if question.data["metric"] == "cosine":
            units = _units(points)
            self.apart = 1 - units @ units.T
            zero = ~units.any(axis=1)
            self.apart[np.ix_(zero, zero)] = 0
            same = (units[:, None] == units[None]).all(axis=2)
            self.apart[same] = 0
            scale, self.rounding = 1.0, 1e-14
        else:
            self.apart = _distances(points)
            off = _off_mean(points)
            scale = float(np.sqrt((off * off).sum(axis=1)).max(initial=0))
            self.rounding = _ROUNDING * scale
        self.tolerance = 2e-9 * scale

    def value(self, chosen: Chosen, weights: Array) -> float:
        return float(self.apart[:, list(chosen)].min(axis=1, initial=np.inf).max(initial=0))

    def table(self, subsets: Array) -> Array:
        return np.asarray((subsets != 0) | (self.n == 0))

    def verdict(self, chosen: Chosen) -> tuple[bool, bool]:
        fits = bool(len(chosen)) or not self.n
        return fits, fits

    def best(self, subsets: Array) -> float:
        if not subsets.size:
            return math.nan
        near = np.full((1, self.n), np.inf, dtype=_Wide)
        for j in range(self.n):
            near = np.concatenate([near, np.minimum(near, self.apart[:, j])])
        return float(near.max(axis=1, initial=0)[subsets].min())


class _Design(Measure):
    """The largest relative deviation of a balance total; no draw is better than another."""

    tolerance = 1e-9

    def __init__(self, question: Question) -> None:
        super().__init__(question)
        self.inclusion = question.data["inclusion"]
        balance = question.data.get("balance")
        self.balance = None if balance is None else _wide(balance.reshape(self.n, -1))
        # Weights of rare candidates are large.
        rare = self.inclusion[self.inclusion > _RARE].min(initial=1.0) * max(1, self.n)
        self.rounding = 1e-12 * max(1.0, 1.0 / rare)
        if self.balance is not None:
            sizes = np.abs(self.balance).mean(axis=0)
            least = float(sizes[sizes > 0].min(initial=np.inf))
            self.rounding += 2 * max(self.n, self.k) * _DENORMAL / least * max(1.0, 1.0 / rare)

    def value(self, chosen: Chosen, weights: Array) -> float:
        if self.balance is None:
            return 0.0
        sizes = np.abs(self.balance).mean(axis=0)
        off = np.abs(weights.astype(_Wide) @ self.balance[list(chosen)] - self.balance.mean(axis=0))
        return float(np.divide(off, sizes, out=np.zeros_like(off), where=sizes > 0).max(initial=0))

    def best(self, subsets: Array) -> float:
        """Return NaN: of random draws none is the best."""
        return math.nan

    def verdict(self, chosen: Chosen) -> tuple[bool, bool]:
        """Return whether a draw has the right size and keeps to probabilities of 0 and 1."""
        drawn = np.zeros(self.n, dtype=np.bool_)
        drawn[list(chosen)] = True
        if self.question.data["replacement"]:
            fits = len(chosen) == self.k and bool((self.inclusion[list(chosen)] > 0.0).all())
            return fits, fits
        fits = len(chosen) == self.k == len(set(chosen))
        never, always = self.inclusion <= 1e-12, self.inclusion >= 1.0 - 1e-12
        fits = fits and not drawn[never].any() and bool(drawn[always].all())
        return fits, fits

    def weights(self, chosen: Chosen) -> Array:
        expected = np.maximum(self.inclusion[list(chosen)], _RARE).astype(_Wide) * self.n
        if self.question.data["replacement"]:
            expected = expected * (max(1, self.k) / self.inclusion.astype(_Wide).sum())
        return np.asarray((1 / expected).astype(np.float64))


_MEASURES: dict[str, Callable[[Question], Measure]] = {
    "mean": _Mean,
    "vectors": _Vectors,
    "fitted": _Fitted,
    "top": _Top,
    "weighted": _Weighted,
    "scored": _Scored,
    "facility": _Facility,
    "center": _Center,
    "design": _Design,
}


def measure_of(question: Question) -> Measure:
    """Return the objective of a question."""
    return _MEASURES[question.kind](question)
