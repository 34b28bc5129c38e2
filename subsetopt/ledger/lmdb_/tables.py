"""The tables of an LMDB database: integers under native keys, other ids under their own bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import compress, islice
from typing import Any, NamedTuple, TypeAlias

import lmdb
import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import LedgerError
from subsetopt.ledger.keyed.keys import INTEGER, decoded, unbiased
from subsetopt.ledger.keyed.values import from_values
from subsetopt.ledger.records import Rows

__all__ = ["TABLES", "Part", "Place", "Tables", "open_tables"]

_FORMAT_KEY = b"subsetopt.ledger"
_FORMAT = b"1"
_NAMES = (b"integers", b"others")
TABLES = len(_NAMES)
# LMDB compares native integers twice as fast as their bytes. A key of ours has the kind first, then
# the most significant byte.
_NATIVE = slice(None, 0, -1) if sys.byteorder == "little" else slice(1, None)
_KIND = INTEGER[0]

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Item = tuple[bytes, bytes]
# The number of a table, and a key in it.
Place = tuple[int, bytes]


class Part(NamedTuple):
    """Some records in the order of the tables.

    Attributes
    ----------
    ids
        int64 or objects, shape (m,).
    rows
        The records as they are, shape (m,).
    last
        The place of the last one.
    """

    ids: NDArray[Any]
    rows: Rows
    last: Place


class Tables(NamedTuple):
    """The tables of an environment that is open.

    Attributes
    ----------
    integers
        Keys are unsigned integers of the machine, 8 bytes: the id and 2**63.
    others
        Keys are those of :mod:`subsetopt.ledger.keyed.keys`.
    """

    integers: lmdb._Database
    others: lmdb._Database

    def fetch(self, transaction: Transaction, keys: list[bytes]) -> Rows:
        """Return the records of keys as they are."""
        get, integers, others = transaction.get, self.integers, self.others
        return from_values(
            [
                get(key[_NATIVE], None, integers) if key[0] == _KIND else get(key, None, others)
                for key in keys
            ]
        )

    def store(
        self, transaction: Transaction, keys: list[bytes], values: list[bytes], chosen: list[bool]
    ) -> None:
        """Put the chosen ones of keys and values, which are sorted by key."""
        integers, others = [], []
        for key, value in compress(zip(keys, values, strict=True), chosen):
            if key[0] == _KIND:
                integers.append((key[_NATIVE], value))
            else:
                others.append((key, value))
        _put(transaction, self.integers, integers)
        _put(transaction, self.others, others)

    def delete(self, transaction: Transaction, keys: Iterable[bytes]) -> None:
        """Delete keys that are there."""
        for key in keys:
            if key[0] == _KIND:
                transaction.delete(key[_NATIVE], db=self.integers)
            else:
                transaction.delete(key, db=self.others)

    def count(self, transaction: Transaction) -> int:
        """Return the number of records."""
        return sum(int(transaction.stat(table)["entries"]) for table in self)

    def after(self, transaction: Transaction, place: Place | None, size: int) -> Part | None:
        """Return up to ``size`` records of one table behind a place, or the first ones of all."""
        number, key = place or (0, None)
        for table in range(number, TABLES):
            keys, values = _behind(transaction, self[table], key, size)
            if keys:
                ids = _integers(keys) if table == 0 else decoded(keys)
                return Part(ids, from_values(values), (table, keys[-1]))
            key = None
        return None


def open_tables(environment: lmdb.Environment, path: str, *, readonly: bool) -> Tables:
    """Return the tables of an environment; a new one is claimed for a ledger.

    Raises
    ------
    LedgerError
        If the database is something else, or a ledger of another format.
    """
    with environment.begin(write=not readonly) as transaction:
        written = transaction.get(_FORMAT_KEY)
        if written is None and not readonly and not transaction.stat()["entries"]:
            transaction.put(_FORMAT_KEY, _FORMAT)
            written = _FORMAT
    if written is None:
        raise LedgerError(
            f"{path} is an LMDB database of something else: choose another folder; the database "
            "stays as it is."
        )
    if written != _FORMAT:
        raise LedgerError(
            f"{path} is a ledger of format {written!r}, and this version of subsetopt reads format "
            f"{_FORMAT!r}: read it with the version that made it."
        )
    integers, others = _NAMES
    return Tables(
        environment.open_db(integers, integerkey=True, create=not readonly),
        environment.open_db(others, create=not readonly),
    )


def _integers(keys: list[bytes]) -> NDArray[np.int64]:
    """Return the ids of native keys."""
    return unbiased(np.frombuffer(b"".join(keys), dtype=np.uint64))


def _put(transaction: Transaction, table: lmdb._Database, items: list[Item]) -> None:
    with transaction.cursor(table) as cursor:
        cursor.putmulti(items)


def _behind(
    transaction: Transaction, table: lmdb._Database, key: bytes | None, size: int
) -> tuple[list[bytes], list[bytes]]:
    """Return up to ``size`` keys of a table behind a key, or its first ones, and their values.

    Two passes take a third of the time of one that makes a pair of each key and value: so many
    pairs keep the garbage collector busy.
    """
    with transaction.cursor(table) as cursor:
        there = cursor.first() if key is None else cursor.set_range(key)
        if there and cursor.key() == key:
            there = cursor.next()
        if not there:
            return [], []
        first = cursor.key()
        keys = list(islice(cursor.iternext(keys=True, values=False), size))
        cursor.set_key(first)
        return keys, list(islice(cursor.iternext(keys=False, values=True), size))
