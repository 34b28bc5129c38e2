"""The cube method as the textbook has it, in NumPy: a reference to read, and to be faster than."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["plain_cube"]

_DECIDED = 1e-10


def plain_cube(
    balance: NDArray[np.float64], inclusion: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw a sample that is balanced on the size and the columns of ``balance``.

    Flight (Chauvet & Tille 2006): take the first p + 2 undecided units, whose p + 1 columns have a
    null vector, and move along it, up or down, until one is decided. Landing: drop the last
    variable, and fly again, until only the size is left.
    """
    pi = inclusion.copy()
    columns = np.column_stack([np.ones(pi.size), balance / inclusion[:, None]])
    for rows in range(columns.shape[1], 0, -1):
        fly(columns[:, :rows], pi, rng)
    return np.flatnonzero(pi > 0.5)


def fly(columns: NDArray[np.float64], pi: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Move pi in the null space of the columns until fewer units than these need are undecided."""
    undecided = rng.permutation(np.flatnonzero((pi > _DECIDED) & (pi < 1.0 - _DECIDED)))
    block, rest = undecided[: columns.shape[1] + 1], undecided[columns.shape[1] + 1 :]
    while block.size == columns.shape[1] + 1:
        null = np.linalg.svd(columns[block].T)[2][-1]
        pi[block] = moved(pi[block], null, rng)
        block = block[(pi[block] > _DECIDED) & (pi[block] < 1.0 - _DECIDED)]
        missing = columns.shape[1] + 1 - block.size
        block, rest = np.append(block, rest[:missing]), rest[missing:]


def moved(
    pi: NDArray[np.float64], null: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the probabilities at one end of the line through them, chosen without bias."""
    with np.errstate(divide="ignore"):
        ends = np.sort([-pi / null, (1.0 - pi) / null], axis=0)
    down, up = -ends[0].max(), ends[1].min()
    step = up if rng.random() * (up + down) < down else -down
    there: NDArray[np.float64] = np.clip(pi + step * null, 0.0, 1.0)
    return there
