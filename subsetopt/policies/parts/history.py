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
        The rows so far, changed in place; at most 4,095 between two calls.
    row
        The row to record.
    number
        The number of rows before this one, recorded or not.
    stride
        One row in this many is recorded; 1 at first.

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
