"""The ids of a data set in the order of their losses, kept in order while a few of them change."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LossOrder", "rank_keys"]

# A key has the loss in its upper 32 bits, and the mixed id in the lower ones, which a mask takes.
_WORD = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
# The sign bit of a number in single precision.
_SIGN = np.uint32(0x80000000)
# The factors of the finalizer of MurmurHash3 (public domain), a one-to-one mixing of 32 bits, and
# those of its inverse.
_MIX = (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))
_UNMIX = tuple(np.uint32(pow(int(factor), -1, 1 << 32)) for factor in _MIX)
# The largest share of the ids whose keys are moved one by one; beyond it sorting all is faster.
_FEW = 1 / 16


class LossOrder:
    """The ids 0 to n-1, those with the largest losses first.

    It is one sorted array of 64-bit keys: the loss in single precision above the mixed bits of the
    id, which order equal losses at random and from which the id is read back. The order depends on
    the losses and the salt alone, and not on former losses.

    Parameters
    ----------
    losses
        Latest losses, shape (n,), float64; NaN for ids never seen, which come first.
    salt
        A number below 2**32 that settles the order of equal losses.

    Notes
    -----
    Building it takes O(n log n). ``update`` of m ids moves O(n) numbers in memory and takes
    O(m log n) besides; looking up a rank takes O(1).

    Examples
    --------
    >>> order = LossOrder(np.array([0.5, 3.0, np.nan, 1.0]), salt=0)
    >>> order.ids(np.arange(4))
    array([2, 1, 3, 0])
    >>> order.update(np.array([2]), np.array([0.1]))
    >>> order.ids(np.arange(4))
    array([1, 3, 0, 2])
    """

    __slots__ = ("_keys", "_salt", "_sorted")

    def __init__(self, losses: NDArray[np.float64], salt: int) -> None:
        self._salt = salt
        self._keys = rank_keys(losses, np.arange(losses.size), salt)
        self._sorted = np.sort(self._keys)

    def __len__(self) -> int:
        return self._keys.size

    def ids(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ids that have these ranks; rank 0 is the largest loss."""
        mixed = (self._sorted[ranks] & _LOW).astype(np.uint32)
        return (_unmixed(mixed) ^ np.uint32(self._salt)).astype(np.int64)

    def update(self, ids: NDArray[np.int64], losses: NDArray[np.float64]) -> None:
        """Give distinct ids new losses."""
        old, new = self._keys[ids], rank_keys(losses, ids, self._salt)
        self._keys[ids] = new
        if ids.size > _FEW * self._keys.size:
            self._sorted = np.sort(self._keys)
        elif ids.size:
            self._sorted = _moved(self._sorted, old, new)


def rank_keys(
    losses: NDArray[np.float64], ids: NDArray[np.integer[Any]], salt: int
) -> NDArray[np.uint64]:
    """Return numbers that sort as losses do in descending order, in single precision.

    NaN, for an id never seen, comes first; equal losses come in an order that the salt settles.
    """
    single = losses.astype(np.float32) + np.float32(0.0)  # no -0.0, whose bits differ from 0.0
    bits = np.where(np.isnan(single), np.float32(np.inf), single).view(np.uint32)
    # Bits of positive floats compare as the floats do, those of negative ones the other way round.
    descending = np.where(bits & _SIGN, bits, ~(bits | _SIGN))
    mixed = _mixed(ids.astype(np.uint32) ^ np.uint32(salt))
    return (descending.astype(np.uint64) << _WORD) | mixed.astype(np.uint64)


def _moved(
    ordered: NDArray[np.uint64], old: NDArray[np.uint64], new: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return a sorted array with some of its keys taken out and as many others put in."""
    kept = np.delete(ordered, np.searchsorted(ordered, np.sort(old)))
    added = np.sort(new)
    places = np.searchsorted(kept, added).tolist()
    # Copying whole pieces is several times as fast as numpy.insert, which works with a mask.
    pieces = []
    for i, (start, end) in enumerate(zip([0, *places], [*places, kept.size], strict=True)):
        pieces += [kept[start:end], added[i : i + 1]]
    return np.concatenate(pieces)


def _mixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    values = (values ^ (values >> np.uint32(16))) * _MIX[0]
    values = (values ^ (values >> np.uint32(13))) * _MIX[1]
    return values ^ (values >> np.uint32(16))


def _unmixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    values = (values ^ (values >> np.uint32(16))) * _UNMIX[1]
    values = values ^ (values >> np.uint32(13)) ^ (values >> np.uint32(26))
    values = values * _UNMIX[0]
    return values ^ (values >> np.uint32(16))
