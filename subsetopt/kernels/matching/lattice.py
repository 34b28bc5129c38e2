"""The lattice bound: when values are multiples of a quantum, so are their sums.

If every value is ``u * a_i + e_i`` with integers ``a_i`` and small errors ``e_i``, the sum of any
``size`` of them lies on ``u * (size * a_0 + G Z) + [E_low, E_high]`` with ``G`` the gcd of all
``a_i - a_0`` and ``E`` the sum of the ``size`` smallest and largest errors. A target off that
lattice cannot be hit, which no branch and bound finds out. Exact for binary fractions (integers,
ties, float16, bfloat16); for two-decimal values the errors are those of rounding to the dtype.
"""

from __future__ import annotations

import math

import numpy as np

from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.matching.windows import sort

__all__ = ["ROUNDING", "binary_exponent", "lattice_distance"]

# The bits of a float64 that hold its mantissa.
_MANTISSA = (1 << 52) - 1
# A float64 holds every integer up to this one.
_LARGEST = float(1 << 53)
# The largest number of digits after the decimal point that is tried.
_DECIMALS = 4
# Rounding of a sum stays below this part of the magnitudes of its terms.
ROUNDING = 64 * 2.220446049250313e-16
# The relative error of rounding to float32.
_FLOAT32 = 2.0**-23


@uncounted
def _gcd(a, b):
    """Return the greatest common divisor of two nonnegative integers."""
    while b:
        a, b = b, a % b
    return a


@uncounted
def binary_exponent(values, bits):
    """Return the largest e such that all values are multiples of 2**e; 0 when all are 0."""
    lowest = 2000
    for i in range(values.size):
        raw = (bits[i] >> 52) & 0x7FF
        mantissa = bits[i] & _MANTISSA
        if raw:
            mantissa |= 1 << 52
        elif mantissa == 0:
            continue
        else:
            raw = 1
        e = raw - 1075
        while mantissa & 1 == 0:
            mantissa >>= 1
            e += 1
        if e < lowest:
            lowest = e
    return 0 if lowest == 2000 else lowest


@uncounted
def _error_sums(values, unit, inverse, size, scratch):
    """Return the least and the largest sum of the rounding errors of ``size`` values."""
    errors = scratch.numbers
    m = values.size
    for i in range(m):
        errors[i] = values[i] - np.rint(values[i] * inverse) * unit
    sort(errors, m, scratch.windows)
    below, above = 0.0, 0.0
    for i in range(size):
        below += errors[i]
        above += errors[m - size + i]
    return below, above


@uncounted
def _distance(values, unit, inverse, size, target, useful_above, precision, scratch):
    """Return the distance of the target from the sums for one unit; 0 when it is of no use.

    ``precision`` is the error per value up to which it counts as a multiple of the unit, and
    ``inverse`` is 1 / unit.
    """
    first = np.rint(values[0] * inverse)
    worst = abs(values[0] - first * unit)
    if worst > precision:
        return 0.0
    largest = abs(first)
    g = np.int64(0)
    base = np.int64(first)
    for i in range(1, values.size):
        a = np.rint(values[i] * inverse)
        error = abs(values[i] - a * unit)
        if error > worst:
            worst = error
            if worst > precision:
                return 0.0
        if abs(a) > largest:
            largest = abs(a)
        step = np.int64(a) - base
        if step and g != 1:
            g = _gcd(g, abs(step)) if g else abs(step)
            # The lattice cannot be farther from anything than half its step.
            if g * unit * 0.5 <= useful_above:
                return 0.0
    below, above = 0.0, 0.0
    if worst > 0.0:
        below, above = _error_sums(values, unit, inverse, size, scratch)
    offset = target - unit * (size * first)
    slack = ROUNDING * (abs(target) + size * largest * unit)
    if g == 0:
        return max(0.0, max(offset - above, below - offset) - slack)
    step_size = g * unit
    rest = offset - step_size * math.floor(offset / step_size)
    return max(0.0, min(rest - above, step_size - rest + below) - slack)


@uncounted
def lattice_distance(values, bits, size, target, useful_above, scratch):
    """Return a lower bound on ``|sum of size values - target|`` from the lattice they lie on.

    Parameters
    ----------
    values, bits
        Values to choose from, shape (m,), float64, and ``values.view(np.int64)``.
    size, target
        How many to choose, and the sum to hit.
    useful_above
        Bounds up to this one are of no use to the caller, and may come back as 0.
    scratch
        A :class:`Scratch` for m values, written to.
    """
    if values.size == 0 or size == 0:
        return abs(target)
    largest = 0.0
    for i in range(values.size):
        if abs(values[i]) > largest:
            largest = abs(values[i])
    if largest == 0.0:
        return abs(target)
    bound = 0.0
    e = binary_exponent(values, bits)
    # Below 2**-1000 the inverse overflows; sums must stay exact in float64 and int64.
    if e > -1000 and e < 1000:
        unit = 2.0**e
        inverse = 1.0 / unit
        if size * (largest * inverse) < _LARGEST:
            bound = _distance(values, unit, inverse, size, target, useful_above, 0.0, scratch)
    if largest < 1e9 and largest > 1e-9:
        scale = 1.0
        for _ in range(_DECIMALS):
            scale *= 10.0
            if size * (largest * scale) < _LARGEST:
                precision = min(_FLOAT32 * largest, 0.25 / (size * scale))
                of_decimals = _distance(
                    values, 1.0 / scale, scale, size, target, useful_above, precision, scratch
                )
                bound = max(bound, of_decimals)
    return bound
