r"""Inner products of many unit vectors with one, in 16-bit integers, and how far they may be off.

Coordinates are rounded to multiples of 1/SCALE. Vectors of norm 1 have sums of products below
SCALE**2, so that 32 bits hold every partial sum, and processors add up many at once. With
:math:`q = S v + e` and :math:`p = S x + f`, no entry of e and f above 1/2,

.. math:: |q \cdot p - S^2\, v \cdot x| \le S \sqrt d + d / 4 .

The caller computes in double precision what this leaves open, a vector or two.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["NEVER", "SCALE", "code_rows", "code_vector", "multiply", "reach", "screen"]

SCALE = 32_000
# The product of a vector that may not be chosen.
NEVER = -(2**31)
# Rows shorter than this have no inverse of their norm.
_SHORT = 1e-290


@njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def _code(row, factor, out):
    for c in range(row.size):
        out[c] = np.int16(np.floor(row[c] * factor + 0.5))


@njit(cache=True)
def code_rows(vectors, norms, rows, out):
    """Write some rows, divided by their norms, as integers; rows of norm 0 as zeros."""
    for a in range(rows.size):
        norm = norms[rows[a]]
        if norm > _SHORT:
            _code(vectors[rows[a]], SCALE / norm, out[a])
        elif norm > 0.0:
            _code(vectors[rows[a]] / norm, np.float64(SCALE), out[a])
        else:
            out[a] = np.int16(0)


@njit(cache=True)
def code_vector(x, norm, out):
    """Write x, divided by its norm, as integers."""
    _code(x, SCALE / norm, out)


@njit(cache=True)
def reach(d):
    """Return how far a product may be off, as a cosine."""
    return (SCALE * np.sqrt(d) + 0.25 * d) / SCALE**2


@njit(cache=True)
def multiply(codes, code, products):
    """Write the products of all rows with one vector."""
    for i in range(codes.shape[0]):
        total = np.int32(0)
        row = codes[i]
        # Every operation in 32 bits: then the compiler multiplies and adds pairs in one.
        for c in range(code.size):
            total = np.int32(total + np.int32(np.int32(row[c]) * np.int32(code[c])))
        products[i] = total


@njit(cache=True)
def screen(codes, code, shut, products):
    """Write the products of all rows with one vector; return the largest.

    Rows whose entry in ``shut`` is not 0 get NEVER.
    """
    multiply(codes, code, products)
    largest = np.int32(NEVER)
    for i in range(products.size):
        products[i] = products[i] if shut[i] == 0 else np.int32(NEVER)
        largest = max(largest, products[i])
    return largest
