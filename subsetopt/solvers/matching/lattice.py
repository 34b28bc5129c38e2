"""Values as integers: the form in which sums can be enumerated by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.matching.lattice import binary_exponent

__all__ = ["LatticeForm"]

_LARGEST = float(1 << 53)
_FLOAT32 = 2.0**-23


@dataclass(frozen=True, eq=False, slots=True)
class LatticeForm:
    """``values[i] = base + step * units[i] + errors[i]`` with nonnegative integer units.

    Attributes
    ----------
    base, step
        Offset and quantum of the lattice.
    units
        Ascending integers (m,), the first 0, their gcd 1.
    errors
        What rounding to the dtype has added, (m,); 0 for binary fractions.
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
        for digits in range(1, 5):
            scale = 10.0**digits
            off = np.abs(values - np.rint(values * scale) / scale).max()
            if 0.0 < off <= _FLOAT32 * largest:
                return cls._scaled(values, scale, 1.0 / scale)
        return exact

    @classmethod
    def _scaled(cls, values: NDArray[np.float64], scale: float, unit: float) -> LatticeForm:
        ints = np.rint(values * scale).astype(np.int64)
        units = ints - ints[0]
        common = int(np.gcd.reduce(units)) or 1
        return cls(
            base=float(ints[0]) * unit,
            step=common * unit,
            units=units // common,
            errors=values - ints * unit,
        )
