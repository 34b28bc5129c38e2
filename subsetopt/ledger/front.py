"""The ledger: what is the same for all media."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from numpy.typing import ArrayLike

from subsetopt.errors import LedgerError
from subsetopt.inputs import checked_flag, checked_integer
from subsetopt.ledger.inputs import checked_rows, keep_last
from subsetopt.ledger.medium import Medium
from subsetopt.ledger.opening import open_medium
from subsetopt.ledger.records import Chunk, LedgerStats, LedgerWarning, Records, columns

__all__ = ["Ledger"]


class Ledger:
    """Losses and scores that a forward pass has made, one record per instance.

    Open one with :meth:`open`. It is a context manager, and may be used from several threads, from
    children of a fork, and by several processes or machines at once.

    Notes
    -----
    A record holds a loss and a score (float32), a step (int64), a model version (uint32) and a
    check (32 bits): 24 bytes for every instance in every medium. Of two records of an instance the
    one with the later step stays, of equal steps the one that was recorded last, whichever process
    writes first.

    Examples
    --------
    >>> import tempfile
    >>> import subsetopt as so
    >>> folder = tempfile.TemporaryDirectory()
    >>> with so.ledger.Ledger.open(f"dense:{folder.name}/losses.ledger") as ledger:
    ...     recorded = ledger.record([3, 7], [0.5, 2.0], step=100)
    ...     known = ledger.lookup([7, 8])
    >>> known.losses
    array([ 2., nan], dtype=float32)
    >>> known.found
    array([ True, False])
    >>> folder.cleanup()
    """

    def __init__(self, medium: Medium[Any], *, readonly: bool = False) -> None:
        self.url = medium.url
        self.readonly = readonly
        self._medium: Medium[Any] | None = medium
        self._told = (0, "")

    @classmethod
    def open(
        cls, url: str, *, readonly: bool = False, durable: bool = False, **options: Any
    ) -> Ledger:
        """Open a ledger, or make one where there is none.

        Parameters
        ----------
        url
            Where records lie:

            - ``dense:FILE``, a file with a slot for every id from 0 on. Ids are integers below
              2**31. Needs no other package.
            - ``lmdb:FOLDER``, an LMDB database. Ids are integers of 64 bits, texts or bytes.
              Needs ``subsetopt[lmdb]``.
            - ``redis://HOST:PORT/DB``, a Redis or Valkey server, also ``rediss://``, ``unix://``,
              ``valkey://`` and ``valkeys://``. Ids are those of LMDB. Needs ``subsetopt[redis]``.
        readonly
            Whether nothing will be recorded; there must be a ledger then.
        durable
            Whether :meth:`record` returns only when its records would outlast a loss of power. By
            default they outlast the end of every process at once, and a loss of power from the next
            :meth:`flush` on.
        **options
            For ``dense``: ``capacity``, the number of ids to reserve room for, 0 by default. For
            ``lmdb``: ``map_size``, bytes to map at first, 2**30 by default; it doubles when it is
            full. For ``redis``: ``name``, the prefix of the keys, ``"subsetopt"`` by default, and
            ``timeout``, the seconds to wait for an answer, 10 by default.

        Returns
        -------
        Ledger
            Records of a writer that was killed are complete again; a :class:`LedgerWarning` and
            :meth:`stats` say what was repaired.

        Raises
        ------
        OptionError
            If the URL or an option is none of these.
        LedgerError
            If there is something else at the place, or it is damaged, or cannot be reached.
        SolverUnavailableError
            If the package of the medium is missing.
        """
        checked_flag("readonly", readonly)
        checked_flag("durable", durable)
        medium = open_medium(url, readonly=readonly, durable=durable, options=options)
        ledger = cls(medium, readonly=readonly)
        ledger._tell()
        return ledger

    def record(
        self,
        ids: Any,
        losses: ArrayLike,
        scores: ArrayLike | None = None,
        *,
        step: ArrayLike,
        model_version: ArrayLike = 0,
    ) -> int:
        """Record what a forward pass has made, as one batch.

        Parameters
        ----------
        ids
            The instances, shape (n,). Of an id that repeats the later step counts, of equal steps
            the last.
        losses
            Shape (n,), finite; kept as float32.
        scores
            Any score of your own, such as a gradient norm, shape (n,), finite; kept as float32. By
            default the records have none, also where an earlier one had.
        step
            The training step, or any other clock that never goes back, such as seconds: an integer
            from 0 to 2**63 - 1, or one per id. A record with a later step is not overwritten.
        model_version
            Which model made the losses: an integer from 0 to 2**32 - 1, or one per id.

        Returns
        -------
        int
            Instances whose record is now this one. The others have one of a later step.

        Raises
        ------
        ProblemError
            If an argument has another shape or type, or a value that cannot be recorded. Nothing is
            recorded then.
        LedgerError
            If the ledger is closed, opened with ``readonly=True``, or its medium fails (a full
            disk, a lost server). What was recorded before is all there.
        """
        medium = self._writable()
        keys = medium.keys(ids)
        rows = checked_rows(len(keys), losses, scores, step, model_version)
        if not len(keys):
            return 0
        stored = medium.write(*keep_last(keys, rows))
        self._tell()
        return stored

    def lookup(self, ids: Any) -> Records:
        """Return what is recorded of some instances.

        Parameters
        ----------
        ids
            The instances, shape (n,); repeats are allowed.

        Returns
        -------
        Records
            Arrays ``losses``, ``scores``, ``steps``, ``model_versions`` and ``found``, shape (n,),
            in the order of the ids. Every record is one that some call of :meth:`record` made,
            never a mixture of two, also while others write.

        Raises
        ------
        ProblemError
            If the ids are none of this medium.
        LedgerError
            If the ledger is closed, or its medium fails.

        Warns
        -----
        LedgerWarning
            If a record is damaged. It counts as not found.
        """
        medium = self._opened()
        rows = medium.read(medium.keys(ids))
        self._tell()
        return columns(rows)

    def scan(self, size: int = 65_536) -> Iterator[Chunk]:
        """Yield all records, a chunk at a time.

        Parameters
        ----------
        size
            About how many records a chunk has.

        Yields
        ------
        Chunk
            Arrays ``ids``, ``losses``, ``scores``, ``steps`` and ``model_versions``. Every id comes
            once. Of what is recorded meanwhile a scan sees some and not all.

        Raises
        ------
        OptionError
            If the size is no positive integer.
        LedgerError
            If the ledger is closed, or its medium fails.
        """
        checked_integer("size", size, 1)
        return self._chunks(self._opened(), size)

    def flush(self) -> None:
        """Return when all that was recorded would outlast a loss of power.

        For ``redis`` this is the server's own setting, ``appendfsync``, and nothing happens here.
        """
        self._opened().flush()

    def compact(self) -> None:
        """Give room back that no record needs, and clear damaged records.

        Raises
        ------
        LedgerError
            If the ledger is closed or was opened with ``readonly=True``; for ``lmdb`` also if
            another process has it open.
        """
        self._writable().compact()

    def stats(self) -> LedgerStats:
        """Return the number of records, their bytes, and what was repaired."""
        return self._opened().stats()

    def close(self) -> None:
        """Flush and let go of files and connections; closing again does nothing."""
        medium, self._medium = self._medium, None
        if medium is not None:
            medium.close()

    def __enter__(self) -> Ledger:
        """Return the ledger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the ledger."""
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._medium is None else "readonly" if self.readonly else "open"
        return f"Ledger({self.url!r}, {state})"

    def _opened(self) -> Medium[Any]:
        if self._medium is None:
            raise LedgerError(f"{self.url} is closed: open it again.")
        return self._medium

    def _writable(self) -> Medium[Any]:
        medium = self._opened()
        if self.readonly:
            raise LedgerError(f"{self.url} was opened with readonly=True and cannot be changed.")
        return medium

    def _chunks(self, medium: Medium[Any], size: int) -> Iterator[Chunk]:
        parts = medium.scan(size)
        while self._opened() and (part := next(parts, None)) is not None:
            ids, rows = part
            self._tell()
            yield Chunk(ids, *columns(rows)[:4])
        self._tell()

    def _tell(self) -> None:
        """Warn of damage and repairs that were not told yet."""
        medium = self._opened()
        (damaged, recovered), self._told = self._told, (medium.damaged, medium.recovered)
        if medium.recovered != recovered:
            warnings.warn(f"{self.url}: {medium.recovered}", LedgerWarning, stacklevel=3)
        if (count := medium.damaged - damaged) > 0:
            warnings.warn(
                f"{self.url}: {count} record{'s' * (count > 1)} did not pass the check and count "
                "as not found; record these instances again, or let compact() clear them.",
                LedgerWarning,
                stacklevel=3,
            )
