"""A lock on an open file, held by one process at a time and given back when that process ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from subsetopt.errors import LedgerError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked", "require_locks"]


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
