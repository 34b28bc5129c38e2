"""The head of a file of records: what it is, whose layout it has, how many slots there are."""

from __future__ import annotations

import os
import struct
import time
import zlib
from typing import NamedTuple

from subsetopt.errors import LedgerError
from subsetopt.ledger.records import RECORD, RECORD_SIZE

__all__ = ["HEADER_SIZE", "Header", "file_size", "read_header", "write_header"]

# Records begin at a page of their own.
HEADER_SIZE = 4096
_MAGIC = b"SOLEDGER"
_VERSION = 1
_LAYOUT = " ".join(f"{name}{RECORD[name].str}" for name in RECORD.names or ()).encode()
# Magic, version, bytes per record, name of the file, slots, layout; then the sum of these bytes.
_FIELDS = struct.Struct("<8sII8sQ64s")
_SUM = struct.Struct("<I")
_WRITTEN = _FIELDS.size + _SUM.size
# A header that is just being written is read again up to so many times, a millisecond apart.
_TRIES = 100


class Header(NamedTuple):
    """What a header says.

    Attributes
    ----------
    uid
        8 random bytes that tell this file from all others.
    capacity
        Slots that the file has room for.
    """

    uid: bytes
    capacity: int


def file_size(capacity: int) -> int:
    """Return the bytes of a file with so many slots."""
    return HEADER_SIZE + capacity * RECORD_SIZE


def write_header(handle: int, header: Header) -> None:
    """Write a header, which is one page, so that the end of the process cannot tear it."""
    fields = _FIELDS.pack(
        _MAGIC, _VERSION, RECORD_SIZE, header.uid, header.capacity, _LAYOUT.ljust(64)
    )
    written = fields + _SUM.pack(zlib.crc32(fields))
    os.pwrite(handle, written.ljust(HEADER_SIZE, b"\0"), 0)


def read_header(handle: int, path: str) -> Header:
    """Return the header of an open file.

    Raises
    ------
    LedgerError
        If the file is something else, of another version, damaged or truncated.
    """
    written = os.pread(handle, _WRITTEN, 0)
    for _ in range(_TRIES):
        if not written.startswith(_MAGIC) or len(written) < _WRITTEN or _whole(written):
            break
        time.sleep(0.001)
        written = os.pread(handle, _WRITTEN, 0)
    header = _parsed(written, path)
    size, expected = os.fstat(handle).st_size, file_size(header.capacity)
    if size < expected:
        raise LedgerError(
            f"{path} is truncated: it has {size:,} bytes, and its header promises {expected:,}. "
            "Restore it from a copy; or lengthen it to that size (truncate -s), and only what was "
            "cut off is missing."
        )
    return header


def _whole(written: bytes) -> bool:
    """Whether the sum of a header of full length is right."""
    (expected,) = _SUM.unpack(written[_FIELDS.size :])
    return bool(expected == zlib.crc32(written[: _FIELDS.size]))


def _parsed(written: bytes, path: str) -> Header:
    """Return what the bytes of a header say, or raise."""
    if not written.startswith(_MAGIC):
        raise LedgerError(
            f"{path} is no ledger: it begins with {written[:8]!r}. Choose another name; the file "
            "stays as it is."
        )
    if len(written) < _WRITTEN:
        raise LedgerError(
            f"{path} is truncated within its header, to {len(written)} bytes: restore it from a "
            "copy, or delete it."
        )
    _, version, size, uid, capacity, layout = _FIELDS.unpack(written[: _FIELDS.size])
    if version != _VERSION:
        raise LedgerError(
            f"{path} is a ledger of format {version}, and this version of subsetopt reads format "
            f"{_VERSION}: read it with the version that made it."
        )
    if not _whole(written) or size != RECORD_SIZE or layout.rstrip() != _LAYOUT:
        raise LedgerError(f"{path} has a damaged header: restore it from a copy, or delete it.")
    return Header(uid, capacity)
