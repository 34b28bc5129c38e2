"""Checks of what is handed to a ledger, and its repeats: each ends in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import as_array, as_finite_vector
from subsetopt.ledger.records import RECORD, Rows

__all__ = ["checked_rows", "keep_last", "whole_numbers"]

_LAST_STEP = 2**63 - 1
_LAST_VERSION = 2**32 - 1


def checked_rows(
    n: int, losses: ArrayLike, scores: ArrayLike | None, step: ArrayLike, model_version: ArrayLike
) -> Rows:
    """Return n records without their checks.

    Raises
    ------
    ProblemError
        If a value is missing, not finite, beyond float32, or no step or version.
    """
    rows = np.zeros(n, dtype=RECORD)
    rows["loss"] = _singles(losses, "losses", n)
    rows["score"] = np.nan if scores is None else _singles(scores, "scores", n)
    rows["step"] = _counts(step, "step", n, _LAST_STEP)
    rows["model_version"] = _counts(model_version, "model_version", n, _LAST_VERSION)
    return rows


def whole_numbers(values: Any, name: str) -> NDArray[Any]:
    """Return integers as an array, in their own dtype.

    Raises
    ------
    ProblemError
        If they are anything else.
    """
    array = as_array(values, name)
    if array.dtype.kind not in "iu" and array.size:
        what = f"dtype {array.dtype}"
        if array.dtype.kind == "O" and all(type(value) is int for value in array.flat):
            what = "one that needs more than 64 bits"
        raise ProblemError(f"{name} must be integers, got {what}.")
    return array


def keep_last(keys: Any, rows: Rows) -> tuple[Any, Rows]:
    """Return keys and records without repeats: the later step stays, of equal steps the last.

    Parameters
    ----------
    keys
        int64, shape (n,), or a list of bytes.
    rows
        Their records, shape (n,).
    """
    if isinstance(keys, np.ndarray):
        ordered = np.sort(keys)  # a third of the time of sorting by steps, too
        if (ordered[1:] != ordered[:-1]).all():
            return keys, rows
        order = np.lexsort((rows["step"], keys))
        last = np.append(ordered[1:] != ordered[:-1], True)
        return ordered[last], rows[order[last]]
    if len(set(keys)) == len(keys):
        return keys, rows
    steps = rows["step"].tolist()
    places: dict[bytes, int] = {}
    for place, key in enumerate(keys):
        if key not in places or steps[place] >= steps[places[key]]:
            places[key] = place
    return list(places), rows[list(places.values())]


def _singles(values: ArrayLike, name: str, n: int) -> NDArray[np.float32]:
    """Return one finite float32 value per id."""
    vector, _ = as_finite_vector(values, name)
    if vector.size != n:
        raise ProblemError(f"{name} must hold one value per id, shape ({n},), got {vector.shape}.")
    with np.errstate(over="ignore"):
        singles = vector.astype(np.float32)
    beyond = np.flatnonzero(~np.isfinite(singles))
    if beyond.size:
        at = beyond[0]
        raise ProblemError(
            f"{name} are recorded as float32, and {vector[at]:g} at position {at} is beyond its "
            f"range of {np.finfo(np.float32).max:g}: scale the values down."
        )
    return singles


def _counts(values: ArrayLike, name: str, n: int, largest: int) -> NDArray[Any]:
    """Return a count for all ids or one per id."""
    array = whole_numbers(values, name)
    if array.shape not in ((), (n,)):
        raise ProblemError(
            f"{name} must be an integer, or one per id, shape ({n},), got shape {array.shape}."
        )
    wrong = np.flatnonzero((array < 0) | (array > largest))
    if wrong.size:
        value = int(array.flat[wrong[0]])
        where = f" at position {wrong[0]}" if array.ndim else ""
        raise ProblemError(f"{name} must be from 0 to {largest}, got {value}{where}.")
    return array
