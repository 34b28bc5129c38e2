"""The state of a swap search over vectors that kernels share: which number stands where."""

from __future__ import annotations

__all__ = [
    "F_BEST",
    "F_CAPACITY",
    "F_COST",
    "F_GOAL",
    "F_LOCAL",
    "F_NOW",
    "F_THRESHOLD",
    "F_WALK",
    "F_WIDTH",
    "I_CENTRAL",
    "I_DESCENT",
    "I_FRESH",
    "I_LAST",
    "I_MISSES",
    "I_MODE",
    "I_PHASE",
    "I_ROWS",
    "I_SINCE",
    "I_SPAN",
    "I_STALE",
    "I_TURN",
    "I_WIDTH",
    "I_WORK",
    "N_FLOATS",
    "N_INTS",
]

# Squared norms: the least of all, the one to reach, the least of this walk, the present one. The
# total cost and its limit. How far above the least of its walk a swap may lead. The mean number of
# points whose norm fits. The least since the walk was last thrown elsewhere.
F_BEST, F_GOAL, F_LOCAL, F_NOW, F_COST, F_CAPACITY, F_THRESHOLD, F_WIDTH, F_WALK = range(9)
N_FLOATS = 9

# Work done. 1 to end at the first local optimum. Points looked at in one step while there is much
# to gain. 1 once the residual is known to point to where nothing can be proved. The phase.
I_WORK, I_DESCENT, I_WIDTH, I_CENTRAL, I_PHASE = range(5)
# Of the walk: steps without a new least, the last one to come in, failures in a row; 1 while
# distances are found by kept products, 1 while those are up to date, the slot to use next. Steps
# since F_WALK was lowered; how long this walk may go on without, and how many walks there were.
I_STALE, I_LAST, I_MISSES, I_MODE, I_FRESH, I_ROWS, I_SINCE, I_SPAN, I_TURN = range(5, 14)
N_INTS = 14
