"""A generator that lives in an array: SplitMix64 (Steele, Lea & Flood, OOPSLA 2014).

Kernels stop and go on, so their generator's state is an array that the caller holds; and a kernel
never touches a global generator.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import uncounted

__all__ = ["next_below", "next_bits"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


@uncounted(forceinline=True)
def next_bits(state):
    """Return 64 random bits and advance ``state``, a uint64 array of one."""
    z = state[0] + _GOLDEN
    state[0] = z
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@uncounted(forceinline=True)
def next_below(state, n):
    """Return a random integer in [0, n), n < 2**32 (Lemire's multiply and shift)."""
    return np.int64(((next_bits(state) >> _S32) * np.uint64(n)) >> _S32)
