"""Records as the values of keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subsetopt.ledger.records import RECORD, RECORD_SIZE, Rows, intact, seal

__all__ = ["MISSING", "from_values", "sift", "to_values"]

# What stands for the value of a key that is not there.
MISSING = bytes(RECORD_SIZE)
# The key is not part of the check: the medium itself keeps a value with its key.
_PLACE = 0


def to_values(rows: Rows) -> list[bytes]:
    """Return records with their checks as bytes."""
    values: list[bytes] = seal(rows, _PLACE).view(f"V{RECORD_SIZE}").tolist()
    return values


def from_values(values: Sequence[bytes | None]) -> Rows:
    """Return the records of values, as they are; one of a wrong length does not pass its check."""
    filled = [MISSING if value is None else value for value in values]
    if set(map(len, filled)) - {RECORD_SIZE}:
        filled = [value[:RECORD_SIZE].ljust(RECORD_SIZE) for value in filled]
    return np.frombuffer(bytearray(b"".join(filled)), dtype=RECORD)


def sift(rows: Rows) -> NDArray[np.intp]:
    """Zero the records that are damaged, and return their positions."""
    broken = np.flatnonzero(~intact(rows, _PLACE))
    rows[broken] = 0
    return broken
