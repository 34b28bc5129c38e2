"""Inclusion probabilities in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.fuzz_numbers import NUMBERS

__all__ = ["exact_inclusion", "inclusion_fault"]

_NAMES = tuple(NUMBERS)
_LARGEST = 12
_ROUNDING = 1e-12


def exact_inclusion(scores: NDArray[Any], k: int) -> list[Fraction]:
    """Return probabilities in proportion to scores of at least 0, capped at 1, that sum to k."""
    exact = [Fraction(float(score)) for score in scores]
    shared = [i for i, score in enumerate(exact) if score > 0]
    if len(shared) <= k:
        zeros = len(exact) - len(shared)
        return [Fraction(1) if score else Fraction(k - len(shared), zeros) for score in exact]
    inclusion, left = [Fraction(0)] * len(exact), k
    while left:
        total = sum(exact[i] for i in shared)
        capped = [i for i in shared if exact[i] * left > total]
        for i in capped or shared:
            inclusion[i] = Fraction(1) if capped else exact[i] * left / total
        if not capped:
            break
        left -= len(capped)
        shared = [i for i in shared if i not in set(capped)]
    return inclusion


def inclusion_fault(rng: np.random.Generator) -> tuple[str, str]:
    """Return what is wrong with the probabilities of random scores, or two empty strings."""
    n = int(rng.integers(1, _LARGEST + 1))
    k = int(rng.integers(0, n + 1))
    scores = np.abs(NUMBERS[_NAMES[rng.integers(len(_NAMES))]](rng, (n,)).astype(np.float64))
    found = so.inclusion_probabilities(scores, k)
    off = max(
        abs(Fraction(float(a)) - b) for a, b in zip(found, exact_inclusion(scores, k), strict=True)
    )
    if off > _ROUNDING:
        return "inconsistent", f"scores {scores.tolist()}, k = {k}: {found.tolist()}"
    return "", ""
