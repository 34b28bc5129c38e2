"""Constraints without the candidates that cannot matter to sums within two ends."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from subsetopt.constraints.normal_form import Constraints

__all__ = ["narrowed"]

# Share of the summed magnitudes by which a sum of float64 numbers may be off.
_ROUNDING = 1e-13


def narrowed(
    rules: Constraints, values: NDArray[np.float64], low: float, high: float
) -> Constraints:
    """Return constraints of the candidates that matter to sums within ends.

    For each candidate, the least and the greatest sum of subsets of the right size are taken that
    have it, and of those that do not.
    """
    items, size = rules.free, rules.remaining.size
    ranked = np.sort(np.append(values[items], np.zeros(size if rules.at_most else 0)))
    if not 0 < size < ranked.size:
        return rules
    forced, own = math.fsum(values[rules.forced]), values[items]
    least, greatest = (forced + math.fsum(part) for part in (ranked[:size], ranked[-size:]))
    rounding = _ROUNDING * (float(np.abs(ranked).sum()) + abs(forced))
    low, high = low - rounding, high + rounding
    # The last inside and the first outside of the least, and of the greatest sum.
    low_in, low_out, high_out, high_in = ranked[[size - 1, size, -size - 1, -size]]

    def outside(lifted: NDArray[np.float64], lowered: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the ends of the sums, so moved inwards, leave no sum within low and high."""
        return (least + np.maximum(lifted, 0.0) > high) | (
            greatest - np.maximum(lowered, 0.0) < low
        )

    never = outside(own - low_in, high_in - own)
    always = outside(low_out - own, own - high_out)
    free = items[~(never | always)]
    fewer = replace(rules, forced=np.sort(np.append(rules.forced, items[always])), free=free)
    left = fewer.remaining
    if free.size == items.size or left.size <= 0 or left.affordable().size <= left.size:
        return rules
    return rules if isinstance(fewer.cheapest, str) else narrowed(fewer, values, low, high)
