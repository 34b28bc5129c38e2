"""The file of records: made, opened, mapped into memory, and lengthened under its lock."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
from io import FileIO
from pathlib import Path

import numpy as np

from subsetopt.errors import LedgerError
from subsetopt.ledger.dense.header import (
    HEADER_SIZE,
    Header,
    file_size,
    read_header,
    write_header,
)
from subsetopt.ledger.locks import locked
from subsetopt.ledger.records import RECORD, Rows

__all__ = ["RecordFile", "refusal", "sync_folder"]

# A file grows by whole steps of this many slots (1.5 MiB), and by an eighth of what it has.
_STEP = 65_536
_SHARE = 8
# Where the system cannot reserve room, zeros are written, so many bytes at a time.
_PIECE = 1 << 20


class RecordFile:
    """An open file of records.

    Parameters
    ----------
    path
        The file; it is made where there is none.
    readonly
        Whether it is only read.
    capacity
        Slots to reserve room for.

    Attributes
    ----------
    slots
        The records in their places, shape (capacity,), mapped. The file may have more by now.
    header
        What it said when it was mapped.

    Raises
    ------
    LedgerError
        If it is no file of records, or cannot be opened.
    """

    def __init__(self, path: str, *, readonly: bool, capacity: int) -> None:
        self._path, self._readonly = path, readonly
        flags = os.O_RDONLY if readonly else os.O_RDWR | os.O_CREAT
        try:
            self._file = FileIO(os.open(path, flags, 0o666), "r" if readonly else "r+")
        except OSError as error:
            raise refusal(path, error, "be opened") from error
        try:
            if not readonly:
                with locked(self.handle):
                    self._prepare(capacity)
            self.refresh()
        except OSError as error:
            self._file.close()
            raise refusal(path, error, "be opened") from error
        except BaseException:
            self._file.close()
            raise

    @property
    def handle(self) -> int:
        """The descriptor of the file, as long as it is open."""
        return self._file.fileno()

    def refresh(self) -> None:
        """Map what the file has now."""
        header = read_header(self.handle, self._path)
        access = mmap.ACCESS_READ if self._readonly else mmap.ACCESS_WRITE
        mapped = mmap.mmap(self.handle, file_size(header.capacity), access=access)
        self.slots: Rows = np.frombuffer(mapped, dtype=RECORD, offset=HEADER_SIZE)
        self.header = header

    def grown(self) -> bool:
        """Whether the file has more slots than are mapped; they are mapped then."""
        if read_header(self.handle, self._path).capacity <= self.slots.size:
            return False
        self.refresh()
        return True

    def reserve(self, capacity: int) -> None:
        """Lengthen the file to at least so many slots, whose room is then surely there.

        The caller holds the lock.

        Raises
        ------
        OSError
            If the disk is full. The file is as it was.
        """
        if capacity <= self.slots.size or (self.grown() and capacity <= self.slots.size):
            return
        wanted = max(capacity, self.slots.size + self.slots.size // _SHARE)
        _lengthen(self.handle, self.header, -(-wanted // _STEP) * _STEP)
        self.refresh()

    def require_own_path(self) -> None:
        """Raise if the file was deleted or replaced since it was opened: nobody would see writes.

        Raises
        ------
        LedgerError
            If its path names another file, or none.
        """
        try:
            same = os.path.samestat(os.stat(self._path), os.fstat(self.handle))  # noqa: PTH116
        except FileNotFoundError:
            same = False
        if not same:
            raise LedgerError(
                f"{self._path} was deleted or replaced since it was opened: open the ledger again."
            )

    def sync(self) -> None:
        """Return when the records would outlast a loss of power."""
        os.fsync(self.handle)

    def size_on_disk(self) -> int:
        """Return the bytes that the file takes."""
        return os.fstat(self.handle).st_blocks * 512

    def close(self) -> None:
        """Close the file; what others still hold of the map stays valid."""
        self.slots = np.empty(0, dtype=RECORD)
        self._file.close()

    def _prepare(self, capacity: int) -> None:
        """Make the file if it is empty, and let all of it have room; the caller holds the lock."""
        if os.fstat(self.handle).st_size == 0:
            write_header(self.handle, Header(secrets.token_bytes(8), 0))
            sync_folder(self._path)
        header = read_header(self.handle, self._path)
        if capacity > header.capacity:
            _lengthen(self.handle, header, capacity)
        elif header.capacity:
            # A copy may have holes, and a full disk would end the process that writes into one.
            _allocate(self.handle, 0, file_size(header.capacity))


def refusal(path: str, error: OSError, what: str) -> LedgerError:
    """Return an error of the system in words."""
    why = error.strerror or str(error)
    hint = ""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = " Open it with readonly=True to read it."
    elif error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        hint = " What was recorded before is all there; make room and record again."
    elif error.errno == errno.ENOENT:
        hint = " The folder, or with readonly=True the file, must exist."
    return LedgerError(f"{path} cannot {what}: {why}.{hint}")


def _lengthen(handle: int, header: Header, capacity: int) -> None:
    """Reserve the room of more slots, then say in the header that they are there."""
    before = os.fstat(handle).st_size
    try:
        if before < file_size(capacity):
            _allocate(handle, before, file_size(capacity))
    except OSError:
        os.ftruncate(handle, before)
        raise
    os.fsync(handle)  # so that no loss of power leaves a header that promises more than is there
    write_header(handle, header._replace(capacity=capacity))


def _allocate(handle: int, start: int, stop: int) -> None:
    """Let a part of a file have room on the disk; what is new of it is zero bytes."""
    try:
        os.posix_fallocate(handle, start, stop - start)
        return
    except AttributeError:
        pass  # macOS has no such call,
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise  # and some file systems refuse it.
    size = os.fstat(handle).st_size
    for offset in range(max(start, size), stop, _PIECE):
        os.pwrite(handle, bytes(min(_PIECE, stop - offset)), offset)


def sync_folder(path: str) -> None:
    """Let the names of new files outlast a loss of power."""
    folder = os.open(Path(path).resolve().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
