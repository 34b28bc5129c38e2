"""Calls of backends: imports and runs that a deadline and Ctrl-C can end, and parameters."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import Any

from subsetopt.budget import Deadline
from subsetopt.errors import OptionError, did_you_mean

__all__ = ["import_within", "run_interruptible", "set_parameters"]

# Seconds between two looks at whether a call has ended; its end wakes the waiting thread earlier.
_POLL = 3600.0


def _begun(work: Callable[[], Any], name: str) -> Future[Any]:
    """Return a call that goes on in a thread of its own."""
    call: Future[Any] = Future()

    def run() -> None:
        try:
            call.set_result(work())
        except BaseException as error:
            call.set_exception(error)

    threading.Thread(target=run, name=name).start()
    return call


def import_within(name: str, deadline: Deadline) -> Any | None:
    """Return a module, or None when its import does not end before the deadline.

    An import cannot be interrupted: it goes on in the background, for the next call to find.
    """
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if name in sys.modules and not getattr(spec, "_initializing", False):
        return sys.modules[name]
    if not deadline.limited:
        return importlib.import_module(name)
    call = _begun(lambda: importlib.import_module(name), f"import {name}")
    done, _ = wait([call], min(deadline.remaining(), _POLL))
    return call.result() if done else None


def run_interruptible(
    work: Callable[[], Any], stop: Callable[[], None], deadline: Deadline
) -> tuple[Any, bool]:
    """Return what a blocking call returned, and whether the user interrupted it.

    It runs beside this thread, so that Ctrl-C and the deadline, which it should know too, can have
    ``stop`` ask it to end soon.
    """
    call = _begun(work, "subsetopt backend")
    interrupted = stopped = False
    while not call.done():
        try:
            wait([call], _POLL if stopped else min(deadline.remaining() + 1e-3, _POLL))
        except KeyboardInterrupt:
            interrupted = True
        if not call.done() and not stopped and (interrupted or deadline.expired()):
            stop()
            stopped = True
    return call.result(), interrupted


def set_parameters(
    backend: str, put: Callable[[str, Any], Any], values: Mapping[str, Any], known: Iterable[str]
) -> None:
    """Hand the caller's own parameters to a backend; a refusal is an OptionError.

    The error has the nearest of the ``known`` names where the parameter's is none of them.
    """
    for name, value in values.items():
        try:
            put(name, value)
        except Exception as error:
            near = "" if name in known else did_you_mean(name, known)
            raise OptionError(
                f"{backend} does not take backend_params[{name!r}] = {value!r}: {error}.{near}"
            ) from None
