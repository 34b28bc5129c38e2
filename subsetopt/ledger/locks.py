"""A lock on an open file, held by one process at a time and given back when that process ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from subsetopt.errors import LedgerError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["holding", "locked", "require_locks", "sole"]


def require_locks(url: str) -> None:
    """Raise unless the system has the locks that writers need."""
    if fcntl is None:
        raise LedgerError(
            f"{url} needs the file locks of POSIX systems, which this system lacks: "
            "use a ledger on a server."
        )


@contextmanager
def locked(handle: int) -> Iterator[None]:
    """Hold the exclusive lock of an open file, waiting for it as long as another holds it.

    Parameters
    ----------
    handle
        The descriptor. The lock belongs to what was opened: two descriptors of one file exclude
        each other, also in one process, and a forked child must open the file again.
    """
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def holding(handle: int) -> None:
    """Hold the shared lock of an open file until it is closed."""
    fcntl.flock(handle, fcntl.LOCK_SH)


@contextmanager
def sole(handle: int) -> Iterator[bool]:
    """Turn a shared lock into the exclusive one for a while; yield whether nobody else has it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        alone = False
    else:
        alone = True
    try:
        yield alone
    finally:
        fcntl.flock(handle, fcntl.LOCK_SH)
