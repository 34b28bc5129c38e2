"""Checks of what users hand in: arrays, and hyperparameters that are numbers."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import OptionError, ProblemError

__all__ = ["DECIDED", "as_carray", "as_finite_vector", "checked_integer", "checked_positive"]

# An inclusion probability that is nearer to 0 or to 1 than this counts as 0 or as 1.
DECIDED = 1e-12

# BLAS wakes its threads for products of more values than this, which takes milliseconds where
# another process keeps a core busy.
_UNTHREADED = 8192

_Scalar = TypeVar("_Scalar", bound=np.generic)


def as_carray(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return the array itself where it is writable, aligned and in C order, or else a copy.

    Kernels write to no input, but Numba compiles them anew, for seconds, for an array that differs
    in any of these.
    """
    return array if array.flags.carray else array.copy()


def as_finite_vector(values: ArrayLike, name: str) -> tuple[NDArray[np.float64], np.dtype[Any]]:
    """Return ``values`` as a finite float64 vector, and the dtype it came in.

    A float64 vector is not copied, but for :func:`as_carray`. ``name`` is the parameter's name for
    the messages.
    """
    array = np.asarray(values)
    source = array.dtype
    if source.kind not in "fiub" and not _is_extension_float(source):
        raise ProblemError(
            f"{name} must be real numbers (float16, bfloat16, float32, float64, int or bool), "
            f"got dtype {source}."
        )
    if array.ndim != 1:
        raise ProblemError(
            f"{name} must be one-dimensional, one value per sample, got shape {array.shape}; "
            + (
                "a reduced loss has no samples left to choose from: compute it with "
                "reduction='none'."
                if array.ndim == 0
                else "flatten it or pass one row at a time."
            )
        )
    vector: NDArray[np.float64] = as_carray(array.astype(np.float64, copy=False))
    if not _surely_finite(vector, source):
        _require_finite(vector, name)
    return vector, source


def _surely_finite(vector: NDArray[np.float64], source: np.dtype[Any]) -> bool:
    """Whether a sum over the values is finite, which it is only when every value is."""
    if source.itemsize <= 4 and vector.size <= _UNTHREADED:
        return math.isfinite(vector.dot(vector))  # of float32 values it cannot overflow
    with np.errstate(over="ignore", invalid="ignore"):
        if vector.size <= _UNTHREADED:
            return math.isfinite(vector.dot(vector))
        return math.isfinite(float(np.add.reduce(vector)))


def _require_finite(vector: NDArray[np.float64], name: str) -> None:
    """Raise unless every value, and the sum of their magnitudes, is finite."""
    bad = np.flatnonzero(~np.isfinite(vector))
    if bad.size:
        shown = ", ".join(f"{i} ({vector[i]})" for i in bad[:5])
        more = f" and {bad.size - 5} more" if bad.size > 5 else ""
        raise ProblemError(
            f"{name} must be finite; not finite at positions {shown}{more}. "
            "Exclude these samples or mend the loss."
        )
    with np.errstate(over="ignore"):
        total = float(np.add.reduce(np.abs(vector)))
    if not math.isfinite(total):
        raise ProblemError(
            f"the sum of {name} overflows float64 (largest magnitude {np.abs(vector).max():g}); "
            "scale the values down."
        )


def _is_extension_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is a narrow float that NumPy itself does not have (ml_dtypes' bfloat16)."""
    return dtype.kind == "V" and "float" in dtype.name


def checked_integer(name: str, value: object, least: int) -> None:
    """Raise unless a hyperparameter is an integer of at least ``least``.

    Raises
    ------
    OptionError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise OptionError(f"{name} must be an integer >= {least}, got {value!r}.")


def checked_positive(name: str, value: float) -> None:
    """Raise unless a hyperparameter is a positive finite number.

    Raises
    ------
    OptionError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise OptionError(f"{name} must be a positive finite number, got {value!r}.")
