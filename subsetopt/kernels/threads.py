"""Where parallel kernels run in parallel: one at a time, and never in a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["on_all_cores"]

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
