"""What every objective has, and the input checks they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError

__all__ = ["Objective", "Sense", "as_carray", "as_finite_vector"]

Sense = Literal["minimize", "maximize"]
_Scalar = TypeVar("_Scalar", bound=np.generic)

# BLAS wakes its threads for products of more values than this, which takes milliseconds where
# another process keeps a core busy.
_UNTHREADED = 8192


class Objective(ABC):
    """A number for every weighted subset of ``n`` candidates.

    Attributes
    ----------
    sense
        Whether the number is minimized or maximized.
    n
        Number of candidates.
    scale
        What a relative gap is measured against; None: against the bound itself.
    tolerance
        The absolute difference of objectives that counts as none.
    trivial_bound
        A bound that needs no work.
    provable
        Whether a subset can be optimal at all; a random draw cannot.
    repeats
        Whether a candidate may be chosen more than once.
    restricts
        Whether the objective itself makes subsets infeasible, see :meth:`violations`.
    at_most
        Whether fewer than k are always allowed, whatever the problem's cardinality says.
    """

    __slots__ = ()

    sense: ClassVar[Sense] = "minimize"
    provable: ClassVar[bool] = True
    at_most: bool = False
    repeats: bool = False
    restricts: ClassVar[bool] = False
    n: int
    scale: float | None
    tolerance: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the names under which a solver's row may list it, the narrowest first."""
        return tuple(base.__name__ for base in type(self).__mro__)

    @property
    def trivial_bound(self) -> float:
        """Return a bound that needs no work: 0 for a distance, an infinity otherwise."""
        return 0.0 if self.sense == "minimize" else math.inf

    def size_problem(self, k: int) -> str | None:
        """Return why no subset of this objective has size k, or None."""
        return None

    def weights_for(self, indices: NDArray[np.int64], k: int) -> NDArray[np.float64] | None:
        """Return the training weights of a subset; None when the solver chooses them, too."""
        return np.full(indices.size, 1.0 / k if k else 0.0)

    def weight_problem(
        self, indices: NDArray[np.int64], weights: NDArray[np.float64], k: int
    ) -> str | None:
        """Return what is wrong with the weights of a subset, or None."""
        own = self.weights_for(indices, k)
        if own is not None and not np.allclose(own, weights, rtol=1e-12, atol=0.0):
            return "weights are not the objective's own"
        return None

    def violations(self, indices: NDArray[np.int64], k: int) -> list[str]:
        """Return every way in which a subset breaks the objective's own constraints, in words."""
        return []

    @abstractmethod
    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return the objective of a weighted subset in float64."""


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
