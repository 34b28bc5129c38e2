"""The squared norms and the sum of vectors in one pass, which reads them from memory once."""

from __future__ import annotations

from subsetopt.kernels.compiling import njit

__all__ = ["squares_and_sum"]


# Terms are added in any order, so that several are added at a time; inf and nan keep their meaning.
@njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"})
def squares_and_sum(vectors, squares, total):
    """Write the squared norms of the rows to ``squares`` (n,), add the rows to ``total`` (d,)."""
    for i in range(vectors.shape[0]):
        row, square = vectors[i], 0.0
        for c in range(total.size):
            square += row[c] * row[c]
            total[c] += row[c]
        squares[i] = square
