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
    "import_within",
    "out_of_time",
    "run_interruptible",
    "work_left",
]

# Seconds between two looks at whether a call has ended; its end wakes the waiting thread earlier.
_POLL = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a backend call returned, and whether the user interrupted it."""

    result: Any
    interrupted: bool = False


class _Background:
    """A call in a thread of its own."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        self.work = work
        self.results: list[Any] = []
        self.failures: list[BaseException] = []
        # Not Thread.join: interrupted by Ctrl-C it takes the thread for dead (Python 3.10 to 3.12).
        self.done = threading.Event()
        threading.Thread(target=self._run, name=name).start()

    def _run(self) -> None:
        try:
            self.results.append(self.work())
        except BaseException as error:
            self.failures.append(error)
        finally:
            self.done.set()

    def result(self) -> Any:
        """Return what the call returned, or raise what it raised, once it is done."""
        if self.failures:
            raise self.failures[0]
        return self.results[0]


def import_within(name: str, deadline: Deadline) -> Any | None:
    """Return a module, or None when its import does not end before the deadline.

    An import cannot be interrupted: it goes on in the background, for the next call to find.
    """
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if name in sys.modules and not getattr(spec, "_initializing", False):
        return sys.modules[name]
    if not deadline.limited:
        return importlib.import_module(name)
    call = _Background(lambda: importlib.import_module(name), f"import {name}")
    return call.result() if call.done.wait(min(deadline.remaining(), _POLL)) else None


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
    call = _Background(work, "subsetopt backend")
    interrupted = stopped = False
    while not call.done.is_set():
        try:
            call.done.wait(_POLL if stopped else min(deadline.remaining() + 1e-3, _POLL))
        except KeyboardInterrupt:
            interrupted = True
        if not call.done.is_set() and not stopped and (interrupted or deadline.expired()):
            stop()
            stopped = True
    return Outcome(call.result(), interrupted)


class Limits(NamedTuple):
    """What limits a run besides the clock: nodes or conflicts, and work; None is no limit."""

    iterations: int | None = None
    work: float | None = None


def work_left(context: SolveContext, used: int, number: int, work: float) -> Limits | None:
    """Return the limits of a run, or None where nothing is left to a later one.

    ``used`` are the nodes or conflicts of the ``number`` runs before; ``work`` is what they left of
    the solver's default limit, which holds where the context has no limit.
    """
    if context.max_iterations is not None:
        iterations = context.max_iterations - used
        return Limits(max(0, iterations)) if iterations > 0 or number == 0 else None
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
