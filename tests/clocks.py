"""Clocks that tests inject into a Deadline."""

from __future__ import annotations

__all__ = ["InterruptedClock"]


class InterruptedClock:
    """A clock that ticks by a microsecond a reading and is interrupted once, at one reading."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        if self.readings == self.at:
            raise KeyboardInterrupt
        return 1e-6 * self.readings
