"""The record of an instance, 24 bytes in every medium, and what lookups and scans return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ABSENT",
    "RECORD",
    "RECORD_SIZE",
    "Chunk",
    "LedgerStats",
    "LedgerWarning",
    "Records",
    "Rows",
    "columns",
    "empty_rows",
    "intact",
    "seal",
]

# The layout of a record, little-endian everywhere. A record of 24 zero bytes is none.
RECORD = np.dtype(
    [
        ("loss", "<f4"),
        ("score", "<f4"),
        ("step", "<i8"),
        ("model_version", "<u4"),
        ("check", "<u4"),
    ]
)
RECORD_SIZE = RECORD.itemsize
Rows = NDArray[Any]

# The step and the model version that a lookup returns where there is no record.
ABSENT = -1

# Odd multipliers of 64 bits: those of the finalizer of MurmurHash3, and the golden ratio.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xFF51AFD7ED558CCD)
_SECOND = np.uint64(0xC4CEB9FE1A85EC53)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ODD = np.uint64(1)


class LedgerWarning(RuntimeWarning):
    """A ledger repaired something, left a damaged record out, or may lose records."""


class Records(NamedTuple):
    """What a ledger knows of the instances it was asked for, each an array of shape (n,).

    Attributes
    ----------
    losses
        float32; NaN where there is no record.
    scores
        float32; NaN where there is no record, or where it was made without a score.
    steps
        int64; -1 where there is no record.
    model_versions
        int64; -1 where there is no record.
    found
        bool; whether there is a record.
    """

    losses: NDArray[np.float32]
    scores: NDArray[np.float32]
    steps: NDArray[np.int64]
    model_versions: NDArray[np.int64]
    found: NDArray[np.bool_]


class Chunk(NamedTuple):
    """Some of the records of a ledger, each an array of shape (m,).

    Attributes
    ----------
    ids
        int64 where every id of the chunk is an integer; otherwise objects, each an int, str or
        bytes.
    losses, scores
        float32; a score is NaN where the record was made without one.
    steps, model_versions
        int64.
    """

    ids: NDArray[Any]
    losses: NDArray[np.float32]
    scores: NDArray[np.float32]
    steps: NDArray[np.int64]
    model_versions: NDArray[np.int64]


@dataclass(frozen=True)
class LedgerStats:
    """The state of a ledger.

    Attributes
    ----------
    url
        What the ledger was opened with, without a password.
    records
        Instances that have a record.
    bytes_per_record
        Bytes that the ledger itself stores for one instance: the record, and in some media a key.
        A key that is a text or bytes counts without its own length.
    bytes_used
        Bytes that the medium takes for all of them, with its own structures.
    recovered
        What was last repaired since this ledger was opened, in one sentence; empty if nothing.
    damaged
        Times that this ledger found a record damaged and left it out.
    """

    url: str
    records: int
    bytes_per_record: int
    bytes_used: int
    recovered: str
    damaged: int


def empty_rows(n: int) -> Rows:
    """Return n records that are none."""
    return np.zeros(n, dtype=RECORD)


def seal(rows: Rows, places: NDArray[np.int64] | int) -> Rows:
    """Return the records with their checks.

    Parameters
    ----------
    rows
        Records, shape (n,), whose checks are not looked at.
    places
        Where each record lies, shape (n,) or one number for all. A record does not pass at another
        place.
    """
    sealed = rows.copy()
    sealed["check"] = _checks(sealed, places)
    return sealed


def intact(rows: Rows, places: NDArray[np.int64] | int) -> NDArray[np.bool_]:
    """Return which records are none or pass their check."""
    passed: NDArray[np.bool_] = rows["check"] == _checks(rows, places)
    if not passed.all():
        words = rows.view("<u8").reshape(-1, 3)
        passed |= ~words.any(axis=1)
    return passed


def _checks(rows: Rows, places: NDArray[np.int64] | int) -> NDArray[np.uint32]:
    """Return a hash of every record and its place; it is odd, so that no record has the check 0."""
    words = rows.view("<u8").reshape(-1, 3)
    # An array, also of one place: NumPy warns where the product of two scalars overflows.
    mixed = np.atleast_1d(np.asarray(places, dtype=np.int64)).view(np.uint64) ^ _SECOND
    mixed *= _SPREAD
    mixed = (mixed ^ words[:, 0]) * _FIRST
    mixed ^= mixed >> _HALF
    mixed = (mixed ^ words[:, 1]) * _SECOND
    mixed ^= mixed >> _HALF
    mixed = (mixed ^ (words[:, 2] & _LOW)) * _FIRST
    mixed ^= mixed >> _HALF
    mixed *= _SECOND
    checks: NDArray[np.uint32] = ((mixed >> _HALF) | _ODD).astype(np.uint32)
    return checks


def columns(rows: Rows) -> Records:
    """Return the fields of records, with NaN and -1 where there is none."""
    found: NDArray[np.bool_] = rows["check"] != 0
    losses, scores = rows["loss"].astype(np.float32), rows["score"].astype(np.float32)
    steps = rows["step"].astype(np.int64)
    versions = rows["model_version"].astype(np.int64)
    if not found.all():
        missing = ~found
        losses[missing] = scores[missing] = np.nan
        steps[missing] = versions[missing] = ABSENT
    return Records(losses, scores, steps, versions, found)
