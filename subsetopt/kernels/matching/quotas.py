"""The interval bound under quotas: the least and greatest sum that sizes and groups allow.

The greedy is exact: first the lower quotas, then the best of the rest within the upper ones. What
it takes of a window of the ascending values is the first of each group, up to one common position
(or to the group's quota). With sums along each group a node costs a search for that position,
or, where there are many groups, a pass over the window.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit, uncounted
from subsetopt.kernels.matching.bisection import first_not_below
from subsetopt.kernels.matching.interval import MOST_NODES, without_farthest
from subsetopt.kernels.matching.lattice import ROUNDING
from subsetopt.kernels.matching.windows import DEPTH, NODE, push

__all__ = ["SPAN", "quota_distance", "quota_nodes", "quota_span", "span_work"]

# The largest number of values that all nodes of the bound together look at.
_MOST_LOOKS = 1_000_000
# The number of nodes that are looked at even if that takes more.
_FEWEST = 8

#: What a window holds of one group.
SPAN = np.dtype(
    [
        ("begin", np.int64),  # the group's first member in the window
        ("end", np.int64),  # the member after the group's last there
        ("least", np.int64),  # how many of them to choose at least
        ("most", np.int64),  # how many of them to choose at most
        ("number", np.int64),  # how many of them the sum has that is being found
        ("in_least", np.int64),  # how many of them the least sum has, from the first on
        ("in_greatest", np.int64),  # how many of them the greatest sum has, from the end
    ]
)


@uncounted
def _bits(m):
    """Return how many bits a number has."""
    bits = 0
    while m >> bits:
        bits += 1
    return bits


@uncounted
def _search_work(groups, m):
    """Return about how many members a search for one position looks at."""
    bits = _bits(m)
    return groups * bits * max(bits - 2, 1) // 2


@uncounted
def span_work(groups, m):
    """Return about how many values one call of ``quota_span`` looks at."""
    return 4 + 2 * groups * _bits(m) + 2 * min(_search_work(groups, m), m)


@uncounted(forceinline=True)
def _number(span, members, position, bottom):
    """Return how many members come before a position (bottom), or from it on, within quotas."""
    rank = first_not_below(members, span.begin, span.end, position)
    number = rank - span.begin if bottom else span.end - rank
    return min(max(number, span.least), span.most)


@uncounted
def _optional(spans, members, position, bottom):
    """Return how many members come before a position, or from it on, besides the lower quotas."""
    taken = 0
    for g in range(spans.size):
        span = spans[g]
        if span.least < span.most:
            taken += _number(span, members, position, bottom) - span.least
    return taken


@uncounted
def _by_search(a, b, spare, members, spans, bottom):
    """Write how many of each group the least (bottom) or the greatest sum has.

    The number taken up to a position grows by at most one with each: the first position from the
    window's end at which it is enough has it exactly.
    """
    near, far = 0, b - a
    while near < far:
        middle = (near + far) >> 1
        position = a + middle if bottom else b - middle
        if _optional(spans, members, position, bottom) < spare:
            near = middle + 1
        else:
            far = middle
    position = a + near if bottom else b - near
    for g in range(spans.size):
        spans[g].number = _number(spans[g], members, position, bottom)


@uncounted
def _by_pass(a, b, spare, codes, spans, bottom):
    """Write what ``_by_search`` does by a pass over the window, which is faster for many groups."""
    for g in range(spans.size):
        spans[g].number = 0
    optional = spare
    for step in range(b - a):
        span = spans[codes[a + step if bottom else b - 1 - step]]
        if span.number >= span.least:
            if span.number >= span.most or optional == 0:
                continue
            optional -= 1
        span.number += 1


@uncounted
def _lay_out(a, b, limits, groups, counts, spans):
    """Write what the window holds of each group; return the lower quotas and the most in all.

    The most is -1 where a group has too few members in the window.
    """
    demanded, most = 0, 0
    for g in range(spans.size):
        span = spans[g]
        end = groups.begin[g + 1]
        span.begin = first_not_below(groups.members, groups.begin[g], end, a)
        span.end = first_not_below(groups.members, span.begin, end, b)
        span.least = max(0, limits.low[g] - counts[g])
        span.most = min(span.end - span.begin, limits.high[g] - counts[g])
        if span.least > span.most:
            return 0, -1
        demanded += span.least
        most += span.most
    return demanded, most


@uncounted
def quota_span(a, b, k, limits, groups, counts, spans):
    """Return the least and greatest sum of k values of a window under quotas; a flag when none.

    Parameters
    ----------
    a, b
        The window of positions, b exclusive.
    k
        How many of the window to choose.
    limits, groups
        :class:`Limits`, of which the capacity is not looked at, and :class:`Groups`.
    counts
        How many of each group are chosen already, shape (groups,), int64.
    spans
        Array of a ``SPAN`` for each group, written to; not without quotas.
    """
    sums = groups.sums
    if k < 0 or k > b - a:
        return 0.0, 0.0, False
    if spans.size == 0:
        return sums[a + k] - sums[a], sums[b] - sums[b - k], True
    demanded, most = _lay_out(a, b, limits, groups, counts, spans)
    spare = k - demanded
    if spare < 0 or most < k:
        return 0.0, 0.0, False
    searching = _search_work(spans.size, b - a) < b - a
    smallest, largest = 0.0, 0.0
    for bottom in (True, False):
        if searching:
            _by_search(a, b, spare, groups.members, spans, bottom)
        else:
            _by_pass(a, b, spare, limits.codes, spans, bottom)
        for g in range(spans.size):
            span = spans[g]
            if bottom:
                span.in_least = span.number
                smallest += sums[span.begin + span.number] - sums[span.begin]
            else:
                span.in_greatest = span.number
                largest += sums[span.end] - sums[span.end - span.number]
    return smallest, largest, True


@uncounted
def quota_nodes(groups, m):
    """Return how many nodes ``quota_distance`` looks at, at most."""
    return max(_FEWEST, min(MOST_NODES, _MOST_LOOKS // span_work(groups, m)))


@njit(cache=True)
def quota_distance(values, limits, groups, size, target):
    """Return the bound of ``branching_distance`` under quotas; 0 when it proves nothing.

    Parameters
    ----------
    values
        Values to choose from, shape (m,), float64, ascending.
    limits, groups
        As ``quota_span`` takes them.
    size, target
        How many to choose, and the sum to hit.
    """
    m, codes, high = values.size, limits.codes, limits.high
    center = values[m // 2]
    magnitude = abs(target)
    for p in range(m):
        magnitude += abs(values[p])
    nodes = np.empty(DEPTH, NODE)
    waiting = push(nodes, 0, 0, m, size, target)
    # How many of each group every node has chosen already, and the node that is looked at.
    counts_of = np.zeros((DEPTH, high.size), np.int64)
    counts, spans = np.empty(high.size, np.int64), np.empty(high.size, SPAN)
    bound = np.inf
    for _ in range(quota_nodes(high.size, m)):
        waiting -= 1
        node = nodes[waiting]
        a, b, k, t = node.first, node.end, node.size, node.target
        counts[:] = counts_of[waiting]
        smallest, largest, possible = quota_span(a, b, k, limits, groups, counts, spans)
        distance = max(smallest - t, t - largest) if possible else np.inf
        if distance > 0.0:
            bound = min(bound, distance)
        elif k == 0 or k == b - a or waiting + 2 > DEPTH:
            return 0.0
        else:
            counts_of[waiting] = counts
            x, first, end = without_farthest(values, a, b, center)
            waiting = push(nodes, waiting, first, end, k, t)
            if counts[codes[x]] < high[codes[x]]:
                counts_of[waiting] = counts
                counts_of[waiting, codes[x]] += 1
                waiting = push(nodes, waiting, first, end, k - 1, t - values[x])
        if waiting == 0:
            return max(0.0, bound - ROUNDING * magnitude)
    return 0.0
