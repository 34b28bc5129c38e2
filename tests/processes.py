"""Code that runs in a process of its own: a fresh interpreter, or a forked child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from select import select

__all__ = ["in_forked_child", "modules_loaded_by", "python"]


def python(code: str) -> str:
    """Return what code prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def modules_loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has after a statement."""
    code = f"import sys; {statement}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    return set(python(code).split())


def in_forked_child(check: Callable[[], bool]) -> str:
    """Return "True" or "False" as the check says in a forked child, or the error it raised.

    A child that does not answer within a minute is killed, and the answer is "no answer".
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # The child only ever leaves through os._exit.
        try:
            os.write(writing, str(bool(check())).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select([reading], [], [], 60.0)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    answer = os.read(reading, 4096).decode() if ready else "no answer"
    os.close(reading)
    return answer
