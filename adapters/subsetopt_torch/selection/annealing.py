"""The end of a run, in which nothing is left out."""

from __future__ import annotations

import math

from subsetopt import OptionError
from subsetopt.inputs import checked_integer, checked_number

__all__ = ["first_full"]


def first_full(full_after: float | None, total: int | None, unit: str) -> float:
    """Return from which of ``total`` steps or epochs on everything is taken; inf for never.

    Parameters
    ----------
    full_after
        The part of the run after which nothing is left out, from 0 to 1; None for never.
    total
        The length of the run.
    unit
        The name of the option that says the length.

    Raises
    ------
    OptionError
        If one is given without the other, or is out of range.
    """
    if full_after is None and total is None:
        return math.inf
    if full_after is None or total is None:
        raise OptionError(
            f"full_after is a part of the run, whose length is {unit}: pass both or neither, got "
            f"full_after={full_after!r}, {unit}={total!r}."
        )
    part = checked_number("full_after", full_after, 0.0, 1.0)
    return math.ceil(part * checked_integer(unit, total, 1))
