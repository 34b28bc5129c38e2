"""Ids of any kind as bytes, and back.

The first byte tells the kind, so that 1, "1" and b"1" are three instances.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import as_array, is_integer

__all__ = ["BYTES", "INTEGER", "INTEGER_SIZE", "TEXT", "decoded", "encoded", "unbiased"]

INTEGER, TEXT, BYTES = b"i", b"s", b"b"
# A key of an integer is its kind and 8 bytes, whose order as bytes is that of the numbers.
INTEGER_SIZE = 9
_SIGN = np.uint64(1 << 63)
_LEAST, _LARGEST = -(2**63), 2**63 - 1
# LMDB takes keys of up to 511 bytes.
_LONGEST = 500


def encoded(ids: Any) -> list[bytes]:
    """Return the keys of ids.

    Parameters
    ----------
    ids
        Integers of 64 bits, texts and bytes, shape (n,); a list may mix them.

    Raises
    ------
    ProblemError
        If there is anything else among them, or a text or bytes that are too long.
    """
    if isinstance(ids, (list, tuple)):
        if all(type(value) is int for value in ids) and ids:
            return _integers(_as_int64(ids))
        return _mixed(ids)
    array = as_array(ids, "ids")
    if array.ndim != 1:
        raise ProblemError(f"ids must be one-dimensional, got shape {array.shape}.")
    if array.dtype.kind in "iu":
        return _integers(_as_int64(array))
    if array.dtype.kind in "USO" or not array.size:
        return _mixed(array.tolist())
    raise ProblemError(f"ids must be integers, texts or bytes, got dtype {array.dtype}.")


def decoded(keys: list[bytes]) -> NDArray[Any]:
    """Return the ids of keys: int64 where all are integers, objects otherwise."""
    if all(key[:1] == INTEGER for key in keys):
        return unbiased(np.frombuffer(b"".join([key[1:] for key in keys]), dtype=">u8"))
    ids = np.empty(len(keys), dtype=object)
    ids[:] = [_decoded(key) for key in keys]
    return ids


def unbiased(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return integers from what keys hold: their sum with 2**63, without a sign."""
    return (words.astype(np.uint64) ^ _SIGN).view(np.int64)


def _decoded(key: bytes) -> int | str | bytes:
    kind, content = key[:1], key[1:]
    if kind == INTEGER:
        return int.from_bytes(content, "big") - 2**63
    return content.decode() if kind == TEXT else content


def _integers(values: NDArray[np.int64]) -> list[bytes]:
    """Return the keys of integers of 64 bits."""
    keys = np.empty((values.size, INTEGER_SIZE), dtype=np.uint8)
    keys[:, 0] = INTEGER[0]
    keys[:, 1:] = (values.view(np.uint64) ^ _SIGN).astype(">u8").view(np.uint8).reshape(-1, 8)
    listed: list[bytes] = keys.reshape(-1).view(f"V{INTEGER_SIZE}").tolist()
    return listed


def _as_int64(values: Any) -> NDArray[np.int64]:
    """Return integers as an int64 array in C order."""
    if isinstance(values, np.ndarray) and values.dtype != np.uint64:
        return np.ascontiguousarray(values, dtype=np.int64)
    for position, value in enumerate(values):
        if not _LEAST <= value <= _LARGEST:
            raise _beyond(int(value), position)
    return np.array(values, dtype=np.int64)


def _mixed(values: Iterable[Any]) -> list[bytes]:
    """Return the keys of ids of several kinds."""
    return [_key(value, position) for position, value in enumerate(values)]


def _key(value: Any, position: int) -> bytes:
    if is_integer(value):
        if not _LEAST <= value <= _LARGEST:
            raise _beyond(int(value), position)
        return INTEGER + (int(value) + 2**63).to_bytes(8, "big")
    if isinstance(value, bytes):
        content, kind = bytes(value), BYTES
    elif isinstance(value, str):
        try:
            content, kind = value.encode(), TEXT
        except UnicodeEncodeError:
            raise ProblemError(
                f"ids must be valid texts, got {value!r} at position {position}, which has a half "
                "of a surrogate pair: pass it as bytes."
            ) from None
    else:
        raise ProblemError(
            f"ids must be integers, texts or bytes, got {value!r:.80} at position {position}."
        )
    if len(content) > _LONGEST:
        raise ProblemError(
            f"ids must have at most {_LONGEST} bytes, got {len(content)} at position {position}: "
            "use a hash of it."
        )
    return kind + content


def _beyond(value: int, position: int) -> ProblemError:
    return ProblemError(
        f"ids must be within 64 bits with a sign, got {value} at position {position}: pass "
        "unsigned ones as ids.view(numpy.int64), larger ones as texts."
    )
