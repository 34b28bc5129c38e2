"""Seeds: an int, a tuple of ints, a Generator or None becomes one 64-bit number.

Kernels seed their own generator with it; solvers in plain NumPy make a ``Generator`` from it. The
bits are mixed by the finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), which takes a few
nanoseconds. ``numpy.random.SeedSequence`` takes ten microseconds, a fifth of a whole solve.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError
from subsetopt.inputs import is_integer

__all__ = ["Seed", "entropies_from", "entropy_from", "generator_from"]

Seed = int | Sequence[int] | np.random.Generator | None

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _mix(value: int) -> int:
    """Return 64 bits that all depend on every bit of a value."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def entropy_from(seed: Seed) -> int:
    """Return a 64-bit integer for a seed; fresh entropy for ``None``.

    Parameters
    ----------
    seed
        ``None`` (fresh entropy of the operating system), a nonnegative int, a sequence of
        nonnegative ints (hashed in order, so ``(s, i)`` gives independent streams), or a
        ``numpy.random.Generator`` (one draw is taken from it).

    Raises
    ------
    OptionError
        If the seed is none of these.
    """
    if type(seed) is int and seed >= 0:
        return _absorb(1, (seed,))
    if seed is None:
        return int.from_bytes(os.urandom(8), "little")
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(0, _MASK, dtype=np.uint64, endpoint=True))
    if is_integer(seed):
        parts: tuple[int, ...] = (int(seed),)
    elif isinstance(seed, Sequence) and not isinstance(seed, str):
        if not all(map(is_integer, seed)):
            raise OptionError(f"a seed sequence must hold ints only, got {seed!r}.")
        parts = tuple(int(p) for p in seed)
    else:
        raise OptionError(
            f"seed must be None, a nonnegative int, a sequence of them or a "
            f"numpy.random.Generator, got {type(seed).__name__}: {seed!r}."
        )
    if min(parts, default=0) < 0:
        raise OptionError(f"seeds must be nonnegative, got {seed!r}.")
    return _absorb(len(parts), parts)


def _absorb(state: int, parts: Sequence[int]) -> int:
    """Mix every part into the state, 64 bits at a time."""
    for part in parts:
        while True:
            state = _mix((state + _GOLDEN + (part & _MASK)) & _MASK)
            part >>= 64
            if not part:
                break
    return state


def entropies_from(seed: Seed, count: int) -> NDArray[np.uint64]:
    """Return ``entropy_from((*seed, i))`` for every i below ``count``.

    Without a seed they are fresh; from a Generator they are one draw each.
    """
    if seed is None or isinstance(seed, np.random.Generator):
        rng = np.random.default_rng() if seed is None else seed
        return rng.integers(0, _MASK, size=count, dtype=np.uint64, endpoint=True)
    parts = seed if isinstance(seed, Sequence) else (seed,)
    entropy_from(parts)  # raises what is wrong with it
    head = tuple(map(int, parts))
    # Only the last part differs: continue from the state before it.
    state = _absorb(len(head) + 1, head)
    with np.errstate(over="ignore"):
        mixed = np.uint64((state + _GOLDEN) & _MASK) + np.arange(count, dtype=np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def generator_from(entropy: int) -> np.random.Generator:
    """Return a NumPy generator for a 64-bit entropy value."""
    return np.random.Generator(np.random.PCG64(entropy))
