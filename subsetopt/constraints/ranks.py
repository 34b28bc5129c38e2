"""Sorting of keys: the smallest ones, also of groups, stable orders, and ranks within groups."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["rank_within", "smallest", "smallest_within", "stable_order"]


def smallest(keys: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the positions of the ``count`` smallest keys, in no order; of ties, the first."""
    if count >= keys.size:
        return np.arange(keys.size)
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    largest = np.partition(keys, count - 1)[count - 1]
    below = np.flatnonzero(keys < largest)
    tied = np.flatnonzero(keys == largest)
    return np.concatenate([below, tied[: count - below.size]])


def stable_order(keys: NDArray[Any]) -> NDArray[np.int64]:
    """Return the stable order of keys; NumPy's other sort is faster, and as stable without ties."""
    order = np.argsort(keys)
    ranked = keys[order]
    if (ranked[1:] == ranked[:-1]).any():
        return np.argsort(keys, kind="stable")
    return order


def rank_within(group: NDArray[np.int64], n_groups: int) -> NDArray[np.int64]:
    """Return the position of each entry among the entries of its own group, in order."""
    order = _by_group(group, n_groups)
    counts = np.bincount(group, minlength=n_groups)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.empty(group.size, dtype=np.int64)
    rank[order] = np.arange(group.size) - starts
    return rank


def smallest_within(
    keys: NDArray[np.float64], group: NDArray[np.int64], most: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the positions of the smallest keys of every group, ascending; of ties, the first.

    Parameters
    ----------
    keys, group
        Key and group number of each entry, shape (n,).
    most
        How many entries of each group are wanted at the most, shape (groups,).
    """
    ends = np.cumsum(np.bincount(group, minlength=most.size))
    chosen = np.zeros(keys.size, dtype=np.bool_)
    for own, count in zip(np.split(_by_group(group, most.size), ends[:-1]), most, strict=True):
        chosen[own[smallest(keys[own], count)]] = True
    return np.flatnonzero(chosen)


def _by_group(group: NDArray[np.int64], n_groups: int) -> NDArray[np.int64]:
    """Return the stable order by group number."""
    # NumPy sorts 16-bit integers by radix.
    narrow = group.astype(np.int16) if n_groups <= np.iinfo(np.int16).max else group
    return np.argsort(narrow, kind="stable")
