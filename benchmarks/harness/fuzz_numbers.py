"""The numbers that fuzzed problems are made of, from ordinary to hostile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NUMBERS", "NumberMaker"]

Generator = np.random.Generator
Array = NDArray[Any]
NumberMaker = Callable[[Generator, tuple[int, ...]], Array]

_SMALLEST = float(np.finfo(np.float64).smallest_subnormal)


def _outlier(rng: Generator, shape: tuple[int, ...]) -> Array:
    values = 1.0 + 0.1 * rng.random(shape)
    if shape[0]:
        values[rng.integers(shape[0])] *= 10.0 ** rng.integers(8, 11)
    return values


def _bfloat16(rng: Generator, shape: tuple[int, ...]) -> Array:
    """Return float32 numbers of which only the first 16 bits are not 0, as bfloat16 has."""
    values = rng.exponential(size=shape).astype(np.float32)
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _some_denormal(rng: Generator, shape: tuple[int, ...]) -> Array:
    return np.where(rng.random(shape) < 0.5, rng.integers(-9, 10, shape) * _SMALLEST, 1e-300)


def _near_2_to_53(rng: Generator, shape: tuple[int, ...]) -> Array:
    """Return integers near the largest up to which float64 holds all."""
    values = 2**53 + rng.integers(-8, 9, shape)
    return values if rng.random() < 0.5 else values.astype(np.float64)


def _extremes(rng: Generator, shape: tuple[int, ...]) -> Array:
    return rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(-300.0, 300.0, shape)


NUMBERS: dict[str, NumberMaker] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape).astype(np.float32),
    "float16": lambda rng, shape: rng.lognormal(0.0, 2.0, shape).astype(np.float16),
    "bfloat16": _bfloat16,
    "decimal": lambda rng, shape: rng.exponential(size=shape).round(int(rng.integers(1, 5))),
    "integer": lambda rng, shape: rng.integers(-20, 21, shape).astype(np.float64),
    "int64": lambda rng, shape: rng.integers(-1000, 1001, shape),
    "uint8": lambda rng, shape: rng.integers(0, 256, shape).astype(np.uint8),
    "bool": lambda rng, shape: rng.random(shape) < 0.5,
    "ties": lambda rng, shape: rng.choice([0.0, 0.5, 1.0, -1.5], shape),
    "half zero": lambda rng, shape: np.where(rng.random(shape) < 0.5, 0.0, rng.random(shape)),
    "equal": lambda rng, shape: np.full(shape, rng.choice([0.0, 1.0, -0.1, 1e-310, 3e8])),
    "outlier of 1e8 to 1e10": _outlier,
    "huge": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(100, 300),
    "tiny": lambda rng, shape: rng.normal(size=shape) * 10.0 ** -rng.integers(100, 300),
    "denormal": lambda rng, shape: rng.integers(-40, 41, shape) * _SMALLEST,
    "some denormal": _some_denormal,
    "wide": lambda rng, shape: 10.0 ** rng.uniform(-8.0, 8.0, shape),
    "extremes": _extremes,
    "offset": lambda rng, shape: 10.0 ** rng.integers(2, 9) + rng.random(shape),
    "integers near 2**53": _near_2_to_53,
}
"""By name; ``make(rng, shape)`` returns an array."""
