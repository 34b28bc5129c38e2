"""Sample ids: integers, strings or bytes that tell samples apart."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import ProblemError
from subsetopt.inputs import is_integer
from subsetopt.policies.arrays import Array, to_host

__all__ = ["checked_ids", "id_array", "id_bits"]

# The id that data sets give to samples that have none; it would stand for many samples at once.
_NO_ID = -1
_WORD = np.int64(32)


def id_array(ids: Array | Sequence[Any]) -> NDArray[Any]:
    """Return ids as an array on the host in which NumPy has turned none into another.

    Integers keep their dtype. Strings and bytes become an array of objects, since NumPy's own
    arrays of them drop zero bytes at the end, and turn a list of integers and strings into strings.
    Anything else is returned as NumPy has it.
    """
    is_list = isinstance(ids, (list, tuple))
    if is_list and any(isinstance(value, (str, bytes)) for value in ids):
        return _objects(ids)
    try:
        array = to_host(ids)
    except ValueError as error:  # a list of lists of different lengths
        raise ProblemError(f"ids must have shape (n,), one per sample: {error}") from None
    kind = array.dtype.kind
    if array.ndim != 1 or kind in "biu" or (kind == "f" and not is_list):
        return array
    given = ids if is_list else array.tolist()
    if all(is_integer(value) for value in given):
        with contextlib.suppress(OverflowError):
            return np.array(given, dtype=np.int64)
    elif kind == "f":
        return array
    return _objects(given)


def checked_ids(ids: Array | Sequence[Any]) -> NDArray[Any]:
    """Return sample ids as int64, or as an array of objects that are all ``str`` or ``bytes``.

    Raises
    ------
    ProblemError
        If they are no vector of integers within 64 bits other than -1, of strings, or of bytes.
    """
    array = id_array(ids)
    if array.ndim != 1:
        raise ProblemError(f"ids must have shape (n,), got {array.shape}; pass one per sample.")
    if not array.size:
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind == "O":
        return _checked_objects(array)
    if array.dtype.kind not in "iu":
        raise ProblemError(
            f"ids must be integers, strings or bytes, got dtype {array.dtype}; pass positions in "
            "the data set, or names of the samples."
        )
    if array.dtype.kind == "u" and (largest := int(array.max())) >= 1 << 63:
        raise _too_large(largest)
    integers = array.astype(np.int64, copy=False)
    if (integers == _NO_ID).any():
        raise ProblemError(
            f"ids must tell samples apart, got {_NO_ID}, which stands for samples without an id: "
            "number the samples from 0, or leave these out."
        )
    return integers


def id_bits(ids: NDArray[Any]) -> NDArray[np.uint32]:
    """Return 32 bits of each id, by which ties are settled; those below 2**32 keep their value."""
    if ids.dtype.kind == "O":
        hashes = (zlib.crc32(_encoded(i)) for i in ids.tolist())
        return np.fromiter(hashes, np.uint32, ids.size)
    bits: NDArray[np.uint32] = (ids ^ (ids >> _WORD)).astype(np.uint32)
    return bits


def _checked_objects(array: NDArray[Any]) -> NDArray[Any]:
    values = [_plain(value) for value in array.tolist()]
    kinds = {type(value) for value in values}
    if kinds == {int}:
        raise _too_large(max(values, key=abs))
    if not kinds <= {str, bytes}:
        names = sorted({type(value).__name__ for value in array.tolist()})
        raise ProblemError(
            f"ids must be integers, strings or bytes, all of one kind, got {' and '.join(names)}; "
            "pass positions in the data set, or names of the samples."
        )
    return _objects(values)


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _plain(value: Any) -> Any:
    """Return a string, bytes or an integer as Python's own type, and anything else as it is."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return bytes(value)
    return int(value) if is_integer(value) else value


def _too_large(worst: int) -> ProblemError:
    return ProblemError(
        f"ids that are integers must fit into 64 bits with a sign, got {worst}; pass "
        "ids.view(np.int64), or strings."
    )


def _encoded(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
