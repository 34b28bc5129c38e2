"""From the ids that samples come with to their positions in a part of a data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import subsetopt as so

__all__ = ["IdTranslation"]


class IdTranslation:
    """Gives the position of the sample with an id.

    Parameters
    ----------
    ids
        The id of each sample, shape (n,), int64; None where it is the position.

    Raises
    ------
    OptionError
        If two samples have one id.
    """

    def __init__(self, ids: NDArray[np.int64] | None) -> None:
        if ids is not None and np.array_equal(ids, np.arange(ids.size)):
            ids = None
        self._order = None if ids is None else np.argsort(ids, kind="stable")
        self._ids = None if ids is None else np.sort(ids)
        if self._ids is not None and (self._ids[1:] == self._ids[:-1]).any():
            twice = self._ids[1:][self._ids[1:] == self._ids[:-1]][0]
            raise so.OptionError(
                f"the data set holds the sample of id {twice} twice, so that ids do not tell its "
                "samples apart: put WithIds around the whole, WithIds(Subset(data, indices))."
            )

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of samples; a negative number for an id that no sample has."""
        if self._ids is None or self._order is None:
            return ids
        at = np.minimum(np.searchsorted(self._ids, ids), self._ids.size - 1)
        return np.where(self._ids[at] == ids, self._order[at], -1 - ids)
