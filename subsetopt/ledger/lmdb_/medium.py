"""The medium in an LMDB database."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.inputs import checked_integer
from subsetopt.ledger.keyed.keys import encoded
from subsetopt.ledger.keyed.values import sift, to_values
from subsetopt.ledger.lmdb_.environment import acquire
from subsetopt.ledger.lmdb_.tables import Part, Place, Tables, Transaction
from subsetopt.ledger.locks import require_locks
from subsetopt.ledger.records import RECORD_SIZE, LedgerStats, Rows

__all__ = ["LmdbMedium", "open_lmdb"]

_LEAST_MAP = 1 << 16
# The key of an integer.
_NATIVE_SIZE = 8


def open_lmdb(url: str, *, readonly: bool, durable: bool, map_size: int = 1 << 30) -> LmdbMedium:
    """Open the folder of a URL ``lmdb:FOLDER``."""
    require_locks(url)
    checked_integer("map_size", map_size, _LEAST_MAP)
    return LmdbMedium(url.partition(":")[2], readonly=readonly, durable=durable, map_size=map_size)


class LmdbMedium:
    """Records in an LMDB database.

    Parameters
    ----------
    folder
        The folder of the database.
    readonly, durable, map_size
        As for ``Environment``, which the ledgers of a process share.
    """

    def __init__(self, folder: str, *, readonly: bool, durable: bool, map_size: int) -> None:
        self.url = f"lmdb:{folder}"
        self.damaged = 0
        self.recovered = ""  # LMDB has nothing to repair: a commit that is not whole is not seen.
        self._environment = acquire(
            Path(folder), readonly=readonly, durable=durable, map_size=map_size
        )

    def keys(self, ids: Any) -> list[bytes]:
        """Return ids as keys."""
        return encoded(ids)

    def write(self, keys: list[bytes], rows: Rows) -> int:
        """Store what has no later record, in one transaction."""
        order = sorted(range(len(keys)), key=keys.__getitem__)
        ordered, steps = [keys[place] for place in order], rows["step"][order]
        values = to_values(rows[order])

        def store(transaction: Transaction, tables: Tables) -> int:
            there = tables.fetch(transaction, ordered)
            sift(there)
            wins = (steps >= there["step"]).tolist()
            tables.store(transaction, ordered, values, wins)
            return sum(wins)

        return self._environment.write(store)

    def read(self, keys: list[bytes]) -> Rows:
        """Return the records as one commit left them."""
        rows = self._environment.read(lambda transaction, tables: tables.fetch(transaction, keys))
        self.damaged += sift(rows).size
        return rows

    def scan(self, size: int) -> Iterator[tuple[NDArray[Any], Rows]]:
        """Yield the records by ascending key, each chunk as one commit left it."""
        for ids, rows in self._parts(size):
            broken = sift(rows)
            self.damaged += broken.size
            if broken.size:
                kept = np.flatnonzero(rows["check"])
                ids, rows = ids[kept], rows[kept]
            if ids.size:
                yield ids, rows

    def flush(self) -> None:
        """Wait for the disk."""
        self._environment.sync()

    def compact(self) -> None:
        """Delete records that are damaged, and write the database anew without free pages."""
        for ids, rows in self._parts(1 << 16):
            broken = sift(rows)
            if broken.size:
                self._environment.write(partial(_clear, keys=encoded(ids[broken].tolist())))
        self._environment.compact()

    def stats(self) -> LedgerStats:
        """Return what LMDB counts itself."""
        count = self._environment.read(lambda transaction, tables: tables.count(transaction))
        size = self._environment.bytes_used()
        one = _NATIVE_SIZE + RECORD_SIZE
        return LedgerStats(self.url, count, one, size, self.recovered, self.damaged)

    def close(self) -> None:
        """Wait for the disk and let the environment go."""
        self.flush()
        self._environment.release()

    def _parts(self, size: int) -> Iterator[tuple[NDArray[Any], Rows]]:
        """Yield ids and records as they are, each part in a transaction of its own.

        A transaction that stays open would keep pages from being used again.
        """
        last: Place | None = None
        while part := self._environment.read(partial(_after, place=last, size=size)):
            yield part.ids, part.rows
            last = part.last


def _clear(transaction: Transaction, tables: Tables, keys: list[bytes]) -> None:
    """Delete those of the keys whose records are damaged."""
    broken = sift(tables.fetch(transaction, keys))
    tables.delete(transaction, [keys[place] for place in broken])


def _after(transaction: Transaction, tables: Tables, place: Place | None, size: int) -> Part | None:
    return tables.after(transaction, place, size)
