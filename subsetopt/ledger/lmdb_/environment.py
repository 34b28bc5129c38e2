"""An LMDB environment that a whole process shares, and that survives forks and a full map."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from io import FileIO
from pathlib import Path
from typing import TypeVar

import lmdb

from subsetopt.errors import LedgerError
from subsetopt.ledger.lmdb_.tables import TABLES, Tables, Transaction, open_tables
from subsetopt.ledger.locks import holding, locked, sole

__all__ = ["Environment", "acquire"]

T = TypeVar("T")

# LMDB forbids to open an environment twice in a process.
_SHARED: dict[Path, Environment] = {}
_SHARING = threading.Lock()

_READERS = 1024
_COMPACTED = "compacting"
# What lies in the folder. There are two locks, one held by all who have the database open, and one
# by the process that writes.
_FILES = {"data.mdb", "lock.mdb", "open.lock", "write.lock", _COMPACTED}


def acquire(folder: Path, *, readonly: bool, durable: bool, map_size: int) -> Environment:
    """Return the environment of a folder, one for all ledgers of this process."""
    with _SHARING:
        path = folder.resolve()
        shared = _SHARED.get(path)
        if shared is None or shared.gone():
            shared = Environment(path, readonly=readonly, durable=durable, map_size=map_size)
            _SHARED[path] = shared
        shared.serve(readonly=readonly, durable=durable)
        shared.users += 1
        return shared


class Environment:
    """The environment of a folder.

    Parameters
    ----------
    path
        The folder, resolved; it is made where there is none.
    readonly
        Whether it is only read.
    durable
        Whether a commit waits until it would outlast a loss of power.
    map_size
        Bytes of address space to begin with.

    Attributes
    ----------
    users
        Ledgers of this process that have it open.

    Raises
    ------
    LedgerError
        If there is something else, or it cannot be opened.
    """

    def __init__(self, path: Path, *, readonly: bool, durable: bool, map_size: int) -> None:
        self.path, self.readonly, self.users = path, readonly, 0
        self._durable, self._map_size = durable, map_size
        self._threads = threading.Lock()
        self._environment: lmdb.Environment | None = None
        self._locks = ExitStack()
        self._opened()

    def read(self, work: Callable[[Transaction, Tables], T]) -> T:
        """Return what work makes of a view of the records as some commit left them."""
        with self._threads, self._translated("be read"), self._begin() as transaction:
            return work(transaction, self._tables)

    def write(self, work: Callable[[Transaction, Tables], T]) -> T:
        """Commit what work does, all or nothing, while no other process writes.

        LMDB has a lock of its own for writers. This one also covers the change of the map's size:
        databases were damaged where several processes changed it at once.
        """
        with self._threads, self._translated("be written"):
            environment = self._opened()
            with locked(self._writers.fileno()):
                self._require_own_files()
                while True:
                    try:
                        with self._begin(write=True) as transaction:
                            return work(transaction, self._tables)
                    except lmdb.MapFullError:
                        environment.set_mapsize(2 * environment.info()["map_size"])

    def sync(self) -> None:
        """Return when all commits would outlast a loss of power."""
        with self._threads, self._translated("be written"):
            if not self.readonly:
                self._opened().sync(True)

    def compact(self) -> None:
        """Write the database anew without free pages, while nobody else has it open."""
        with self._threads, self._translated("be compacted"):
            environment = self._opened()
            try:
                with sole(self._presence.fileno()) as alone:
                    if not alone:
                        raise LedgerError(
                            f"{self.path} cannot be compacted while another process has it open: "
                            "close it there first."
                        )
                    self._rewrite(environment)
            finally:
                self.close()  # What is asked next opens what is there now.

    def bytes_used(self) -> int:
        """Return the bytes of all pages that were ever in use."""
        with self._threads, self._translated("be read"):
            return _used(self._opened())

    def serve(self, *, readonly: bool, durable: bool) -> None:
        """Open it again where a ledger asks for more than those before: to write, to be durable."""
        with self._threads:
            wanted = (self.readonly and readonly, self._durable or durable)
            before = (self.readonly, self._durable)
            if wanted == before:
                return
            self.close()
            self.readonly, self._durable = wanted
            try:
                self._opened()
            except LedgerError:
                self.readonly, self._durable = before
                raise

    def gone(self) -> bool:
        """Whether the database was deleted, and perhaps made anew, since it was opened."""
        if self._environment is None:
            return False
        try:
            return _identity(self.path) != self._files
        except FileNotFoundError:
            return True

    def release(self) -> None:
        """Let one ledger go, and close the environment with the last."""
        with _SHARING:
            self.users -= 1
            if not self.users:
                if _SHARED.get(self.path) is self:
                    del _SHARED[self.path]
                self.close()

    def close(self) -> None:
        """Close it; what is asked next opens it again."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        self._locks.close()

    def park(self) -> None:
        """Close it and keep all threads out, before a fork: no child may have it open."""
        self._threads.acquire()
        self.close()

    def resume(self) -> None:
        """Let threads in again, after a fork, in the parent and in the child."""
        self._threads.release()

    def _opened(self) -> lmdb.Environment:
        """Return the environment, opened now where it is not."""
        if self._environment is None:
            if not self.readonly:
                self._make_folder()
            elif not (self.path / "data.mdb").is_file():
                raise LedgerError(f"{self.path} holds no ledger: the folder must exist.")
            with self._translated("be opened"):
                self._environment = self._open()
        return self._environment

    def _open(self) -> lmdb.Environment:
        with ExitStack() as locks:
            self._presence = locks.enter_context(self._lock("open.lock"))
            self._writers = locks.enter_context(self._lock("write.lock"))
            holding(self._presence.fileno())
            environment = self._new()
            try:
                self._check_length(environment)
                environment.reader_check()
                alone = nullcontext() if self.readonly else locked(self._writers.fileno())
                with alone:
                    self._tables = open_tables(environment, str(self.path), readonly=self.readonly)
                self._files = _identity(self.path)
            except BaseException:
                environment.close()
                raise
            self._locks = locks.pop_all()
        return environment

    def _require_own_files(self) -> None:
        if self.gone():
            raise LedgerError(
                f"{self.path} was deleted or replaced since it was opened: open the ledger again."
            )

    def _lock(self, name: str) -> FileIO:
        """Open the file of a lock; a reader can do so in a folder that it may not write to."""
        path = self.path / name
        return FileIO(path, "r" if self.readonly and path.exists() else "a")

    def _new(self) -> lmdb.Environment:
        return lmdb.open(
            str(self.path), map_size=self._map_size, readonly=self.readonly, create=True,
            metasync=self._durable, readahead=False, meminit=False, max_dbs=TABLES,
            max_readers=_READERS,
        )  # fmt: skip

    def _make_folder(self) -> None:
        """Make the folder, or see that it is one of a ledger."""
        with self._translated("be made"):
            self.path.mkdir(exist_ok=True)
            names = {entry.name for entry in self.path.iterdir()}
        if names - _FILES and "data.mdb" not in names:
            raise LedgerError(
                f"{self.path} holds other files and no ledger: choose a folder of its own."
            )

    def _check_length(self, environment: lmdb.Environment) -> None:
        """Raise if the file is shorter than its pages: reading them would end the process."""
        used, size = _used(environment), (self.path / "data.mdb").stat().st_size
        if size < used:
            raise LedgerError(
                f"{self.path}/data.mdb is truncated: it has {size:,} bytes of {used:,}. Restore it "
                "from a copy."
            )

    def _rewrite(self, environment: lmdb.Environment) -> None:
        """Replace the database by a copy without free pages; nobody else has it open."""
        copy = self.path / _COMPACTED
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        try:
            environment.copy(str(copy), compact=True)
            environment.close()
            (copy / "data.mdb").replace(self.path / "data.mdb")
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _begin(self, *, write: bool = False) -> Transaction:
        """Begin a transaction, also where another process has changed the size of the map."""
        environment = self._opened()
        try:
            return environment.begin(write=write)
        except lmdb.MapResizedError:
            environment.set_mapsize(0)
        except lmdb.ReadersFullError:
            environment.reader_check()
        return environment.begin(write=write)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn errors of LMDB and of the system into ours."""
        try:
            yield
        except (lmdb.InvalidError, lmdb.VersionMismatchError) as error:
            raise LedgerError(
                f"{self.path} holds no LMDB database, or one of another version: {error}."
            ) from error
        except lmdb.Error as error:
            if isinstance(error, lmdb.PanicError):
                self.close()  # It refuses all until it is opened again.
            # LMDB calls a write that ended early, as on a full disk, an input/output error.
            full = isinstance(error, lmdb.DiskError) or "Input/output" in str(error)
            hint = " Is the disk full?" if full else ""
            raise LedgerError(
                f"{self.path} cannot {what}: {error}.{hint} What was recorded before is all there."
            ) from error
        except OSError as error:
            raise LedgerError(f"{self.path} cannot {what}: {error.strerror}.") from error


def _identity(folder: Path) -> tuple[int, int]:
    """Return what tells the database in a folder from all others, also from a later one there."""
    status = (folder / "data.mdb").stat()
    return status.st_dev, status.st_ino


def _used(environment: lmdb.Environment) -> int:
    """Return the bytes of all pages that were ever in use."""
    return (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]


def _before_fork() -> None:
    _SHARING.acquire()
    for shared in _SHARED.values():
        shared.park()


def _after_fork() -> None:
    for shared in _SHARED.values():
        shared.resume()
    _SHARING.release()


if hasattr(os, "register_at_fork"):  # Windows has no forks.
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
