"""Bisection in ascending numbers."""

from __future__ import annotations

from subsetopt.kernels.compiling import uncounted

__all__ = ["first_not_below", "nearest"]


@uncounted
def first_not_below(numbers, first, end, wanted):
    """Return the first index from ``first`` on whose number is not below the wanted one, or end."""
    while first < end:
        middle = (first + end) >> 1
        if numbers[middle] < wanted:
            first = middle + 1
        else:
            end = middle
    return first


@uncounted
def nearest(numbers, first, end, wanted):
    """Return the index in [first, end) whose number is nearest to the wanted one."""
    above = first_not_below(numbers, first, end, wanted)
    if above == end or (above > first and wanted - numbers[above - 1] <= numbers[above] - wanted):
        return above - 1
    return above
