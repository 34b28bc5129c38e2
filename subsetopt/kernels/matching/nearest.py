"""One value after the other, each nearest to what is still missing on average."""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit

__all__ = ["nearest_completion"]


@njit(cache=True)
def _find(link, p):
    """Return the first free slot from p along a direction, halving the path walked."""
    while link[p] != p:
        link[p] = link[link[p]]
        p = link[p]
    return p


@njit(cache=True)
def nearest_completion(values, target, chosen):
    """Write positions of ascending ``values``, chosen one by one, to ``chosen``.

    Each is the free value nearest to (what is missing of the target) / (how many are missing).
    Slots are shifted by one, so that 0 and m + 1 stand for "none below" and "none above".
    """
    m, size = values.size, chosen.size
    down = np.arange(m + 2)
    up = np.arange(m + 2)
    missing = target
    for step in range(size):
        wanted = missing / (size - step)
        slot = np.searchsorted(values, wanted) + 1
        above = _find(up, slot)
        below = _find(down, slot - 1)
        pick = above
        if above > m or (below >= 1 and wanted - values[below - 1] <= values[above - 1] - wanted):
            pick = below
        chosen[step] = pick - 1
        missing -= values[pick - 1]
        up[pick] = pick + 1
        down[pick] = pick - 1
