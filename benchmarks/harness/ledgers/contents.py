"""Records whose every field follows from the instance and the step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.ledger import Ledger, Records

__all__ = ["INSTANCES", "batch_of", "check", "ids_of", "record", "values_of"]

INSTANCES = 6000
BATCH = 512

# A ledger of dense ids takes the numbers themselves; the others get ids of all kinds.
_KINDS = (lambda n: (n << 33) - 2**43, lambda n: f"sample-{n}", lambda n: b"\0%d" % n)


def ids_of(url: str, numbers: NDArray[np.int64]) -> Any:
    """Return the ids of instances by their numbers."""
    if url.startswith("dense"):
        return numbers
    return [_KINDS[number % len(_KINDS)](number) for number in numbers.tolist()]


def values_of(numbers: NDArray[np.int64], steps: NDArray[np.int64] | int) -> tuple[Any, Any, Any]:
    """Return losses, scores and model versions, all of them exact in float32."""
    return (
        (31 * numbers + 17 * steps) % 65_521 + 0.5,
        (7 * numbers + 13 * steps) % 65_519 + 0.25,
        (numbers + 5 * steps) % 2**31,
    )


def batch_of(seed: int, step: int) -> NDArray[np.int64]:
    """Return the numbers of the instances that are recorded at a step."""
    return np.random.default_rng((seed, step)).choice(INSTANCES, BATCH, replace=False)


def record(ledger: Ledger, numbers: NDArray[np.int64], step: int) -> None:
    """Record instances at a step."""
    losses, scores, versions = values_of(numbers, step)
    ids = ids_of(ledger.url, numbers)
    ledger.record(ids, losses, scores, step=step, model_version=versions)


def check(numbers: NDArray[np.int64], found: Records) -> NDArray[np.bool_]:
    """Return which records hold something that was never recorded."""
    losses, scores, versions = values_of(numbers, found.steps)
    wrong: NDArray[np.bool_] = found.found & (
        (found.losses != losses) | (found.scores != scores) | (found.model_versions != versions)
    )
    return wrong
