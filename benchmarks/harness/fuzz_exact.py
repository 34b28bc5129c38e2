"""Exact arithmetic on small problems: whole numbers, sums of all subsets, what constraints allow.

A subset is a whole number whose bit j tells whether candidate j is chosen, and a table has one
entry per subset, in the order of these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.fuzz_questions import Question

__all__ = ["Allowed", "as_float", "members", "square_root", "subset_sums", "whole_numbers"]

# Costs that are written down have at most so many significant digits; others were computed.
_TYPED_DIGITS = 15
# Decimals and integers are exact while the sum of all affordable costs, in units, is at most this.
_EXACT_UNITS = 2**52
# Share of the capacity by which costs that are not exact may exceed it: twice the widening that is
# documented.
_WIDENING = Fraction(22, 10**13)
# Share of the capacity that may be lost where integer costs beyond 2**52 are rounded.
_COARSENING = Fraction(1, 2**51)
_TABLES = 14
_BITS = np.zeros(1, dtype=np.int64)
for _ in range(_TABLES):
    _BITS = np.concatenate([_BITS, _BITS + 1])


def whole_numbers(values: NDArray[Any]) -> tuple[list[int], Fraction]:
    """Return finite numbers, of any shape, as a flat list of multiples of a unit, and the unit."""
    pairs = [number.as_integer_ratio() for number in values.astype(np.float64).ravel().tolist()]
    most = max((below for _, below in pairs), default=1)
    whole = [above * (most // below) for above, below in pairs]
    common = math.gcd(*whole) or 1
    return [number // common for number in whole], Fraction(common, most)


def subset_sums(numbers: Sequence[int]) -> list[int]:
    """Return the sum of every subset: a table."""
    sums = [0]
    for number in numbers:
        sums += [total + number for total in sums]
    return sums


def members(subset: int) -> list[int]:
    """Return the candidates of a subset."""
    return [j for j in range(subset.bit_length()) if subset >> j & 1]


def as_float(number: Fraction) -> float:
    """Return a fraction as the nearest float, an infinity where there is none."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def square_root(number: Fraction) -> float:
    """Return the square root of a fraction, correct to 60 digits in base two."""
    if number <= 0:
        return 0.0
    above, below = number.numerator, number.denominator
    shift = 130 - above.bit_length() + below.bit_length()
    shift += shift % 2
    scaled = (above << shift) // below if shift >= 0 else above // (below << -shift)
    return as_float(Fraction(math.isqrt(scaled)) * Fraction(2) ** (-(shift // 2)))


class Allowed:
    """What the constraints of a question allow, read as the documentation has them."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.n, self.k = question.n, question.k
        rules = question.keywords
        self.include = _candidates(rules.get("include"), self.n)
        self.exclude = _candidates(rules.get("exclude"), self.n)
        self.quotas: list[tuple[int, int, int]] = []
        for label, quota in rules.get("quotas", {}).items():
            low, high = quota if isinstance(quota, tuple) else (quota, quota)
            bears = [bool(group == label) for group in rules["groups"]]
            self.quotas.append((_subset(np.flatnonzero(bears)), low, high))

    @cached_property
    def readings(self) -> list[tuple[list[Fraction], Fraction, Fraction]]:
        """The costs and the capacities below which a subset is surely, and possibly, affordable.

        Narrow floats may be read as decimals and as binary numbers.
        """
        capacity, costs = self.question.keywords.get("capacity"), self.question.keywords["costs"]
        limit = Fraction(str(capacity))
        readings = [[Fraction(str(cost)) for cost in costs]]
        if costs.dtype.kind == "f" and costs.dtype.itemsize < 8:
            readings.append([Fraction(float(cost)) for cost in costs])
        return [(own, *_limits(own, limit, costs.dtype)) for own in readings]

    @property
    def limited(self) -> bool:
        """Whether there is a capacity, and it is not infinite."""
        capacity = self.question.keywords.get("capacity")
        return capacity is not None and capacity != math.inf

    def table(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the subsets that may pass for feasible, and which of them surely are."""
        subsets = np.arange(1 << self.n)
        sizes = _BITS[: subsets.size]
        keep = sizes <= self.k if self.question.at_most else sizes == self.k
        keep &= (subsets & self.include) == self.include
        keep &= (subsets & self.exclude) == 0
        for bearers, low, high in self.quotas:
            counts = _BITS[subsets & bearers]
            keep &= (low <= counts) & (counts <= high)
        subsets = subsets[keep]
        surely = np.ones(subsets.size, dtype=np.bool_)
        if not self.limited or not subsets.size:
            return subsets, surely
        possibly = np.zeros(subsets.size, dtype=np.bool_)
        for costs, sure, possible in self.readings:
            below = math.lcm(*(cost.denominator for cost in costs)) if costs else 1
            sums = subset_sums([cost.numerator * (below // cost.denominator) for cost in costs])
            own = [sums[subset] for subset in subsets.tolist()]
            surely &= _at_most(own, sure * below)
            possibly |= _at_most(own, possible * below)
        return subsets[possibly], surely[possibly]

    def verdict(self, chosen: Sequence[int]) -> tuple[bool, bool]:
        """Return whether a set of candidates is surely, and whether it is possibly allowed."""
        subset = _subset(chosen)
        size = len(chosen)
        fits = size <= self.k if self.question.at_most else size == self.k
        fits = fits and subset & self.include == self.include and not subset & self.exclude
        for bearers, low, high in self.quotas:
            fits = fits and low <= (subset & bearers).bit_count() <= high
        if not fits or not self.limited:
            return fits, fits
        totals = [
            (sum((costs[j] for j in chosen), Fraction(0)), sure, possible)
            for costs, sure, possible in self.readings
        ]
        return (
            all(total <= sure for total, sure, _ in totals),
            any(total <= possible for total, _, possible in totals),
        )


def _at_most(sums: list[int], limit: Fraction) -> NDArray[np.bool_]:
    whole = math.floor(limit)
    return np.array([total <= whole for total in sums], dtype=np.bool_)


def _subset(chosen: Any) -> int:
    return sum(1 << int(j) for j in chosen)


def _candidates(named: Any, n: int) -> int:
    """Return the subset that include or exclude names, as indices or as a mask."""
    if named is None or not len(named):
        return 0
    array = np.asarray(named)
    return _subset(np.flatnonzero(array) if array.dtype == np.bool_ else array)


def _limits(
    costs: list[Fraction], limit: Fraction, dtype: np.dtype[Any]
) -> tuple[Fraction, Fraction]:
    """Return up to which total a subset is surely, and up to which it is possibly affordable."""
    if limit < 0:
        return limit, limit
    affordable = [cost for cost in costs if cost <= limit * Fraction(1001, 1000)]
    unit = math.lcm(*(cost.denominator for cost in affordable)) if affordable else 1
    if _is_decimal(unit) and sum(affordable) * _power_of_ten(unit) <= _EXACT_UNITS:
        if _digits(limit) <= _TYPED_DIGITS or limit.denominator == 1:
            return limit, limit
        return limit, limit * (1 + _WIDENING)
    if dtype.kind in "iu":
        return limit * (1 - _COARSENING * len(costs)), limit
    return limit, limit * (1 + _WIDENING)


def _is_decimal(number: int) -> bool:
    """Whether a number has no prime factor but 2 and 5."""
    for prime in (2, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


def _power_of_ten(divisor: int) -> int:
    """Return the least power of ten that a number with the primes 2 and 5 divides."""
    power = 1
    while power % divisor:
        power *= 10
    return power


def _digits(number: Fraction) -> int:
    """Return how many significant digits a decimal has; many where it is none."""
    if not _is_decimal(number.denominator):
        return 1000
    whole = abs(number.numerator) * (_power_of_ten(number.denominator) // number.denominator)
    return len(str(whole).rstrip("0"))
