"""What a step says once."""

from __future__ import annotations

import warnings

__all__ = ["Notices"]


class Notices:
    """Warnings of one step, each of which is given once."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: set[str] = set()

    def warn(self, subject: str, message: str) -> None:
        """Give a warning, unless one on this subject was given before."""
        if subject not in self._given:
            self._given.add(subject)
            warnings.warn(message, UserWarning, stacklevel=4)
