"""What a capacity allows: costs as whole numbers of a unit, whose sums are exact in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Capacity"]

# The largest sum of costs, in units: float64 holds every whole number up to twice as much.
_LARGEST = float(2**52)
# More units than any capacity has room for.
_BEYOND = float(2**53)
# Share of the capacity by which it is widened where the costs are no decimals of few digits.
_ROUNDING = 1e-12
# A number of more significant digits than this was computed by a machine, and its last digits are
# rounding: nobody types it.
_TYPED_DIGITS = 15
# Share of a computed capacity by which it may have been rounded below a multiple of the unit.
_ROUNDED = 2.0**-44
# Costs that are looked at before all of them, to refuse a number of digits early.
_SAMPLE = 64
# Costs up to this multiple of the capacity are read as decimals before they are compared with it;
# float16 holds three digits.
_ABOUT = 1.001
# The greatest number of digits after the point for which 10**digits is exact in float64.
_MOST_DIGITS = 22


@dataclass(frozen=True, eq=False, slots=True)
class Capacity:
    """Costs and the largest total, both in whole numbers of one unit.

    Integers and decimals are counted exactly: a float is read as the shortest decimal that rounds
    to it (0.1 is a tenth), and the unit is a power of ten. Numbers with too many digits for that
    are counted in a unit below their own rounding, and the capacity is widened by 1e-12 of itself.
    Whole numbers up to 2**52 have exact sums in float64, whatever their order, so that solvers and
    the check of an answer cannot disagree.

    Attributes
    ----------
    costs
        Cost per candidate in units, shape (n,), whole numbers; ``largest + 1`` for every candidate
        that costs more than the capacity by itself.
    largest
        The largest total in units, a whole number; -1 where the capacity is negative.
    given, limit
        The costs and the capacity as they were given.
    """

    costs: NDArray[np.float64]
    largest: float
    given: NDArray[Any]
    limit: float

    @classmethod
    def of(cls, costs: NDArray[Any], limit: float, k: int) -> Capacity | None:
        """Return the normal form, or None where the capacity is infinite.

        Parameters
        ----------
        costs
            Finite costs of at least 0, shape (n,), of an integer or float dtype.
        limit
            The largest total, an int or a float that may be infinite.
        k
            The most candidates that can be chosen.
        """
        if limit == math.inf:
            return None
        if limit < 0:
            return cls(np.zeros(costs.size), -1.0, costs, limit)
        counted = _integers(costs, limit) if costs.dtype.kind in "iub" else _decimals(costs, limit)
        units, largest = counted or _rounded(costs, limit, k)
        # The capacity may have room for all that fit into it one by one.
        largest = min(largest, float(units[units <= largest].sum()))
        units[units > largest] = largest + 1.0
        return cls(units, largest, costs, limit)

    def affords(self, indices: NDArray[np.int64]) -> bool:
        """Whether the total cost of the candidates ``indices`` is within the capacity."""
        return float(self.costs[indices].sum()) <= self.largest

    def comparison(self, indices: NDArray[np.int64]) -> tuple[str, str]:
        """Return the total cost of the candidates ``indices`` and the capacity, for a message."""
        chosen = self.given[indices]
        if self.given.dtype.kind in "iub":
            return str(sum(chosen.tolist())), _shown(self.limit)
        total, limit = _shown(math.fsum(chosen.tolist())), _shown(self.limit)
        if total == limit:
            total = str(sum((Decimal(str(cost)) for cost in chosen), Decimal(0)))
        return total, limit


def _shown(number: float) -> str:
    """Return a number with the digits that float64 keeps of any decimal."""
    if isinstance(number, int) or (number.is_integer() and abs(number) <= 2 * _LARGEST):
        return str(int(number))
    return f"{number:.{_TYPED_DIGITS}g}"


def _integers(costs: NDArray[Any], limit: float) -> tuple[NDArray[np.float64], float]:
    """Return integer costs and the capacity in units of one.

    Where sums do not fit, the unit is the costs' greatest common divisor; where they still do not,
    a multiple of it, and then costs are rounded up.
    """
    whole = costs.astype(np.uint64)
    most = _multiples(limit, 0)
    affordable = whole <= np.uint64(min(most, np.iinfo(np.uint64).max))
    own, unit = whole[affordable], 1
    if float(own.sum(dtype=np.float64)) > _LARGEST:
        unit = int(np.gcd.reduce(own))
        while float(_ceil_divided(own, unit).sum(dtype=np.float64)) > _LARGEST:
            unit *= 2
        own = _ceil_divided(own, unit)
    units = np.full(costs.size, np.inf)
    units[affordable] = own
    return units, float(min(most // unit, int(_BEYOND)))


def _ceil_divided(whole: NDArray[np.uint64], unit: int) -> NDArray[np.uint64]:
    """Return the quotients, rounded up."""
    quotient, rest = np.divmod(whole, np.uint64(unit))
    rounded: NDArray[np.uint64] = quotient + (rest > 0)
    return rounded


def _decimals(costs: NDArray[Any], limit: float) -> tuple[NDArray[np.float64], float] | None:
    """Return the costs and the capacity in units of a power of ten; None where there is none."""
    affordable = costs.astype(np.float64) <= _as_float(limit) * _ABOUT
    own = costs[affordable]
    total, highest = float(own.sum(dtype=np.float64)), float(own.max(initial=0.0))
    # A narrow float is nearest to some decimal of few digits by chance.
    typed = 10.0 ** np.finfo(costs.dtype).precision if costs.itemsize < 8 else math.inf
    for digits in range(_MOST_DIGITS + 1):
        if total * 10.0**digits > _LARGEST or (digits and highest * 10.0**digits > typed):
            return None
        if _has_digits(own[:_SAMPLE], digits) and _has_digits(own, digits):
            units = np.full(costs.size, np.inf)
            units[affordable] = np.rint(own.astype(np.float64) * 10.0**digits)
            return units, float(min(_multiples(limit, digits), int(_BEYOND)))
    return None


def _has_digits(costs: NDArray[Any], digits: int) -> bool:
    """Whether all costs are floats nearest to decimals with so many digits after the point."""
    unit = 10.0**digits
    nearest = np.rint(costs.astype(np.float64) * unit) / unit
    return bool((nearest.astype(costs.dtype) == costs).all())


def _multiples(limit: float, digits: int) -> int:
    """Return how often ``10**-digits`` goes into a capacity of at least 0, read as a decimal.

    One more where the capacity is a computed one that rounding has left just below a multiple.
    """
    read = Fraction(limit) if isinstance(limit, int) else Fraction(repr(limit))
    quotient = read * 10**digits
    whole: int = math.floor(quotient)
    computed = isinstance(limit, float) and _significant_digits(limit) > _TYPED_DIGITS
    if computed and 0 < whole + 1 - quotient <= Fraction(_ROUNDED) * quotient:
        return whole + 1 if quotient != whole else whole
    return whole


def _significant_digits(number: float) -> int:
    return len(Decimal(repr(number)).normalize().as_tuple().digits)


def _rounded(costs: NDArray[Any], limit: float, k: int) -> tuple[NDArray[np.float64], float]:
    """Return costs and a widened capacity in units of a power of two below the costs' rounding."""
    vector = costs.astype(np.float64)
    widened = _as_float(limit) * (1.0 + _ROUNDING)
    affordable = vector <= widened
    own = vector[affordable]
    total = float(own.sum())
    shift = 51 - math.frexp(total)[1]
    units = np.full(costs.size, np.inf)
    units[affordable] = np.rint(np.ldexp(own, shift))
    if total <= widened:
        return units, _BEYOND
    # Each cost is rounded by half a unit at most.
    return units, float(math.floor(math.ldexp(widened, shift)) + k // 2)


def _as_float(limit: float) -> float:
    """Return a capacity as a float; the largest one for an integer beyond all floats."""
    try:
        return float(limit)
    except OverflowError:
        return float(np.finfo(np.float64).max)
