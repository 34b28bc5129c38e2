"""Facility location by other libraries, each at its best setting.

Both read one vector per sample or a similarity matrix. apricot takes the squared cosine of vectors,
submodlib the cosine where it is positive, so that objectives are compared on one similarity.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OF_FEATURES", "OF_SIMILARITIES", "Peer", "cosines", "missing"]

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Peer:
    """A name, the package it needs, and how it chooses k samples by a matrix.

    ``same`` tells whether it has the objective of the others: all of one similarity do.
    """

    name: str
    package: str
    choose: Callable[[NDArray[Any], int], Indices]
    same: bool = True


def missing(package: str) -> str | None:
    """Return why a package cannot be used, None where it can."""
    if importlib.util.find_spec(package) is None:
        return "not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(package)
    except Exception as error:  # a dependency's version may break it at import
        return f"import fails: {type(error).__name__}: {error}"
    return None


def cosines(features: NDArray[Any]) -> NDArray[Any]:
    """Return 1 + cos of all pairs, by NumPy, in the precision of the features."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    matrix: NDArray[Any] = unit @ unit.T
    matrix += 1.0
    return matrix


def apricot(metric: str, optimizer: str, kept: bool) -> Callable[[NDArray[Any], int], Indices]:
    """Return what chooses by apricot.

    ``kept``: apricot compiles its loops anew in every call, about a second; here the compiled ones
    are kept, as if that were mended.
    """

    def choose(matrix: NDArray[Any], k: int) -> Indices:
        from apricot.functions import facilityLocation as module  # noqa: N813

        factories = ("calculate_gains", "calculate_gains_sieve")
        plain = {name: getattr(module, name) for name in factories}
        if kept:
            for name, factory in plain.items():
                setattr(module, name, _compiled(factory))
        try:
            selection = module.FacilityLocationSelection(k, metric=metric, optimizer=optimizer)
            return np.asarray(selection.fit(matrix).ranking, dtype=np.int64)
        finally:
            for name, factory in plain.items():
                setattr(module, name, factory)

    return choose


@functools.cache
def _compiled(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return a factory of loops that compiles each but once."""
    return functools.cache(factory)


def submodlib(own: bool = False) -> Callable[[NDArray[Any], int], Indices]:
    """Return what chooses by submodlib, of a similarity or by its own cosines of vectors."""

    def choose(matrix: NDArray[Any], k: int) -> Indices:
        given: dict[str, Any] = {"data": matrix, "metric": "cosine"} if own else {"sijs": matrix}
        with warnings.catch_warnings():
            # The library uses scipy.sparse.csr, which SciPy 2 will not have.
            warnings.simplefilter("ignore", DeprecationWarning)
            from submodlib import FacilityLocationFunction

            function = FacilityLocationFunction(
                n=matrix.shape[0], mode="dense", separate_rep=False, **given
            )
        picks = function.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)
        return np.array([index for index, _ in picks], dtype=np.int64)

    return choose


def _of_cosines(choose: Callable[[NDArray[Any], int], Indices]) -> Callable[..., Indices]:
    return lambda features, k: choose(cosines(features), k)


OF_SIMILARITIES = (
    Peer("apricot, lazy", "apricot", apricot("precomputed", "lazy", True)),
    Peer("apricot, two-stage", "apricot", apricot("precomputed", "two-stage", True)),
    Peer("apricot, lazy, compiled in the call", "apricot", apricot("precomputed", "lazy", False)),
    Peer("submodlib, LazyGreedy", "submodlib", submodlib()),
)
OF_FEATURES = (
    Peer("apricot, lazy, its squared cosine", "apricot", apricot("cosine", "lazy", True), False),
    Peer("apricot, lazy, of NumPy's 1 + cosine", "apricot", _of_cosines(OF_SIMILARITIES[0].choose)),
    Peer("apricot, two-stage, of NumPy's 1 + cosine", "apricot",
         _of_cosines(OF_SIMILARITIES[1].choose)),
    Peer("submodlib, LazyGreedy, its positive cosine", "submodlib", submodlib(own=True), False),
    Peer("submodlib, LazyGreedy, of NumPy's 1 + cosine", "submodlib", _of_cosines(submodlib())),
)  # fmt: skip
