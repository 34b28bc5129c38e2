"""Gains of facility location from products of vectors, without keeping the similarities.

Clients lie in blocks, by coordinate within each, that stay in the cache while candidates pass by,
four at a time; similarities are summed up where they are computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from subsetopt.kernels.compiling import njit
from subsetopt.kernels.threads import share

__all__ = ["BLOCK", "FAR", "add_rises", "compile_all", "fill_rows", "lay_blocks"]

# Clients of one block: they fill an odd number of cache lines, so that coordinates do not compete
# for the same places in the cache.
BLOCK = 496
# A similarity that no product of points reaches.
FAR = np.float32(3e38)
# Multiplications that one core takes on at a time, which take about a millisecond.
_SHARE = 40_000_000

# What the compiler may assume: the inputs are finite, and sums may be taken in any order.
_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}


@njit(cache=True)
def lay_blocks(points, clients, blocks):
    """Write points of some clients to blocks (b, d, BLOCK), zeros at the end."""
    blocks[-1] = np.float32(0.0)
    for i in range(clients.size):
        block, column = blocks[i // BLOCK], i % BLOCK
        for c in range(points.shape[1]):
            block[c, column] = points[clients[i], c]


@njit(cache=True, alone=True, fastmath=_FAST)
def _products(block, chosen, first, out):
    """Write the products of a block with four vectors to the rows of ``out``."""
    d, m = block.shape
    o0, o1, o2, o3 = out[0], out[1], out[2], out[3]
    x0, x1, x2, x3 = chosen[first], chosen[first + 1], chosen[first + 2], chosen[first + 3]
    out[:] = np.float32(0.0)
    c = 0
    while c + 4 <= d:
        v0, v1, v2, v3 = block[c], block[c + 1], block[c + 2], block[c + 3]
        p0, p1, p2, p3 = x0[c], x0[c + 1], x0[c + 2], x0[c + 3]
        q0, q1, q2, q3 = x1[c], x1[c + 1], x1[c + 2], x1[c + 3]
        r0, r1, r2, r3 = x2[c], x2[c + 1], x2[c + 2], x2[c + 3]
        s0, s1, s2, s3 = x3[c], x3[c + 1], x3[c + 2], x3[c + 3]
        for j in range(m):
            a, b, e, f = v0[j], v1[j], v2[j], v3[j]
            o0[j] += a * p0 + b * p1 + e * p2 + f * p3
            o1[j] += a * q0 + b * q1 + e * q2 + f * q3
            o2[j] += a * r0 + b * r1 + e * r2 + f * r3
            o3[j] += a * s0 + b * s1 + e * s2 + f * s3
        c += 4
    while c < d:
        v0 = block[c]
        for j in range(m):
            a = v0[j]
            o0[j] += a * x0[c]
            o1[j] += a * x1[c]
            o2[j] += a * x2[c]
            o3[j] += a * x3[c]
        c += 1


@njit(cache=True, alone=True, fastmath=_FAST)
def _rise(row, low, high):
    """Return the sum of how far values reach from ``low`` to ``high``."""
    total, zero = np.float32(0.0), np.float32(0.0)
    for j in range(row.size):
        reached = row[j] if row[j] < high[j] else high[j]
        more = reached - low[j]
        total += more if more > zero else zero
    return total


@njit(cache=True, nogil=True)
def _add(blocks, low, high, chosen, first, last, totals):
    """Add up the rises of candidates ``first`` to ``last - 1``, a multiple of four of them."""
    products = np.empty((4, BLOCK), dtype=np.float32)
    for b in range(blocks.shape[0]):
        for four in range(first, last, 4):
            _products(blocks[b], chosen, four, products)
            for a in range(4):
                totals[four + a] += _rise(products[a], low[b], high[b])


@njit(cache=True, nogil=True)
def _fill(blocks, chosen, rows, picks, origin, first, last):
    """Write the products with candidates ``first`` to ``last - 1`` to their rows, from a column."""
    products = np.empty((4, BLOCK), dtype=np.float32)
    n = rows.shape[1]
    for b in range(blocks.shape[0]):
        start = origin + b * BLOCK
        width = min(BLOCK, n - start)
        for four in range(first, last, 4):
            _products(blocks[b], chosen, four, products)
            for a in range(min(4, picks.size - four)):
                rows[picks[four + a], start : start + width] = products[a, :width]


def add_rises(blocks: Any, low: Any, high: Any, chosen: Any, totals: Any) -> None:
    """Add to each total the sum over clients of ``max(min(sim, high) - low, 0)``, on all cores.

    Parameters
    ----------
    blocks
        The clients' points as :func:`lay_blocks` writes them, shape (b, d, BLOCK), float32.
    low, high
        The similarities from which, and up to which, a rise counts, shape (b, BLOCK), float32; FAR
        beyond the last client.
    chosen
        The candidates' points, shape (c, d), float32; sim is the product of a client with one.
    totals
        One total per candidate, shape (c,), float64.
    """
    if not blocks.shape[0] or not totals.size:
        return
    padded, parts = _fours(chosen, blocks)
    sums = np.zeros(padded.shape[0])
    share(lambda part: _add(blocks, low, high, padded, *part, sums), parts)
    totals += sums[: totals.size]


def fill_rows(blocks: Any, chosen: Any, rows: Any, picks: Any, origin: int = 0) -> None:
    """Write the products of all clients with candidate ``picks[c]`` to ``rows[picks[c]]``.

    ``rows`` (m, n) is float32; ``blocks`` and ``chosen`` are those of :func:`add_rises`, and the
    first client of the first block stands in column ``origin``.
    """
    padded, parts = _fours(chosen, blocks)
    share(lambda part: _fill(blocks, padded, rows, picks, origin, *part), parts)


def _fours(chosen: Any, blocks: Any) -> tuple[Any, list[tuple[int, int]]]:
    """Return candidates padded to a multiple of four, and where a core's share begins and ends."""
    size = -(-chosen.shape[0] // 4) * 4
    padded = np.zeros((size, blocks.shape[1]), dtype=np.float32)
    padded[: chosen.shape[0]] = chosen
    width = max(1, _SHARE // max(blocks.size, 1) // 4) * 4
    return padded, [(first, min(first + width, size)) for first in range(0, size, width)]


def compile_all() -> None:
    """Compile what only large problems use."""
    blocks, low = np.zeros((1, 1, BLOCK), dtype=np.float32), np.zeros((1, BLOCK), dtype=np.float32)
    lay_blocks(np.zeros((1, 1), dtype=np.float32), np.zeros(1, dtype=np.int64), blocks)
    chosen = np.zeros((1, 1), dtype=np.float32)
    add_rises(blocks, low, low, chosen, np.zeros(1))
    fill_rows(blocks, chosen, chosen, np.zeros(1, dtype=np.int64))
