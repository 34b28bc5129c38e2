"""Sorting single-precision values together with their positions, by radix.

The bits of a float32, with the sign bit flipped (all bits for negative numbers), compare as the
numbers do. Three stable passes over 11, 11 and 10 of these bits sort values and positions in O(n),
several times faster than finding the order of floats by comparison.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["ascending"]

_DIGIT = 11
_BUCKETS = 1 << _DIGIT
_SIGN = np.uint32(0x80000000)
_ALL = np.uint32(0xFFFFFFFF)


@njit(cache=True)
def ascending(bits):
    """Sort float32 values given by their bits.

    Parameters
    ----------
    bits
        ``values.view(np.uint32)``, shape (n,), n < 2**31.

    Returns
    -------
    tuple
        The bits (n,) uint32 in ascending order of the values, and their positions (n,) int32;
        equal values stay in order.
    """
    n = bits.size
    counts = np.zeros((3, _BUCKETS), dtype=np.int32)
    keys = np.empty(n, dtype=np.uint32)
    order = np.empty(n, dtype=np.int32)
    for i in range(n):
        key = bits[i] ^ (_ALL if bits[i] & _SIGN else _SIGN)
        keys[i] = key
        order[i] = i
        counts[0, np.int64(key & np.uint32(_BUCKETS - 1))] += 1
        counts[1, np.int64((key >> np.uint32(_DIGIT)) & np.uint32(_BUCKETS - 1))] += 1
        counts[2, np.int64(key >> np.uint32(2 * _DIGIT))] += 1
    next_keys = np.empty(n, dtype=np.uint32)
    next_order = np.empty(n, dtype=np.int32)
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
    return keys, order
