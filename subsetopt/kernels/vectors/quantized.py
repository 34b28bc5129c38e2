r"""Inner products of many vectors with one, in integers, and how far they may be off.

A solver reads all vectors in every step, and reading them is what the step costs. Of integers it
reads a quarter or an eighth of the bytes; the caller computes in double precision what they leave
open.

*In 16 bits* (:func:`code_rows`), unit vectors are rounded to multiples of 1/SCALE. Their sums of
products lie below SCALE**2, so that 32 bits hold every partial sum. With :math:`q = S v + e` and
:math:`p = S x + f`, no entry of e and f above 1/2,

.. math:: |q \cdot p - S^2\, v \cdot x| \le S \sqrt d + d / 4 ,

a vector or two.

*In 8 bits* (:func:`code_bytes`), every vector has a unit u of its own, a 127th of its largest
entry. With :math:`v = u q + e`,

.. math:: |v \cdot x - u\, q \cdot p / S| \le \|e\| + u \|q\| \sqrt d / (2 S) ,

of which e is known: a few vectors of a thousand.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit, uncounted

__all__ = [
    "NEVER", "SCALE", "WIDEST", "ceilings", "code_bytes", "code_rows", "code_vector", "compile_all",
    "reach",
]  # fmt: skip

SCALE = 32_000
# Coordinates up to which the products of 8 bits with 16 stay within 32.
WIDEST = 250_000
# A key that no vector is below.
NEVER = np.float32(-1e30)
# Rows shorter than this have no inverse of their norm.
_SHORT = 1e-290
# The largest entry of a vector in 8 bits.
_LEVELS = np.float32(127.0)
# The relative error of several roundings in single precision.
_ROUNDING = 2e-6
# The products are below this where their unit is too small for single precision.
_LEAST = 1e-30
# Steps in which numbers of magnitude 1 to 4 are compared as integers.
_COARSE = np.float32(2.0**28)
_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}


@njit(cache=True, fastmath=_FAST)
def _code(row, factor, out):
    for c in range(row.size):
        out[c] = np.int16(np.floor(row[c] * factor + 0.5))
    out[row.size :] = np.int16(0)


@njit(cache=True)
def code_rows(vectors, norms, rows, out):
    """Write some rows, divided by their norms, in 16 bits; rows of norm 0 as zeros."""
    for a in range(rows.size):
        norm = norms[rows[a]]
        if norm > _SHORT:
            _code(vectors[rows[a]], SCALE / norm, out[a])
        elif norm > 0.0:
            _code(vectors[rows[a]] / norm, np.float64(SCALE), out[a])
        else:
            out[a] = np.int16(0)


@uncounted
def code_vector(x, norm, out):
    """Write x, divided by its norm, in 16 bits."""
    _code(x, SCALE / norm, out)


@uncounted
def reach(d):
    """Return how far a product in 16 bits may be off, as a cosine."""
    return (SCALE * np.sqrt(d) + 0.25 * d) / SCALE**2


@njit(cache=True, fastmath=_FAST)
def code_bytes(vectors, norms, lengths, codes, units, errors):
    """Write all rows in 8 bits, and what :func:`ceilings` makes of their products.

    Rows that are too short to be divided by are written as zeros, and all of them as error.

    Parameters
    ----------
    vectors, norms
        (n, d), d at most WIDEST, and (n,) their norms.
    lengths
        (n,) what the products of the vectors are divided by before they are compared; at least the
        norms.
    codes
        (n, width) int8, width at least d.
    units, errors
        (n,) float32: the unit of a product with a vector in 16 bits, and how far it may be off.
    """
    n, d = vectors.shape
    row, half = np.empty(d, dtype=np.float32), np.float32(0.5)
    # One function, and few divisions: what is done once per row costs as much as its entries.
    for i in range(n):
        inverse = 1.0 / norms[i] if norms[i] > _SHORT else 0.0
        bits, error = np.int32(0), np.float32(0.0)
        for c in range(d):
            x = np.float32(vectors[i, c] * inverse)
            row[c] = x
            # The bits of positive numbers are in their order, and of integers, unlike of floats,
            # compilers compare several at once.
            bits = max(bits, np.float32(abs(x)).view(np.int32))
        largest = np.int32(bits).view(np.float32)
        factor = _LEVELS / largest if bits > 0 else np.float32(0.0)
        for c in range(d):
            x = row[c] * factor
            level = np.floor(x + half)
            codes[i, c] = np.int8(np.int32(level))
            error += (x - level) * (x - level)
        for c in range(d, codes.shape[1]):
            codes[i, c] = np.int8(0)
        units[i], errors[i] = largest, error
    inexact, spread = 1.0 + d * _ROUNDING, np.sqrt(d) / (2.0 * SCALE)
    for i in range(n):
        inverse = 1.0 / lengths[i] if lengths[i] > 0.0 else 0.0
        unit = norms[i] * units[i] / np.float64(_LEVELS)
        off = unit * np.sqrt(errors[i] * inexact) if norms[i] > _SHORT else norms[i]
        off += (norms[i] + off) * spread + _ROUNDING * norms[i]
        units[i] = unit * inverse / SCALE
        errors[i] = off * inverse + _LEAST


@uncounted(fastmath=_FAST)
def ceilings(products, units, errors, shut, keys):
    """Write what the product of every vector is at most; return what the largest is at least.

    Vectors whose entry in ``shut`` is not 0 get NEVER.
    """
    floor = np.int32(-(2**31))
    for i in range(products.size):
        product, error = np.float32(products[i]) * units[i], errors[i]
        keys[i] = product + error if shut[i] == 0 else NEVER
        level = np.int32((product - error) * _COARSE)
        floor = max(floor, level if shut[i] == 0 else np.int32(-(2**31)))
    return np.float32(floor - 1) / _COARSE


def compile_all() -> None:
    """Compile what only large problems use."""
    length, single = np.ones(1), np.ones(1, dtype=np.float32)
    code_bytes(np.ones((1, 1)), length, length, np.empty((1, 1), dtype=np.int8), single, single)
