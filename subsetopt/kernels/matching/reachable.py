"""Which sums of integers are reachable with which count: dynamic programming on bitsets.

Row c of a table of bits says which sums c values reach; taking value a in is a shift by a. The
table after every item is kept, so that a subset is found by walking back.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit

__all__ = ["reachable_table", "walk_back"]

_ONE = np.uint64(1)


@njit(cache=True)
def reachable_table(items, size, words, table):
    """Fill ``table`` (items + 1, size + 1, words) uint64 for nonnegative integer items."""
    table[0, :, :] = 0
    table[0, 0, 0] = _ONE
    for i in range(items.size):
        shift = items[i]
        whole, part = shift // 64, np.uint64(shift % 64)
        rest = np.uint64(64 - shift % 64)
        for c in range(size + 1):
            for w in range(words):
                table[i + 1, c, w] = table[i, c, w]
        for c in range(1, min(size, i + 1) + 1):
            for w in range(words - 1, whole - 1, -1):
                bits = table[i, c - 1, w - whole] << part
                if part and w - whole >= 1:
                    bits |= table[i, c - 1, w - whole - 1] >> rest
                table[i + 1, c, w] |= bits


@njit(cache=True)
def walk_back(items, size, total, table):
    """Return positions of ``size`` items whose sum is ``total``, which must be reachable."""
    chosen = np.empty(size, dtype=np.int64)
    missing = size
    for i in range(items.size, 0, -1):
        if missing == 0:
            break
        word, bit = total // 64, np.uint64(total % 64)
        if (table[i - 1, missing, word] >> bit) & _ONE:
            continue
        missing -= 1
        chosen[missing] = i - 1
        total -= items[i - 1]
    return chosen
