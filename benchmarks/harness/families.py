"""Families of instances that register themselves: those of the library, and recorded losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.check import Instance
from benchmarks.harness.named import Table
from benchmarks.harness.recorder import EPOCHS, Recording
from subsetopt import OptionError, instances
from subsetopt.errors import did_you_mean

__all__ = ["FAMILIES", "Case", "Family", "cases", "family_names", "register"]

Losses = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Family:
    """A named way to make loss vectors: ``make(n, k, seed)``; ``largest`` is the largest n."""

    name: str
    make: Callable[[int, int, int], Losses]
    largest: Callable[[], int | None] = lambda: None


FAMILIES: Table[Family] = Table("family")
register = FAMILIES.register


@dataclass(frozen=True, slots=True)
class Case:
    """One instance: everything it is made from."""

    family: str
    n: int
    rate: float
    constrained: bool = False
    seed: int = 0

    @property
    def k(self) -> int:
        return min(self.n, max(1, int(self.rate * self.n + 0.5)))

    def losses(self) -> Losses:
        return FAMILIES[self.family].make(self.n, self.k, self.seed)

    def keywords(self) -> dict[str, Any]:
        """Return the constraints: quotas and a capacity that a hidden random subset satisfies."""
        if not self.constrained:
            return {}
        rng = np.random.default_rng((self.seed, self.n, self.k, 1))
        groups = rng.integers(0, 4, size=self.n)
        costs = rng.exponential(size=self.n)
        witness = rng.choice(self.n, self.k, replace=False)
        counts = np.bincount(groups[witness], minlength=4)
        quotas = {g: (max(0, int(c) - 1), int(c) + 1) for g, c in enumerate(counts)}
        capacity = 1.02 * float(costs[witness].sum())
        return {"groups": groups, "quotas": quotas, "costs": costs, "capacity": capacity}

    def instance(self) -> Instance:
        return Instance(self.losses(), self.k, self.keywords())

    def fits(self) -> bool:
        largest = FAMILIES[self.family].largest()
        return largest is None or self.n <= largest


def family_names(wanted: str | None) -> list[str]:
    """Return the families of a comma-separated list; ``recorded`` stands for all its epochs."""
    if wanted is None:
        return list(FAMILIES)
    names: list[str] = []
    for name in wanted.split(","):
        found = [f for f in FAMILIES if f == name or f.startswith(f"{name}-epoch-")]
        if not found:
            raise OptionError(
                f"no family named {name!r}.{did_you_mean(name, FAMILIES)} "
                f"Known: {', '.join(FAMILIES)}, recorded."
            )
        names += found
    return names


def cases(
    families: Iterable[str],
    sizes: Iterable[int],
    rates: Iterable[float],
    constrained: Iterable[bool],
    seeds: int,
) -> Iterator[Case]:
    """Yield every combination that exists; sizes that round to the same k are kept once."""
    seen = set()
    for n in sizes:
        for family in families:
            for rate in rates:
                for flag in constrained:
                    for seed in range(seeds):
                        case = Case(family, n, rate, flag, seed)
                        key = (family, n, case.k, flag, seed)
                        if key not in seen and case.fits():
                            seen.add(key)
                            yield case


def _library(name: str) -> Callable[[int, int, int], Losses]:
    return lambda n, k, seed: instances.losses(name, n, k, seed)


for _name in instances.FAMILIES:
    register(Family(_name, _library(_name)))


class _Source:
    """Where recorded losses come from; training starts when the first are asked for."""

    def __init__(self) -> None:
        self.data: str | None = None
        self.data_dir: Path | None = None
        self.cache = Path("runs/cache")
        self._recording: Recording | None = None

    def configure(self, data: str | None, data_dir: Path | None, cache: Path) -> None:
        self.data, self.data_dir, self.cache = data, data_dir, cache
        self._recording = None

    @property
    def recording(self) -> Recording:
        if self._recording is None:
            self._recording = Recording.load_or_make(self.data, self.data_dir, self.cache)
        return self._recording

    @property
    def made(self) -> Recording | None:
        """The recording if one was asked for, without starting the training."""
        return self._recording


SOURCE = _Source()


def _recorded(epoch: int) -> Callable[[int, int, int], Losses]:
    return lambda n, k, seed: SOURCE.recording.batch(epoch, n, seed)


for _epoch in EPOCHS:
    register(Family(f"recorded-epoch-{_epoch}", _recorded(_epoch), lambda: SOURCE.recording.size))
