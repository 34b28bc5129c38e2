"""A record of training that stays short, however long training goes on."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["record"]

# A history of this many rows is full: every second one is then dropped.
_FULL = 4096

_Row = TypeVar("_Row")


def record(history: list[_Row], row: _Row, number: int, stride: int) -> int:
    """Add a row to a history, unless the stride passes over it.

    Parameters
    ----------
    history
        The rows so far, changed in place. It never holds as many as 4,096 between two calls.
    row
        What there is to record.
    number
        How many rows were there to record before this one.
    stride
        Every how many of them one is recorded, 1 at first.

    Returns
    -------
    int
        The stride of the next call, twice as large once the history is full.
    """
    if number % stride:
        return stride
    history.append(row)
    if len(history) < _FULL:
        return stride
    del history[1::2]
    return 2 * stride
