"""The embedded medium: a slot of a mapped file for every id from 0 on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError, ProblemError
from subsetopt.inputs import checked_integer
from subsetopt.ledger.dense.file import RecordFile, refusal, sync_folder
from subsetopt.ledger.dense.journal import Batch, Journal
from subsetopt.ledger.inputs import whole_numbers
from subsetopt.ledger.locks import locked, require_locks
from subsetopt.ledger.records import (
    RECORD_SIZE,
    LedgerStats,
    Rows,
    empty_rows,
    intact,
    seal,
)

__all__ = ["DenseMedium", "open_dense"]

# Ids below this one have a slot; the largest file is then 48 GiB.
_IDS = 2**31
# A record that is neither whole nor in the journal is looked at so many times, this many seconds
# apart, before it counts as damaged: a writer may have been between the two.
_LOOKS = 20
_PAUSE = 0.0005


def open_dense(url: str, *, readonly: bool, durable: bool, capacity: int = 0) -> DenseMedium:
    """Open the file of a URL ``dense:FILE``."""
    require_locks(url)
    checked_integer("capacity", capacity, 0)
    if capacity > _IDS:
        raise OptionError(f"capacity must be at most {_IDS}, got {capacity}.")
    return DenseMedium(url.partition(":")[2], readonly=readonly, durable=durable, capacity=capacity)


class DenseMedium:
    """Records in a file.

    Parameters
    ----------
    path
        The file. Its journal has the same name with ``-journal`` behind it.
    readonly
        Whether nothing will be written.
    durable
        Whether a write waits for the disk.
    capacity
        Slots to reserve room for.
    """

    def __init__(self, path: str, *, readonly: bool, durable: bool, capacity: int) -> None:
        self.url = f"dense:{path}"
        self.damaged = 0
        self.recovered = ""
        # A forked child opens the file again, perhaps from another folder.
        self._path = str(Path(path).absolute())
        self._readonly, self._durable = readonly, durable
        self._open(capacity)
        if not readonly:
            with self._writing():
                pass  # completes what a writer has left behind

    def keys(self, ids: Any) -> NDArray[np.int64]:
        """Return ids as int64, shape (n,)."""
        array = whole_numbers(ids, "ids of a dense ledger")
        if array.ndim != 1:
            raise ProblemError(f"ids must be one-dimensional, got shape {array.shape}.")
        if array.size and (int(array.min()) < 0 or int(array.max()) >= _IDS):
            at = int(np.flatnonzero((array < 0) | (array >= _IDS))[0])
            raise ProblemError(
                f"ids of a dense ledger must be from 0 to {_IDS - 1}, got {array[at]} at position "
                f"{at}: number the instances from 0 on, or use an lmdb or redis ledger."
            )
        return array.astype(np.int64, copy=False)

    def write(self, keys: NDArray[np.int64], rows: Rows) -> int:
        """Store what has no later record, through the journal."""
        with self._writing():
            self._file.reserve(int(keys.max()) + 1)
            batch = self._newer(Batch(keys, seal(rows, keys)))
            if batch.ids.size:
                self._journal.write(batch, durable=self._durable)
                self._settle(batch)
        return int(batch.ids.size)

    def read(self, keys: NDArray[np.int64]) -> Rows:
        """Return records as some write has made them, without a lock."""
        slots = self._file.slots
        if keys.size and int(keys.max()) >= slots.size and self._file.grown():
            slots = self._file.slots
        if not slots.size or not keys.size:
            return empty_rows(keys.size)
        rows = slots.take(keys, mode="clip")
        beyond = keys >= slots.size
        if beyond.any():
            rows[beyond] = 0
        passed = intact(rows, keys)
        if not passed.all():
            self._mend(keys, rows, np.flatnonzero(~passed))
        return rows

    def scan(self, size: int) -> Iterator[tuple[NDArray[np.int64], Rows]]:
        """Yield the records by ascending id."""
        start = 0
        while True:
            if start >= self._file.slots.size and not self._file.grown():
                return
            keys = np.arange(start, min(start + size, self._file.slots.size))
            rows = self.read(keys)
            kept = np.flatnonzero(rows["check"])
            if kept.size:
                yield keys[kept], rows[kept]
            start += size

    def flush(self) -> None:
        """Wait for the disk."""
        if not self._readonly:
            self._file.sync()

    def compact(self) -> None:
        """Clear records that are damaged, and shorten the journal."""
        with self._writing():
            slots = self._file.slots
            for keys, rows in self._pieces(slots):
                broken = keys[~intact(rows, keys)]
                slots[broken] = np.zeros(broken.size, dtype=slots.dtype)
            self._file.sync()
            self._journal.shorten()

    def stats(self) -> LedgerStats:
        """Count the records, which takes a pass over the file."""
        self._file.grown()
        count = sum(
            int(np.count_nonzero(rows["check"])) for _, rows in self._pieces(self._file.slots)
        )
        return LedgerStats(
            self.url, count, RECORD_SIZE, self._file.size_on_disk(), self.recovered, self.damaged
        )

    def close(self) -> None:
        """Wait for the disk and close the files."""
        self.flush()
        self._file.close()
        self._journal.close()

    def _open(self, capacity: int = 0) -> None:
        """Open the files, for this process."""
        self._file = RecordFile(self._path, readonly=self._readonly, capacity=capacity)
        try:
            self._journal = Journal(
                f"{self._path}-journal", self._file.header.uid, readonly=self._readonly
            )
            if self._durable and not self._readonly:
                sync_folder(self._path)
        except OSError as error:
            self._file.close()
            raise refusal(f"{self._path}-journal", error, "be opened") from error
        self._threads = threading.Lock()
        self._process = os.getpid()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other writers out, threads and processes, and complete what one has left behind."""
        if self._process != os.getpid():
            self._file.close()
            self._journal.close()
            self._open()  # A forked child shares the lock of its parent unless it opens the file.
        try:
            with self._threads, locked(self._file.handle):
                self._file.require_own_path()
                if (left := self._journal.pending()) is not None:
                    self._file.reserve(int(left.ids.max()) + 1)
                    self._settle(self._newer(left))
                    self.recovered = (
                        f"a writer ended while it put a batch of {left.ids.size} records in place; "
                        "the batch is complete now."
                    )
                yield
        except OSError as error:
            raise refusal(self._path, error, "be written") from error

    def _newer(self, batch: Batch) -> Batch:
        """Return the part of a batch that has no intact record of a later step in its place."""
        there = self._file.slots.take(batch.ids, mode="clip")
        wins = (batch.rows["step"] >= there["step"]) | ~intact(there, batch.ids)
        return batch if wins.all() else Batch(batch.ids[wins], batch.rows[wins])

    def _settle(self, batch: Batch) -> None:
        """Put a batch that counts in its place."""
        self._file.slots[batch.ids] = batch.rows
        if self._durable:
            self._file.sync()
        self._journal.clear()

    def _mend(self, keys: NDArray[np.int64], rows: Rows, broken: NDArray[np.intp]) -> None:
        """Read records again that a writer was just putting in place; zero those that are damaged.

        Parameters
        ----------
        keys
            All ids, shape (n,).
        rows
            All records, shape (n,), changed in place.
        broken
            Positions of those that did not pass.
        """
        for _ in range(_LOOKS):
            batch = self._journal.pending()
            rows[broken] = self._file.slots.take(keys[broken])
            broken = broken[~intact(rows[broken], keys[broken])]
            # A batch that was pending before and after this look is the one that is being put in
            # place. One that comes later may hold a record that others do not see yet, and this
            # reader would then see an older one again.
            if broken.size and batch is not None and self._journal.still_has(batch):
                _take_from(batch, keys, rows, broken)
                broken = broken[~intact(rows[broken], keys[broken])]
            if not broken.size:
                return
            time.sleep(_PAUSE)
        rows[broken] = 0
        self.damaged += int(np.unique(keys[broken]).size)

    def _pieces(self, slots: Rows) -> Iterator[tuple[NDArray[np.int64], Rows]]:
        """Yield the ids and slots of a file in parts of some megabytes."""
        size = 1 << 18
        for start in range(0, slots.size, size):
            part = slots[start : start + size]
            yield np.arange(start, start + part.size), part


def _take_from(batch: Batch, keys: NDArray[np.int64], rows: Rows, broken: NDArray[np.intp]) -> None:
    """Replace broken records by those of a batch that counts."""
    order = np.argsort(batch.ids)
    places = np.searchsorted(batch.ids, keys[broken], sorter=order).clip(max=batch.ids.size - 1)
    found = batch.ids[order[places]] == keys[broken]
    rows[broken[found]] = batch.rows[order[places[found]]]
