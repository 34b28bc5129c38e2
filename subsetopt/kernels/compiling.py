"""How kernels are compiled that only work on arrays of their callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

__all__ = ["uncounted"]

# Numba counts references to every array of a named tuple at every call, also between compiled
# functions: some 5 ns per array, by which a swap search took 15% longer.
_OPTIONS: dict[str, Any] = {"cache": True, "_nrt": False}


def uncounted(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a kernel that allocates no array, without counting references to its arguments.

    Used as a decorator, as it is or with options of Numba's ``njit``. What the kernel calls counts
    none either.
    """
    compile_ = njit(**_OPTIONS, **options)
    return compile_ if function is None else compile_(function)
