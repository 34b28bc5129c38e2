"""How long compiling has taken so far, and whom to tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

__all__ = ["WATCH", "Watch", "watched"]

# Seconds of compiling after which a line says what takes so long.
_LONG = 1.0


class Watch:
    """Follows the kernels that a process compiles.

    Attributes
    ----------
    listener
        Told how many kernels were compiled, in place of the log; None where nobody listens.
    kernels
        Number of kernels compiled so far.
    seconds
        Time that they took.
    """

    def __init__(self) -> None:
        self.listener: Callable[[int], object] | None = None
        self.kernels = 0
        self.seconds = 0.0
        self._begun: list[float] = []
        self._told = False

    def begin(self) -> None:
        """Note that a kernel is being compiled, maybe within that of another one."""
        self._begun.append(perf_counter())
        self._tell()

    def end(self) -> None:
        """Note that a kernel was compiled."""
        self.kernels += 1
        if self._begun:
            start = self._begun.pop()
            if not self._begun:
                self.seconds += perf_counter() - start
        self._tell()

    def _tell(self) -> None:
        """Say what takes so long, once, or tell the listener every time."""
        if self.listener is not None:
            self.listener(self.kernels)
            return
        running = perf_counter() - self._begun[0] if self._begun else 0.0
        if not self._told and self.seconds + running > _LONG:
            self._told = True
            logging.getLogger("subsetopt").warning(
                "subsetopt: compiling kernels for their first use, which may take a minute. "
                "subsetopt.warmup() compiles all of them ahead of time."
            )


#: The watch of this process.
WATCH = Watch()


@contextmanager
def watched(listener: Callable[[int], object]) -> Iterator[None]:
    """Tell a listener, in place of the log, how many kernels this process has compiled so far.

    Parameters
    ----------
    listener
        Called when a kernel begins to be compiled, and when it was.
    """
    former, WATCH.listener = WATCH.listener, listener
    try:
        yield
    finally:
        WATCH.listener = former
