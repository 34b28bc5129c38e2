"""How precise the numbers are that an objective is given, which decides its tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ROUNDING", "SMALLEST_TOLERANCE", "is_single", "relative_tolerance"]

# Shares of the mean magnitude that count as no difference: for input in single precision or less,
# and for all other input.
_FLOAT32_TOLERANCE = float(np.finfo(np.float32).eps)
_FLOAT64_TOLERANCE = 1e-9
# The smallest tolerance: a smaller difference of two denormal numbers cannot be told from none.
SMALLEST_TOLERANCE = 8 * float(np.finfo(np.float64).smallest_subnormal)

# Relative rounding of float64 sums, which limits how well a target far beyond all data is met.
ROUNDING = 1e-13


def is_single(dtype: np.dtype[Any]) -> bool:
    """Whether values of a dtype are floats in single precision or less."""
    return dtype.itemsize <= 4 and dtype.kind in "fV"


def relative_tolerance(single: bool) -> float:
    """Return the share of the mean magnitude that counts as no difference."""
    return _FLOAT32_TOLERANCE if single else _FLOAT64_TOLERANCE
