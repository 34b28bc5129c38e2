"""Time as an injected value: a deadline that all code between call and return looks at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from subsetopt.errors import OptionError

__all__ = ["Deadline", "OutOfTimeError"]

# Seconds of the longest limit, about 32 years: a longer one, and its arithmetic, do not fit into
# the integers of the backends.
_LONGEST = 1e9


class OutOfTimeError(Exception):
    """Time is up in the midst of work that is of no use by halves; caught where it was begun."""


class Deadline:
    """A point in time after which work must stop.

    Parameters
    ----------
    seconds
        Wall-clock seconds from now, at least 0; ``None`` or infinity never expires. More than 1e9
        is taken as 1e9.
    clock
        Monotonic clock in seconds. Tests inject their own.

    Raises
    ------
    OptionError
        If ``seconds`` is negative or not a number.

    Examples
    --------
    >>> Deadline(0).expired()
    True
    >>> Deadline(None).remaining()
    inf
    """

    __slots__ = ("clock", "end", "seconds", "start")

    def __init__(
        self, seconds: float | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.clock = clock
        self.start = clock()
        if seconds is None:
            self.seconds = math.inf
        else:
            try:
                self.seconds = float(seconds)
            except OverflowError:  # an integer beyond the largest float
                self.seconds = _LONGEST if seconds > 0 else -_LONGEST
            except (TypeError, ValueError):
                raise OptionError(
                    f"time_limit must be a number of seconds or None, got {seconds!r}."
                ) from None
            if not self.seconds >= 0.0:
                raise OptionError(
                    f"time_limit must be at least 0 seconds, got {seconds!r}; "
                    "use None for the default work limit."
                )
            if self.seconds != math.inf:
                self.seconds = min(self.seconds, _LONGEST)
        self.end = self.start + self.seconds

    @classmethod
    def of(cls, time_limit: float | Deadline | None) -> Deadline:
        """Return a limit as a running deadline: itself where it is one."""
        return time_limit if isinstance(time_limit, Deadline) else cls(time_limit)

    @property
    def limited(self) -> bool:
        """Whether there is a time limit at all."""
        return self.seconds != math.inf

    def less(self, seconds: float) -> Deadline:
        """Return this deadline earlier by some seconds, which are kept back for later work."""
        if not self.limited:
            return self
        earlier = object.__new__(Deadline)
        earlier.clock, earlier.start = self.clock, self.start
        earlier.seconds = max(0.0, self.seconds - seconds)
        earlier.end = earlier.start + earlier.seconds
        return earlier

    def elapsed(self) -> float:
        """Return the seconds since the deadline was made."""
        return self.clock() - self.start

    def remaining(self) -> float:
        """Return the seconds left, never negative; infinity without a limit."""
        return max(0.0, self.end - self.clock()) if self.limited else math.inf

    def expired(self) -> bool:
        """Return whether the time is up."""
        return self.limited and self.clock() >= self.end

    def check(self) -> None:
        """Raise OutOfTimeError where the time is up."""
        if self.expired():
            raise OutOfTimeError

    def __repr__(self) -> str:
        return f"Deadline(seconds={self.seconds})"
