"""Sorting single-precision values together with their positions, by radix.

The bits of a float32, with the sign bit flipped (all bits for negative numbers), compare as the
numbers do. Three stable passes over 11, 11 and 10 of these bits sort values and positions in O(n),
several times faster than finding the order of floats by comparison.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from subsetopt.kernels.compiling import njit

__all__ = ["ascending", "compile_all"]

# The number of bits that one pass sorts by, and the number of buckets that this makes.
_DIGIT = 11
_BUCKETS = 1 << _DIGIT
# The sign bit of a float32, and all of its bits.
_SIGN = np.uint32(0x80000000)
_ALL = np.uint32(0xFFFFFFFF)


def ascending(values: Any) -> tuple[Any, Any]:
    """Sort values that float32 holds exactly.

    Parameters
    ----------
    values
        Shape (n,), float32 or float64, n < 2**31.

    Returns
    -------
    tuple
        The values in ascending order, (n,) float64, and their positions (n,) int64; equal values
        stay in order.
    """
    n = values.size
    # NumPy allocates these: for large arrays it asks for large pages, as compiled code does not.
    keys = values.astype(np.float32).view(np.uint32)
    order, spare = np.empty(n, dtype=np.int32), np.empty(n, dtype=np.int32)
    ordered, places = np.empty(n), np.empty(n, dtype=np.int64)
    _sort(keys, order, np.empty(n, dtype=np.uint32), spare, ordered, places)
    return ordered, places


def compile_all() -> None:
    """Compile what only large problems use."""
    ascending(np.zeros(1))


@njit(cache=True)
def _sort(keys, order, next_keys, next_order, ordered, places):
    """Write values given by their bits in ascending order, and their positions; keys are lost."""
    n = keys.size
    counts = np.zeros((3, _BUCKETS), dtype=np.int32)
    for i in range(n):
        key = keys[i] ^ (_ALL if keys[i] & _SIGN else _SIGN)
        keys[i] = key
        order[i] = i
        counts[0, np.int64(key & np.uint32(_BUCKETS - 1))] += 1
        counts[1, np.int64((key >> np.uint32(_DIGIT)) & np.uint32(_BUCKETS - 1))] += 1
        counts[2, np.int64(key >> np.uint32(2 * _DIGIT))] += 1
    for digit in range(3):
        shift = np.uint32(digit * _DIGIT)
        place = 0
        for b in range(_BUCKETS):
            count = counts[digit, b]
            counts[digit, b] = place
            place += count
        for i in range(n):
            b = np.int64((keys[i] >> shift) & np.uint32(_BUCKETS - 1))
            at = counts[digit, b]
            counts[digit, b] = at + 1
            next_keys[at] = keys[i]
            next_order[at] = order[i]
        keys, next_keys = next_keys, keys
        order, next_order = next_order, order
    for i in range(n):
        keys[i] ^= _SIGN if keys[i] & _SIGN else _ALL
    floats = keys.view(np.float32)
    for i in range(n):
        ordered[i] = floats[i]
        places[i] = order[i]
