"""Work on all cores, by Numba's threads or by threads of our own.

A kernel runs on Numba's threads one at a time, and never in a forked child. These threads wait for
each other busily, which costs little between short loops on an idle machine, and much where other
processes keep the cores busy. Long work is better shared among threads that sleep while they wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["cores", "on_all_cores", "share"]

T = TypeVar("T")

# Numba's simplest threading layer aborts the process when two threads enter it at once.
_lock = threading.Lock()
_forked = False


def _after_fork() -> None:
    """Remember to stay serial: the threads of the parent's pool do not exist in the child."""
    global _forked, _lock
    _forked = True
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def on_all_cores(
    parallel: Callable[..., Any], serial: Callable[..., Any], *arguments: Any, wanted: bool = True
) -> None:
    """Call a parallel kernel, or its serial twin on request and in forked children."""
    if _forked or not wanted:
        serial(*arguments)
        return
    with _lock:
        parallel(*arguments)


def share(work: Callable[[T], object], parts: Iterable[T]) -> None:
    """Call ``work`` with every part, on all cores; the first error is raised here.

    ``work`` has to release the interpreter's lock for this to be of use, as a kernel compiled with
    ``nogil`` does, and parts must not touch each other's results.
    """
    queue = list(parts)[::-1]
    errors: list[BaseException] = []

    def run() -> None:
        while queue:
            try:
                part = queue.pop()
            except IndexError:  # another thread was faster
                return
            try:
                work(part)
            except BaseException as error:
                queue.clear()
                errors.append(error)

    count = min(cores(), len(queue)) if len(queue) > 1 else 1
    others = [threading.Thread(target=run, daemon=True) for _ in range(count - 1)]
    for thread in others:
        thread.start()
    try:
        run()
    finally:
        queue.clear()  # only an interrupt leaves parts behind
        for thread in others:
            thread.join()
    if errors:
        raise errors[0]


def cores() -> int:
    """Return how many threads to work with: the cores of this process, fewer where limits say so.

    The environment variables OMP_NUM_THREADS and NUMBA_NUM_THREADS, which pools of workers set, are
    the limits.
    """
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    return min([available, *_limits()])


def _limits() -> Iterable[int]:
    """Yield the numbers of threads that the environment allows."""
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        # OpenMP takes one number per level of nesting; the first is that of the outermost level.
        number = os.environ.get(variable, "").split(",")[0].strip()
        if number.isdecimal() and int(number) > 0:
            yield int(number)
