"""Hyperparameters that are numbers, checked."""

from __future__ import annotations

import math

import numpy as np

from subsetopt.errors import OptionError

__all__ = ["checked_integer", "checked_positive"]


def checked_integer(name: str, value: object, least: int) -> None:
    """Raise unless a hyperparameter is an integer of at least ``least``.

    Raises
    ------
    OptionError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise OptionError(f"{name} must be an integer >= {least}, got {value!r}.")


def checked_positive(name: str, value: float) -> None:
    """Raise unless a hyperparameter is a positive finite number.

    Raises
    ------
    OptionError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise OptionError(f"{name} must be a positive finite number, got {value!r}.")
