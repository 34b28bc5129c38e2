"""Which candidates a key of the quotas means: labels compared by value and kind."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Sequence
from enum import Enum
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import ProblemError

__all__ = ["as_labels", "codes_of", "labels_of_some"]

# What the labels of an array of each NumPy kind are. Arrays of objects may mix them.
_WORDS = {
    **dict.fromkeys("biufc", "numbers"),
    **dict.fromkeys("UT", "text"),
    "S": "bytes",
    "M": "dates",
    "m": "durations",
    "O": "objects",
}
# What None, NaN, NaT and pandas' NA are.
_MISSING = "missing"
# Likeness, ignoring case, from which a label counts as what a key was meant to be, from 0 to 1.
_LIKENESS = 0.8
# The greatest number of labels that are compared with a misspelt key.
_COMPARED = 1000
# The largest integer up to which float64 holds all.
_EXACT_INTEGER = 2**53


class Unnamed(Enum):
    """What stands for every label that has no quota."""

    LABEL = "a label without a quota"


def as_labels(groups: NDArray[Any], given: object) -> NDArray[Any]:
    """Return the labels as an array in which NumPy has turned none into another.

    Parameters
    ----------
    groups
        What NumPy makes of the labels.
    given
        What the user passed; a list that mixes kinds becomes an array of objects.

    Raises
    ------
    ProblemError
        If the labels are of a kind that cannot be compared with a key.
    """
    if groups.dtype.kind not in _WORDS:
        raise ProblemError(
            f"groups has dtype {groups.dtype}; labels must be numbers, text, bytes, dates or "
            "durations: number the rows that are equal, for example with np.unique."
        )
    if isinstance(given, (list, tuple)) and _mixed(groups, given):
        objects = np.empty(len(given), dtype=object)
        objects[:] = given
        return objects
    return groups


def _mixed(groups: NDArray[Any], given: Iterable[Any]) -> bool:
    """Whether NumPy has turned labels of a list into text, or large integers into floats."""
    if groups.dtype.kind == "U":
        return not all(isinstance(label, str) for label in given)
    if groups.dtype.kind == "S":
        return not all(isinstance(label, bytes) for label in given)
    if groups.dtype.kind == "f":
        return any(isinstance(label, int) and abs(label) > _EXACT_INTEGER for label in given)
    return False


def codes_of(groups: NDArray[Any], keys: Sequence[Any]) -> NDArray[np.int64]:
    """Return for each candidate which of the keys its label equals, shape (n,).

    Candidates whose label no key equals have the number ``len(keys)``. Numbers equal numbers of
    the same value, text equals text, bytes equal bytes, and dates equal dates of the same instant.
    None, NaN and NaT are one label: that of candidates without one.

    Parameters
    ----------
    groups
        The labels, shape (n,), as :func:`as_labels` returns them.
    keys
        The keys of the quotas.

    Raises
    ------
    ProblemError
        If no label of the array can equal a key, if two keys are equal, or if a key that no label
        equals is like a label that has no quota.
    """
    codes = np.full(groups.size, len(keys), dtype=np.int64)
    if not groups.size:
        return codes
    of_objects = groups.dtype.kind == "O"
    identities = np.empty(groups.size, dtype=object)
    if of_objects:
        identities[:] = [_identity(label) for label in groups]
    absent = []
    for code, key in enumerate(keys):
        if of_objects:
            bear = _bear_objects(groups, identities, key)
        else:
            bear = _bear(groups, key)
        if not bear.any():
            absent.append(key)
        elif (taken := codes[bear][0]) < len(keys):
            raise ProblemError(f"quotas name one label twice, as {keys[taken]!r} and as {key!r}.")
        codes[bear] = code
    for key in absent:
        _refuse_misspelt(groups, key, codes == len(keys))
    return codes


def labels_of_some(
    groups: NDArray[Any], keys: Sequence[Any], rows: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the labels of some candidates, such that no key counts as misspelt among them.

    A key that labels of other candidates equal is merely absent here. Labels that no key equals
    then become one that is like no key.

    Parameters
    ----------
    groups, keys
        As for :func:`codes_of`, which has looked at all of them.
    rows
        The candidates whose labels are wanted.
    """
    codes = codes_of(groups, keys)[rows]
    labels = groups[rows]
    if np.unique(codes[codes < len(keys)]).size == len(keys):
        return labels
    objects = np.empty(labels.size, dtype=object)
    objects[:] = list(labels)
    objects[codes == len(keys)] = Unnamed.LABEL
    return objects


def _bear(groups: NDArray[Any], key: Any) -> NDArray[np.bool_]:
    """Return which labels of an array of one kind equal a key."""
    kind = groups.dtype.kind
    bear: NDArray[np.bool_] = np.zeros(groups.size, dtype=np.bool_)
    if _missing(key):
        if kind in "fcmM":
            bear = groups != groups
    elif _kind_of(key) != _WORDS[kind]:
        _refuse_kind(groups, key)
    else:
        bear = np.asarray(groups == (_in_time(key) if kind in "mM" else key), dtype=np.bool_)
    return bear


def _bear_objects(groups: NDArray[Any], identities: NDArray[Any], key: Any) -> NDArray[np.bool_]:
    """Return which labels of an array of objects equal a key."""
    own = _identity(key)
    bear = np.fromiter((identity == own for identity in identities), np.bool_, groups.size)
    if own[0] != _MISSING and not bear.any():
        kinds = {identity[0] for identity in identities} - {_MISSING}
        if len(kinds) == 1 and own[0] not in kinds:
            _refuse_kind(groups, key)
    return bear


def _missing(label: Any) -> bool:
    """Whether a label stands for none: None, NaN, NaT, or pandas' NA."""
    if label is None:
        return True
    try:
        return bool(label != label)
    except (TypeError, ValueError):
        return type(label).__name__ == "NAType"


def _kind_of(label: Any) -> str:
    """Return what a label is, in the words of messages."""
    # NumPy counts its durations among the integers.
    if isinstance(label, (datetime.timedelta, np.timedelta64)):
        return "durations"
    if isinstance(label, (Number, np.bool_)):
        return "numbers"
    if isinstance(label, str):
        return "text"
    if isinstance(label, bytes):
        return "bytes"
    if isinstance(label, (datetime.date, np.datetime64)):
        return "dates"
    return type(label).__name__


def _identity(label: Any) -> tuple[str, Any]:
    """Return the kind and the value of a label; labels are equal if these are."""
    if _missing(label) or label is Unnamed.LABEL:
        return _MISSING, label if label is Unnamed.LABEL else None
    kind = _kind_of(label)
    return kind, _in_time(label) if kind in ("dates", "durations") else label


def _in_time(label: Any) -> Any:
    """Return a date or a duration in NumPy's form, an instant with a time zone in UTC."""
    if isinstance(label, (np.datetime64, np.timedelta64)):
        return label
    if isinstance(label, datetime.datetime) and label.tzinfo is not None:
        label = label.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    if hasattr(label, "to_numpy"):
        return label.to_numpy()  # pandas keeps nanoseconds
    is_duration = isinstance(label, datetime.timedelta)
    return np.timedelta64(label) if is_duration else np.datetime64(label)


def _refuse_kind(groups: NDArray[Any], key: Any) -> None:
    """Raise because no label of the array can equal the key."""
    labels = _distinct(groups)
    alike = [label for label in labels if _text(label) == _text(key)]
    remedy = f"Did you mean {alike[0]!r}?" if alike else "Pass keys of the labels' own type."
    raise ProblemError(
        f"quotas name {key!r}, of type {type(key).__name__}, which no label can equal: groups has "
        f"labels such as {', '.join(repr(label) for label in labels[:3])}. {remedy}"
    )


def _refuse_misspelt(groups: NDArray[Any], key: Any, unnamed: NDArray[np.bool_]) -> None:
    """Raise if a key that no label equals is likely meant to be a label that has no quota.

    Parameters
    ----------
    groups
        The labels, shape (n,).
    key
        The key.
    unnamed
        Which candidates bear a label that no key equals, shape (n,).
    """
    labels = _distinct(groups[unnamed])
    likeness = [_likeness(label, key) for label in labels]
    if max(likeness, default=0.0) >= _LIKENESS:
        best = labels[likeness.index(max(likeness))]
        raise ProblemError(
            f"quotas name {key!r}, which no label equals. Did you mean {best!r}? If {key!r} is "
            f"merely absent here, give {best!r} a quota, too, such as (0, {groups.size})."
        )


def _likeness(label: Any, key: Any) -> float:
    """Return how like two labels are, from 0 to 1; those that are no text are like or unlike."""
    if isinstance(label, (str, bytes)) and isinstance(key, (str, bytes)):
        one, other = (_text(text).casefold().strip() for text in (label, key))
        return difflib.SequenceMatcher(None, one, other).ratio()
    return float(_text(label) == _text(key))


def _text(label: Any) -> str:
    """Return a label as text; bytes decoded."""
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)


def _distinct(groups: NDArray[Any]) -> list[Any]:
    """Return the first distinct labels, as Python has them."""
    if groups.dtype.kind == "O":
        return list({repr(label): label for label in groups[: 10 * _COMPARED]}.values())[:_COMPARED]
    distinct = np.unique(groups)[:_COMPARED]
    return list(distinct) if groups.dtype.kind in "mM" else list(distinct.tolist())
