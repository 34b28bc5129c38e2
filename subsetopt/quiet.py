"""Lines that compiled code of a backend prints on standard output are kept from there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

__all__ = ["without_native_lines"]

# The C library's variable for its stream of standard output: of glibc, and of macOS.
_STREAMS = ("stdout", "__stdoutp")
_DESCRIPTOR = 1


class _Capture:
    """A stream in memory that takes the place of C's standard output during calls.

    Python writes to the file descriptor and is not touched. The memory is never freed, so that a
    thread which still holds the stream can write to it.
    """

    def __init__(self, stream: str) -> None:
        self.library = library = ctypes.CDLL(None)
        self.stream = ctypes.c_void_p.in_dll(library, stream)
        self.text, self.size = ctypes.c_void_p(), ctypes.c_size_t()
        library.open_memstream.restype = ctypes.c_void_p
        self.memory = library.open_memstream(ctypes.byref(self.text), ctypes.byref(self.size))
        if self.memory is None:
            raise OSError("there is no memory for a stream")
        self.lock, self.calls, self.usual = threading.Lock(), 0, self.stream.value

    def begin(self) -> None:
        """Let C print into memory; calls may overlap."""
        with self.lock:
            if self.calls == 0:
                self.usual, self.stream.value = self.stream.value, self.memory
            self.calls += 1

    def end(self) -> bytes:
        """Return what C printed since the last end; at the last one C prints as usual again."""
        memory = ctypes.c_void_p(self.memory)
        with self.lock:
            self.calls -= 1
            if self.calls == 0:
                self.stream.value = self.usual
            self.library.fflush(memory)
            printed = ctypes.string_at(self.text, self.size.value) if self.size.value else b""
            self.library.rewind(memory)
            return printed


def _capture() -> _Capture | None:
    """Return the capture of this process, or None where the C library has no such variable."""
    for stream in _STREAMS:
        with contextlib.suppress(OSError, TypeError, ValueError, AttributeError):
            return _Capture(stream)
    return None


_of_process = _capture()


@contextlib.contextmanager
def without_native_lines(beginning: bytes) -> Iterator[None]:
    """Drop the lines with a beginning that compiled code prints on standard output.

    All other output of compiled code, of whatever thread, is written when the call has ended.
    """
    if _of_process is None:
        yield
        return
    _of_process.begin()
    try:
        yield
    finally:
        lines = _of_process.end().splitlines(keepends=True)
        others = b"".join(line for line in lines if not line.startswith(beginning))
        if others:
            os.write(_DESCRIPTOR, others)
