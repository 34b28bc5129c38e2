"""What a medium of records does; everything else is the ledger's and the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from subsetopt.ledger.records import LedgerStats

__all__ = ["Medium"]

_Keys = TypeVar("_Keys")


class Medium(Protocol[_Keys]):
    """Where records lie.

    Attributes
    ----------
    url
        What it was opened with, without a password.
    damaged
        Times that a record was found damaged so far.
    recovered
        What was last repaired, in one sentence; empty if nothing was.
    """

    url: str
    damaged: int
    recovered: str

    def keys(self, ids: Any) -> _Keys:
        """Return the ids of a call as keys of the medium, checked; raise ProblemError otherwise."""
        ...

    def write(self, keys: _Keys, rows: NDArray[Any]) -> int:
        """Store records, unless the one that is there has a later step, and commit them.

        Parameters
        ----------
        keys
            As :meth:`keys` returns them, without repeats.
        rows
            Records, shape (n,), whose checks are not looked at.

        Returns
        -------
        int
            Number of records stored.
        """
        ...

    def read(self, keys: _Keys) -> NDArray[Any]:
        """Return the records of keys, shape (n,), zero bytes where there is none that is intact."""
        ...

    def scan(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield all ids with their records, about ``size`` at a time."""
        ...

    def flush(self) -> None:
        """Return when all that is committed would outlast a loss of power."""
        ...

    def compact(self) -> None:
        """Give room back that no record needs."""
        ...

    def stats(self) -> LedgerStats:
        """Return the state of the medium."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
