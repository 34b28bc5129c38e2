"""What every MIP backend does around a solve: imports, limits, Ctrl-C."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from subsetopt.budget import Deadline
from subsetopt.solvers.base import RawResult
from subsetopt.status import StopReason

__all__ = [
    "Outcome",
    "import_within",
    "out_of_time",
    "run_interruptible",
]

_T = TypeVar("_T")

_POLL = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome(Generic[_T]):
    """What a backend call returned, and whether the user or the clock asked it to stop."""

    result: _T
    interrupted: bool = False


def import_within(name: str, deadline: Deadline) -> Any | None:
    """Return a module, or None when its import does not end before the deadline.

    An import cannot be interrupted: it goes on in the background, for the next call to find.
    """
    if name in sys.modules and not getattr(
        getattr(sys.modules[name], "__spec__", None), "_initializing", False
    ):
        return sys.modules[name]
    if not deadline.limited:
        return importlib.import_module(name)
    failure: list[BaseException] = []

    def load() -> None:
        try:
            importlib.import_module(name)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=load, name=f"import {name}")
    thread.start()
    thread.join(deadline.remaining())
    if failure:
        raise failure[0]
    return None if thread.is_alive() else sys.modules[name]


def run_interruptible(
    work: Callable[[], _T], stop: Callable[[], None], deadline: Deadline
) -> Outcome[_T]:
    """Run a backend call beside this thread, so that Ctrl-C and the deadline can stop it.

    Parameters
    ----------
    work
        The blocking call.
    stop
        Asks the call to end soon; called on Ctrl-C and when the deadline has passed.
    deadline
        The limit; the call is expected to know it too.
    """
    results: list[_T] = []
    failures: list[BaseException] = []
    # Not Thread.join: interrupted by Ctrl-C it takes the thread for dead (Python 3.10 to 3.12).
    done = threading.Event()

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=body, name="subsetopt backend").start()
    interrupted = stopped = False
    while not done.is_set():
        try:
            done.wait(_POLL if stopped else min(deadline.remaining() + 1e-3, _POLL))
        except KeyboardInterrupt:
            interrupted = True
        if not done.is_set() and not stopped and (interrupted or deadline.expired()):
            stop()
            stopped = True
    if failures:
        raise failures[0]
    return Outcome(results[0], interrupted)


def out_of_time(deadline: Deadline) -> RawResult:
    """Return the result of a backend that there was no time to call."""
    return RawResult(
        None,
        stop_reason=StopReason.TIME,
        setup_time=deadline.elapsed(),
        extras={"native_status": "not called"},
    )
