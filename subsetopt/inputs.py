"""Checks of what users hand in: arrays, numbers, choices and names of options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import OptionError, ProblemError, did_you_mean

__all__ = [
    "DECIDED",
    "UNTHREADED",
    "as_array",
    "as_carray",
    "as_finite_vector",
    "as_float",
    "as_vector",
    "check_options",
    "checked_choice",
    "checked_count",
    "checked_flag",
    "checked_fraction",
    "checked_integer",
    "checked_number",
    "checked_positive",
    "is_integer",
    "is_number",
    "require_finite",
]

# An inclusion probability that is nearer to 0 or to 1 than this counts as 0 or as 1.
DECIDED = 1e-12

# The largest size of a vector whose dot product BLAS computes without its threads. Waking them
# takes milliseconds where another process keeps a core busy.
UNTHREADED = 8192

_Scalar = TypeVar("_Scalar", bound=np.generic)


def as_carray(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return the array itself if it is writable, aligned and in C order, and a copy otherwise.

    Kernels write to no input, but Numba compiles a kernel again, which takes seconds, for an array
    that differs in any of these properties.
    """
    return array if array.flags.carray else array.copy()


def as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return values as an array, not copied where they are one.

    Parameters
    ----------
    values
        What the user passed.
    name
        The parameter's name in messages.

    Raises
    ------
    ProblemError
        If the values are no array, nor anything that NumPy can make one of, or are a masked array,
        or a list with some, that hides any.
    """
    if type(values) is np.ndarray:
        return values
    try:
        array = np.asarray(_detached(values) if hasattr(values, "detach") else values)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        why = " ".join(str(error).split())
        if "inhomogeneous" in why:
            raise ProblemError(
                f"{name} must all have one length: pass rows of equal size."
            ) from None
        raise ProblemError(f"{name} cannot be read as an array of numbers: {why:.200}") from None
    if array.ndim > 1 and isinstance(values, (list, tuple)):
        hidden = np.stack([np.broadcast_to(_hidden(row), array.shape[1:]) for row in values])
    else:
        hidden = np.asarray(_hidden(values))
    if hidden.any():
        first = np.argwhere(np.broadcast_to(hidden, array.shape))[0].tolist()
        raise ProblemError(
            f"{name} is a masked array that hides {int(np.sum(hidden))} entries, the first at "
            f"position {', '.join(map(str, first))}: leave these samples out, or fill them and "
            "name them in exclude."
        )
    return array


def _detached(values: Any) -> Any:
    """Return a tensor of PyTorch on the host, without its gradient, in a dtype that NumPy has."""
    host = values.detach().cpu()
    try:
        return host.numpy()
    except TypeError:
        return host.float().numpy()  # bfloat16


def _hidden(values: object) -> Any:
    """Return the mask of a masked array, True where hidden; False for all else."""
    mask = getattr(values, "mask", False)
    return mask if isinstance(mask, (np.ndarray, np.bool_)) else False


def as_finite_vector(values: ArrayLike, name: str) -> tuple[NDArray[np.float64], np.dtype[Any]]:
    """Return values as a finite float64 vector, and their original dtype.

    Parameters
    ----------
    values
        Real numbers, shape (n,). A float64 vector that :func:`as_carray` accepts is not copied.
    name
        The parameter's name in messages.

    Raises
    ------
    ProblemError
        If the values are not real, not a vector, hidden or not finite, or their sum overflows.
    """
    vector, source = as_vector(values, name)
    if not _surely_finite(vector, source):
        require_finite(vector, name)
    return vector, source


def as_vector(values: ArrayLike, name: str) -> tuple[NDArray[np.float64], np.dtype[Any]]:
    """Return values as :func:`as_finite_vector` does, unchecked for being finite.

    It serves callers that compute sums anyway, which tell whether all values are finite.
    """
    array = as_array(values, name)
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
    return as_carray(array.astype(np.float64, copy=False)), source


def _surely_finite(vector: NDArray[np.float64], source: np.dtype[Any]) -> bool:
    """Whether a sum over the values is finite; then every value is."""
    if source.itemsize <= 4 and vector.size <= UNTHREADED:
        return math.isfinite(vector.dot(vector))  # squares of float32 values cannot overflow
    with np.errstate(over="ignore", invalid="ignore"):
        if vector.size <= UNTHREADED:
            return math.isfinite(vector.dot(vector))
        return math.isfinite(float(np.add.reduce(vector)))


def require_finite(vector: NDArray[np.float64], name: str) -> None:
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
    """Whether a dtype is a narrow float that NumPy itself lacks (bfloat16 of ml_dtypes)."""
    return dtype.kind == "V" and "float" in dtype.name


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer of Python or NumPy and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number of Python or NumPy (also NaN) and no bool."""
    return is_integer(value) or isinstance(value, (float, np.floating))


def as_float(value: Any) -> float:
    """Return a real number as a float; an integer beyond the largest float is an infinity.

    Raises
    ------
    TypeError, ValueError
        If the value is no number.
    """
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def checked_integer(
    name: str, value: object, least: int, *, also: str = "", error: type[Exception] = OptionError
) -> int:
    """Return an argument that must be an integer.

    Parameters
    ----------
    name, value
        The argument's name in the message, and what the user passed.
    least
        The smallest integer accepted.
    also
        What the caller accepts besides, as words that follow the bound: ``" or None"``.
    error
        The class to raise.

    Raises
    ------
    OptionError
        Or ``error``, if the value is no integer of at least ``least``.
    """
    if not is_integer(value) or value < least:
        raise error(f"{name} must be an integer >= {least}{also}, got {value!r}.")
    return int(value)


def checked_count(name: str, value: object, least: int = 1) -> int | None:
    """Return an option that must be an integer of at least ``least``, or None."""
    return None if value is None else checked_integer(name, value, least, also=" or None")


def checked_number(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    error: type[Exception] = OptionError,
) -> float:
    """Return a finite number with ``low <= value <= high`` as a float.

    Raises
    ------
    OptionError
        Or ``error``, if it is no such number.
    """
    if not is_number(value) or not math.isfinite(as_float(value)) or not low <= value <= high:
        accepted = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise error(f"{name} must be a number {accepted}, got {value!r}.")
    return float(value)


def checked_positive(name: str, value: object, *, error: type[Exception] = OptionError) -> float:
    """Return a positive finite number as a float; raise the error for any other value."""
    if not is_number(value) or not 0.0 < as_float(value) < math.inf:
        raise error(f"{name} must be a positive finite number, got {value!r}.")
    return float(value)


def checked_fraction(name: str, value: object, *, error: type[Exception] = OptionError) -> float:
    """Return a number above 0 and below 1 as a float; raise the error for any other value."""
    if not is_number(value) or not 0.0 < value < 1.0:
        raise error(f"{name} must be within (0, 1), got {value!r}.")
    return float(value)


def checked_flag(name: str, value: object, *, error: type[Exception] = OptionError) -> bool:
    """Return a bool of Python or NumPy as a bool; raise the error for any other value."""
    if not isinstance(value, (bool, np.bool_)):
        raise error(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def checked_choice(
    name: str,
    value: Any,
    choices: Sequence[str | None],
    *,
    listed: bool = False,
    error: type[Exception] = OptionError,
) -> Any:
    """Return an argument that must be one of a few words.

    Parameters
    ----------
    name, value, error
        As for :func:`checked_integer`.
    choices
        The words accepted, and None where it is.
    listed
        Whether the message reads "one of 'a', 'b'" instead of "'a' or 'b'".

    Raises
    ------
    OptionError
        Or ``error``, with the nearest of the words, if the value is none of them.
    """
    if not isinstance(value, (str, type(None))) or value not in choices:
        *first, last = map(repr, choices)
        accepted = ", ".join(first) + f" or {last}"
        if listed:
            accepted = f"one of {', '.join([*first, last])}"
        nearest = did_you_mean(value, [choice for choice in choices if choice is not None])
        raise error(f"{name} must be {accepted}, got {value!r}.{nearest}")
    return value


def check_options(owner: str, options: Iterable[str], valid: Sequence[str]) -> None:
    """Raise unless every option is one that its owner has.

    Parameters
    ----------
    owner
        What takes the options, in the words of the message: ``"solver 'swap'"``.
    options
        Names that the user passed.
    valid
        Names that the owner has.

    Raises
    ------
    OptionError
        With the nearest valid name, and all of them.
    """
    for option in options:
        if option not in valid:
            raise OptionError(
                f"{owner} has no option {option!r}.{did_you_mean(option, valid)} "
                + (f"Its options: {', '.join(valid)}." if valid else "It has none.")
            )
