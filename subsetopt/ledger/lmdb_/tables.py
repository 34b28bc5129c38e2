"""The tables of an LMDB database: integers under native keys, other ids under their own bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import compress, islice
from typing import NamedTuple, TypeAlias

import lmdb

from subsetopt.errors import LedgerError
from subsetopt.ledger.keyed.keys import INTEGER
from subsetopt.ledger.keyed.values import from_values
from subsetopt.ledger.records import Rows

__all__ = ["TABLES", "Tables", "open_tables"]

_FORMAT_KEY = b"subsetopt.ledger"
_FORMAT = b"1"
_NAMES = (b"integers", b"others")
TABLES = len(_NAMES)
# LMDB compares native integers twice as fast as their bytes. A key of ours has the kind first, then
# the most significant byte.
_NATIVE = slice(None, 0, -1) if sys.byteorder == "little" else slice(1, None)
_BACK = slice(None, None, -1) if sys.byteorder == "little" else slice(None)
_KIND = INTEGER[0]

Transaction: TypeAlias = "lmdb.Transaction[bytes]"
Item = tuple[bytes, bytes]


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

    def after(self, transaction: Transaction, key: bytes | None, size: int) -> list[Item]:
        """Return up to ``size`` keys and values behind a key, in order; of all if it is None."""
        if key is None or key[0] == _KIND:
            place = None if key is None else key[_NATIVE]
            items = _behind(transaction, self.integers, place, size)
            if items:
                return [(INTEGER + native[_BACK], value) for native, value in items]
            key = None
        return _behind(transaction, self.others, key, size)


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


def _put(transaction: Transaction, table: lmdb._Database, items: list[Item]) -> None:
    with transaction.cursor(table) as cursor:
        cursor.putmulti(items)


def _behind(
    transaction: Transaction, table: lmdb._Database, place: bytes | None, size: int
) -> list[Item]:
    """Return up to ``size`` items of a table behind a key, or from its first one on."""
    with transaction.cursor(table) as cursor:
        there = cursor.first() if place is None else cursor.set_range(place)
        if there and cursor.key() == place:
            there = cursor.next()
        return list(islice(cursor.iternext(), size)) if there else []
