"""The batch that is just being written, kept beside the records until all of it is in its place.

A batch counts from the moment the head of the journal is written, which is a single small write:
the end of the process falls before or after it. Whoever writes next, or opens the ledger, completes
a batch that counts. A lookup that meets a half-written record takes it from here.
"""

from __future__ import annotations

import os
import struct
import zlib
from io import FileIO
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.ledger.records import RECORD, RECORD_SIZE, Rows

__all__ = ["Batch", "Journal"]

_MAGIC = b"SOJOURNL"
# Magic, name of the file of records, records, sum of all bytes.
_HEAD = struct.Struct("<8s8sQI")
_BODY = 32
_NOTHING = bytes(_HEAD.size)
_ID_SIZE = 8


class Batch(NamedTuple):
    """Records on their way.

    Attributes
    ----------
    ids
        int64, shape (n,), without repeats.
    rows
        The records with their checks, shape (n,).
    head
        The head of the journal that it was read from; empty for a batch that is not written yet.
    """

    ids: NDArray[np.int64]
    rows: Rows
    head: bytes = b""


class Journal:
    """The journal of one file of records.

    Parameters
    ----------
    path
        The journal's file.
    uid
        The name of the file of records. The journal of another one is not looked at.
    readonly
        Whether it is only read. It need not be there then.

    Raises
    ------
    OSError
        If it cannot be made or opened for writing.
    """

    def __init__(self, path: str, uid: bytes, *, readonly: bool) -> None:
        self._path, self._uid = path, uid
        self._file: FileIO | None = None
        if not readonly:
            self._file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")

    def write(self, batch: Batch, *, durable: bool) -> None:
        """Let a batch count.

        Raises
        ------
        OSError
            If the batch cannot be written. It does not count then.
        """
        body = np.ascontiguousarray(batch.ids, dtype="<i8").tobytes() + batch.rows.tobytes()
        handle = self._handle()
        _write_all(handle, body, _BODY)
        if durable:
            os.fsync(handle)
        os.pwrite(handle, self._head(len(batch.ids), body), 0)
        if durable:
            os.fsync(handle)

    def clear(self) -> None:
        """Let the batch be forgotten, which is in its place."""
        os.pwrite(self._handle(), _NOTHING, 0)

    def shorten(self) -> None:
        """Give the room of a forgotten batch back."""
        os.ftruncate(self._handle(), 0)

    def pending(self) -> Batch | None:
        """Return the batch that counts and was not forgotten, if it is whole."""
        try:
            handle = self._handle()
        except OSError:
            return None  # A reader has no journal to look at where no writer has made one yet.
        head = os.pread(handle, _HEAD.size, 0)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC + self._uid):
            return None
        count = _HEAD.unpack(head)[2]
        if os.fstat(handle).st_size < _BODY + count * (_ID_SIZE + RECORD_SIZE):
            return None
        body = _read_all(handle, count * (_ID_SIZE + RECORD_SIZE), _BODY)
        if head != self._head(count, body):
            return None
        ids = np.frombuffer(body, dtype="<i8", count=count).astype(np.int64)
        return Batch(ids, np.frombuffer(body, dtype=RECORD, offset=count * _ID_SIZE), head)

    def still_has(self, batch: Batch) -> bool:
        """Whether a batch that was pending has been pending ever since."""
        return os.pread(self._handle(), _HEAD.size, 0) == batch.head

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _handle(self) -> int:
        if self._file is None:
            self._file = FileIO(self._path, "r")
        return self._file.fileno()

    def _head(self, count: int, body: bytes) -> bytes:
        unsummed = _HEAD.pack(_MAGIC, self._uid, count, 0)
        return _HEAD.pack(_MAGIC, self._uid, count, zlib.crc32(body, zlib.crc32(unsummed)))


def _write_all(handle: int, content: bytes, offset: int) -> None:
    """Write bytes at a place of a file, all of them or an error."""
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def _read_all(handle: int, size: int, offset: int) -> bytes:
    """Return bytes at a place of a file, fewer where it ends before."""
    parts = []
    while size > 0 and (part := os.pread(handle, size, offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)
