"""What every MIP backend does around a solve: imports, limits, Ctrl-C."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from subsetopt.budget import Deadline
from subsetopt.solvers.base import RawResult, SolveContext
from subsetopt.status import StopReason

__all__ = [
    "Limits",
    "Outcome",
    "Pace",
    "import_within",
    "out_of_time",
    "run_interruptible",
    "work_left",
]

# Seconds between two looks at whether a call has ended; its end wakes the waiting thread earlier.
_POLL = 3600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a backend is busy with a program outside of its search, in seconds.

    Attributes
    ----------
    building
        Per coefficient: to build the native model and to hand it over.
    leaving
        Per coefficient: from the backend's own limit to its answer.
    presolve
        Per binary: before the backend looks at the clock for the first time.
    """

    building: float = 0.0
    leaving: float = 0.0
    presolve: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a backend call returned, and whether the user interrupted it."""

    result: Any
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
    work: Callable[[], Any], stop: Callable[[], None], deadline: Deadline
) -> Outcome:
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
    results: list[Any] = []
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


class Limits(NamedTuple):
    """What limits a run besides the clock: nodes or conflicts, and work; None is no limit."""

    iterations: int | None = None
    work: float | None = None


def work_left(context: SolveContext, used: int, number: int, work: float) -> Limits | None:
    """Return the limits of a run, or None where there is nothing left.

    Parameters
    ----------
    context
        Says what is limited at all.
    used
        Nodes or conflicts of the runs before.
    number
        How many runs there were before; the first is never refused.
    work
        What is left of the default limit of work, where the context has none.
    """
    if context.max_iterations is not None:
        left = context.max_iterations - used
        return Limits(iterations=max(0, left)) if left > 0 or number == 0 else None
    if context.deadline.limited:
        return Limits()
    return Limits(work=work) if work > 0.0 else None


def out_of_time(deadline: Deadline) -> RawResult:
    """Return the result of a backend that there was no time to call."""
    return RawResult(
        None,
        stop_reason=StopReason.TIME,
        setup_time=deadline.elapsed(),
        extras={"native_status": "not called"},
    )
