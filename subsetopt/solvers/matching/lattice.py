"""Values as integers: the form in which sums can be enumerated by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.matching.lattice import binary_exponent

__all__ = ["LatticeForm"]

# A float64 holds every integer up to this one.
_LARGEST = float(1 << 53)
# Relative spacing of float32 numbers: decimals written in them are off by no more.
_FLOAT32 = 2.0**-23
# Decimal places that are tried.
_DIGITS = range(1, 5)


@dataclass(frozen=True, eq=False, slots=True)
class LatticeForm:
    """``values[i] = base + step * units[i] + errors[i]`` with nonnegative integer units.

    Attributes
    ----------
    base, step
        The smallest point of the lattice, and the distance between two neighbors.
    units
        Ascending integers, shape (m,); the first is 0, their greatest common divisor 1.
    errors
        What rounding to the dtype has added, shape (m,); 0 for binary fractions.
    """

    base: float
    step: float
    units: NDArray[np.int64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> LatticeForm | None:
        """Return the coarsest lattice that ascending values lie on, or None without one."""
        largest = float(np.abs(values).max()) if values.size else 0.0
        if largest == 0.0:
            return None
        exponent = int(binary_exponent(values, values.view(np.int64)))
        if -1000 < exponent < 1000 and largest * 2.0**-exponent < _LARGEST / 4:
            exact = cls._scaled(values, 2.0**-exponent, 2.0**exponent)
        else:
            exact = None
        if not 1e-9 < largest < 1e9:
            return exact
        for digits in _DIGITS:
            scale = 10.0**digits
            error = np.abs(values - np.rint(values * scale) / scale).max()
            if 0.0 < error <= _FLOAT32 * largest:
                return cls._scaled(values, scale, 1.0 / scale)
        return exact

    @classmethod
    def _scaled(cls, values: NDArray[np.float64], scale: float, unit: float) -> LatticeForm:
        multiples = np.rint(values * scale).astype(np.int64)
        units = multiples - multiples[0]
        divisor = int(np.gcd.reduce(units)) or 1
        return cls(
            base=float(multiples[0]) * unit,
            step=divisor * unit,
            units=units // divisor,
            errors=values - multiples * unit,
        )
