"""From the ids that samples come with to their positions in a data set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from subsetopt.policies import to_host
from subsetopt.policies.parts.sample_ids import checked_ids
from subsetopt_torch.arguments import Ids, as_ids
from subsetopt_torch.loading.issued_batches import shown_ids

__all__ = ["IdTranslation", "ids_of_samples"]


class IdTranslation:
    """Gives the position of the sample with an id.

    Parameters
    ----------
    ids
        The id of each sample, shape (n,), int64 or objects; None where it is the position.

    Raises
    ------
    OptionError
        If two samples have one id.
    """

    def __init__(self, ids: NDArray[Any] | None) -> None:
        if ids is not None and ids.dtype.kind == "i" and np.array_equal(ids, np.arange(ids.size)):
            ids = None
        self._ids: NDArray[np.int64] | None = None
        self._order: NDArray[np.int64] | None = None
        self._by_text: dict[str | bytes, int] | None = None
        if ids is None:
            return
        if ids.dtype.kind == "O":
            self._by_text = {}
            for position, text in enumerate(ids.tolist()):
                if self._by_text.setdefault(text, position) != position:
                    raise _twice(repr(text))
            return
        self._order = np.argsort(ids, kind="stable")
        self._ids = np.sort(ids)
        same = self._ids[1:] == self._ids[:-1]
        if same.any():
            raise _twice(self._ids[1:][same][0])

    def positions(self, ids: Ids) -> NDArray[np.int64]:
        """Return the positions of samples; a negative number for an id that no sample has.

        Raises
        ------
        ProblemError
            If the ids are no vector of what tells these samples apart.
        """
        array = to_host(as_ids(ids))
        expected, kinds = ("integers", "iu") if self._by_text is None else ("strings or bytes", "O")
        if array.ndim != 1 or array.dtype.kind not in kinds:
            raise so.ProblemError(
                f"ids must be a vector of {expected}, got shape {array.shape} and dtype "
                f"{array.dtype}; pass the ids that the data set returns, for example those of "
                "WithIds. Where these are not the positions of the samples, give them to the "
                "sampler as ids=, one per sample."
            )
        if self._by_text is not None:
            found = (self._by_text.get(text, -1) for text in array.tolist())
            return np.fromiter(found, np.int64, array.size)
        integers = array.astype(np.int64, copy=False)
        if self._ids is None or self._order is None:
            return integers
        at = np.minimum(np.searchsorted(self._ids, integers), self._ids.size - 1)
        return np.where(self._ids[at] == integers, self._order[at], -1)

    def known_positions(self, ids: Ids, n: int) -> NDArray[np.int64]:
        """Return the positions of samples, each of them from 0 to n - 1.

        Raises
        ------
        ProblemError
            If the ids are no vector of what tells these samples apart, or no sample has one.
        """
        positions = self.positions(ids)
        unknown = np.flatnonzero((positions < 0) | (positions >= n))
        if unknown.size:
            raise so.ProblemError(
                f"no sample of this sampler's data has the id {shown_ids(ids)[unknown[0]]}: pass "
                "the ids that the data set returns."
            )
        return positions


def ids_of_samples(ids: Ids | None, n: int) -> NDArray[Any] | None:
    """Return the ids that a sampler is given for its n samples.

    Raises
    ------
    OptionError
        If there is not one id per sample, or they are malformed.
    """
    if ids is None:
        return None
    try:
        array = checked_ids(ids)
    except so.ProblemError as error:
        raise so.OptionError(str(error)) from None
    if array.size != n:
        raise so.OptionError(f"got {array.size} ids for {n} samples: pass one for each.")
    return array


def _twice(i: object) -> so.OptionError:
    return so.OptionError(
        f"the data set holds the sample of id {i} twice, so that ids do not tell its "
        "samples apart: put WithIds around the whole, WithIds(Subset(data, indices))."
    )
