"""The protocol every objective satisfies, and the input checks they share."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subsetopt.errors import ProblemError

__all__ = ["Objective", "Sense", "as_finite_vector"]

Sense = Literal["minimize", "maximize"]


@runtime_checkable
class Objective(Protocol):
    """A number for every weighted subset of ``n`` candidates.

    ``scale`` is what a relative gap is measured against (``None``: against the bound itself), and
    ``tolerance`` the difference of objectives below which two subsets are equally good.
    """

    sense: ClassVar[Sense]

    @property
    def n(self) -> int:
        """Return the number of candidates."""

    @property
    def scale(self) -> float | None:
        """Return the unit of relative gaps, or None for the bound itself."""

    @property
    def tolerance(self) -> float:
        """Return the absolute difference that counts as none."""

    def weights_for(self, indices: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """Return the training weights of a chosen subset."""

    def evaluate(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return the objective of a weighted subset in float64."""


def as_finite_vector(values: ArrayLike, name: str) -> tuple[NDArray[np.float64], np.dtype[Any]]:
    """Return ``values`` as a finite float64 vector, and the dtype it came in.

    A float64 vector is not copied. ``name`` is the parameter's name for the messages.
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
    vector: NDArray[np.float64] = array.astype(np.float64, copy=False)
    # One sum finds NaN and infinity; only when it is not finite is it worth asking where.
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.add.reduce(vector))
    if not math.isfinite(total):
        bad = np.flatnonzero(~np.isfinite(vector))
        if bad.size:
            shown = ", ".join(f"{i} ({vector[i]})" for i in bad[:5])
            more = f" and {bad.size - 5} more" if bad.size > 5 else ""
            raise ProblemError(
                f"{name} must be finite; not finite at positions {shown}{more}. "
                "Exclude these samples or mend the loss."
            )
        raise ProblemError(
            f"the sum of {name} overflows float64 (largest magnitude {np.abs(vector).max():g}); "
            "scale the values down."
        )
    return vector, source


def _is_extension_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is a narrow float that NumPy itself does not have (ml_dtypes' bfloat16)."""
    return dtype.kind == "V" and "float" in dtype.name
