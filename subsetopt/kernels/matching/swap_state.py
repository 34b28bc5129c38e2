"""The state of a swap search on losses that kernels share: which number stands where."""

from __future__ import annotations

__all__ = [
    "F_BEST",
    "F_CAPACITY",
    "F_COST",
    "F_ERROR",
    "F_GOAL",
    "F_RESIDUAL",
    "F_SPAN",
    "F_TARGET",
    "I_CURSOR",
    "I_EXPONENT",
    "I_GIVEN",
    "I_KICK",
    "I_MOVE",
    "I_PAIRS",
    "I_PHASE",
    "I_ROUNDS",
    "I_SECOND",
    "I_THIRD",
    "I_TRIES",
    "I_UNSORTED",
    "I_WORK",
    "N_FLOATS",
    "N_INTS",
]

# Work done. 1 when the subset is set: do not draw a start. Restart by that many random swaps of the
# current subset, or as the kernel's STRATIFIED or UNIFORM tell. The phase, and how far it has come.
# Moves in the table, and the offset of their keys.
I_WORK, I_GIVEN, I_KICK, I_PHASE, I_CURSOR, I_PAIRS, I_EXPONENT = range(7)
# The best moves so far (-1: none). Tries of single swaps, tables built. 1 where the values are in
# no order: neither strata nor pointers are of use then.
I_MOVE, I_SECOND, I_THIRD, I_TRIES, I_ROUNDS, I_UNSORTED = range(7, 13)
N_INTS = 13

# Target less the sum of the subset, its least magnitude so far, and the one that is enough; the
# target. The total cost and its limit. What the best moves would leave. The largest value less the
# smallest.
F_RESIDUAL, F_BEST, F_GOAL, F_TARGET, F_COST, F_CAPACITY, F_ERROR, F_SPAN = range(8)
N_FLOATS = 8
