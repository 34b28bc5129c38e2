"""Windows of ascending values that wait to be looked at, and what else bounds keep meanwhile."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.array_types import Floats
from subsetopt.kernels.compiling import uncounted

__all__ = ["DEPTH", "NODE", "Scratch", "push", "sort"]

# The largest number of nodes that wait to be looked at.
DEPTH = 64
# Windows of up to this many numbers are sorted by insertion.
_FEW = 16

#: A node of the tree: a window of ascending values, and what is to be chosen from it.
NODE = np.dtype(
    [
        ("first", np.int64),  # the window's first position
        ("end", np.int64),  # the position after its last
        ("size", np.int64),  # how many of the window to choose
        ("target", np.float64),  # the sum that these should have
    ]
)


class Scratch(NamedTuple):
    """Arrays with arbitrary contents, for the bounds of a pool of m values."""

    numbers: Floats  #: (m + 1,) errors of rounding, or cumulated values
    windows: NDArray[Any]  #: (DEPTH,) of type ``NODE``

    @classmethod
    def of(cls, m: int) -> Scratch:
        """Return the arrays for m values."""
        return cls(np.empty(m + 1), np.empty(DEPTH, NODE))


@uncounted
def push(nodes, waiting, first, end, size, target):
    """Add a node to those that wait to be looked at; return how many there are."""
    node = nodes[waiting]
    node.first, node.end, node.size, node.target = first, end, size, target
    return waiting + 1


@uncounted
def _insert(numbers, first, end):
    """Sort a window of numbers by insertion."""
    for i in range(first + 1, end):
        number = numbers[i]
        j = i
        while j > first and numbers[j - 1] > number:
            numbers[j] = numbers[j - 1]
            j -= 1
        numbers[j] = number


@uncounted
def _part(numbers, first, end):
    """Bring the smaller numbers of a window to its front; return where both parts meet.

    Quicksort's partition around the number in the middle (Hoare): no part is empty.
    """
    pivot = numbers[(first + end - 1) >> 1]
    i, j = first - 1, end
    while True:
        i += 1
        while numbers[i] < pivot:
            i += 1
        j -= 1
        while numbers[j] > pivot:
            j -= 1
        if i >= j:
            return j + 1
        numbers[i], numbers[j] = numbers[j], numbers[i]


@uncounted
def sort(numbers, count, windows):
    """Sort the first ``count`` numbers; ``windows`` is scratch of type ``NODE``, shape (DEPTH,).

    Numba's own sort takes a second to compile.
    """
    first, end, waiting = 0, count, 0
    while True:
        while end - first > _FEW:
            middle = _part(numbers, first, end)
            # The larger part waits, so that never more of them do than a number has bits.
            if middle - first < end - middle:
                waiting = push(windows, waiting, middle, end, 0, 0.0)
                end = middle
            else:
                waiting = push(windows, waiting, first, middle, 0, 0.0)
                first = middle
        _insert(numbers, first, end)
        if waiting == 0:
            return
        waiting -= 1
        first, end = windows[waiting].first, windows[waiting].end
