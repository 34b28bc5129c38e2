"""Branch and bound under quotas and a capacity, on the tree of ``branch``.

A node is bounded by the interval of sums that its window and the quotas allow. Where the target
lies beyond it, the interval's end is the best of the node if the capacity has room for it; the last
two members are found in one pass.
"""

from __future__ import annotations

import numpy as np

from subsetopt.kernels.compiling import njit, uncounted
from subsetopt.kernels.matching.bisection import nearest
from subsetopt.kernels.matching.branch import run_length
from subsetopt.kernels.matching.interval import without_farthest
from subsetopt.kernels.matching.quotas import SPAN, quota_span, span_work
from subsetopt.kernels.matching.tree import record, set_node, start_record

__all__ = ["branch_constrained", "open_constrained_distance"]


@uncounted
def _is_affordable(limits, by_cost, node):
    """Whether the cheapest of the window fit into what is left of the capacity."""
    if limits.costs.size == 0:
        return True
    a, b, k = node.first, node.end, node.size
    budget = limits.capacity - node.cost
    # At worst all that is outside the window is cheaper; at best none of it is.
    outside = by_cost.order.size - (b - a)
    if by_cost.sums[outside + k] - by_cost.sums[outside] <= budget:
        return True
    if by_cost.sums[k] > budget:
        return False
    missing = k
    cost = 0.0
    for q in range(by_cost.order.size):
        if missing == 0:
            break
        p = by_cost.order[q]
        if a <= p < b:
            cost += limits.costs[p]
            missing -= 1
    return cost <= budget


@uncounted
def _end_of_span(span, bottom):
    """Return the first of the group's members that the least (greatest) sum has, and how many."""
    if bottom:
        return span.begin, span.in_least
    return span.end - span.in_greatest, span.in_greatest


@uncounted
def _end_cost(limits, groups, tree, node, bottom):
    """Return the cost of the window's subset of least (bottom) or greatest sum."""
    costs = limits.costs
    cost = 0.0
    if costs.size == 0:
        return cost
    if tree.spans.size == 0:
        first = node.first if bottom else node.end - node.size
        for p in range(first, first + node.size):
            cost += costs[p]
    for g in range(tree.spans.size):
        first, number = _end_of_span(tree.spans[g], bottom)
        for q in range(first, first + number):
            cost += costs[groups.members[q]]
    return cost


@uncounted
def _record_end(groups, tree, distance, depth, bottom):
    """Keep the path and the window's subset of least (bottom) or greatest sum, if better."""
    node = tree.nodes[depth]
    if tree.spans.size == 0:
        first = node.first if bottom else node.end - node.size
        record(tree, distance, depth, first, node.size)
        return
    filled = start_record(tree, distance, depth)
    if filled < 0:
        return
    for g in range(tree.spans.size):
        first, number = _end_of_span(tree.spans[g], bottom)
        for q in range(first, first + number):
            tree.best[filled] = groups.members[q]
            filled += 1


@uncounted
def _joins(p, limits, counts, missing, cost):
    """Return whether a position may join, and how many the lower quotas then still ask for."""
    if limits.costs.size and cost + limits.costs[p] > limits.capacity:
        return False, missing
    if limits.codes.size == 0:
        return True, missing
    g = limits.codes[p]
    return counts[g] < limits.high[g], missing - (1 if counts[g] < limits.low[g] else 0)


@uncounted
def _last_one(values, limits, tree, depth, first, wanted, missing, cost):
    """Record the best position from ``first`` on that may join as the last; return the work.

    From the position that fits best outwards: the first that may join is the best, and none is
    looked at that is no better than the best so far.
    """
    node, end = tree.nodes[depth], tree.nodes[depth].end
    path = depth if node.taken < 0 else depth + 1
    up = nearest(values, first, end, wanted)
    down = up - 1
    work = 0
    while up < end or down >= first:
        above = values[up] - wanted if up < end else np.inf
        below = wanted - values[down] if down >= first else np.inf
        p = up if abs(above) <= abs(below) else down
        distance = min(abs(above), abs(below))
        if distance >= tree.distance[0]:
            break
        work += 1
        may_join, still_missing = _joins(p, limits, tree.counts, missing, cost)
        if may_join and still_missing == 0:
            record(tree, distance, path, p, 1)
            break
        if p == up:
            up += 1
        else:
            down -= 1
    return work


@uncounted
def _last_ones(values, limits, tree, depth):
    """Record the best one or two of the window that may join; return the work."""
    node, counts = tree.nodes[depth], tree.counts
    a, b, target = node.first, node.end, node.target
    missing, work = 0, b - a
    for g in range(limits.low.size):
        missing += max(0, limits.low[g] - counts[g])
    if missing > node.size:
        return work
    if node.size < 2:
        return work + _last_one(values, limits, tree, depth, a, target, missing, node.cost)
    for p in range(a, b - 1):
        may_join, still_missing = _joins(p, limits, counts, missing, node.cost)
        if not may_join:
            continue
        node.taken = p
        cost = node.cost + limits.costs[p] if limits.costs.size else node.cost
        if limits.codes.size:
            counts[limits.codes[p]] += 1
        work += _last_one(
            values, limits, tree, depth, p + 1, target - values[p], still_missing, cost
        )
        if limits.codes.size:
            counts[limits.codes[p]] -= 1
        node.taken = -1
    return work


@uncounted(forceinline=True)
def _is_settled(values, limits, groups, by_cost, tree, depth):
    """Look at a node; return whether it is cut, or its best subset is recorded.

    The children of a node that is not settled come next.
    """
    node, progress = tree.nodes[depth], tree.progress[0]
    a, b, k, t = node.first, node.end, node.size, node.target
    progress.work += span_work(limits.low.size, values.size)
    smallest, largest, possible = quota_span(a, b, k, limits, groups, tree.counts, tree.spans)
    if not possible or not _is_affordable(limits, by_cost, node):
        return True
    distance = max(smallest - t, t - largest, 0.0)
    if distance >= tree.distance[0] - progress.slack:
        return True
    if t <= smallest or t >= largest:
        # The end of the interval is the best of the node, if the capacity has room for it.
        bottom = t <= smallest
        progress.work += k
        if node.cost + _end_cost(limits, groups, tree, node, bottom) <= limits.capacity:
            _record_end(groups, tree, distance, depth, bottom)
            return True
    if k <= 2:
        progress.work += _last_ones(values, limits, tree, depth)
        return True
    # Include first when the target asks for values of the end that is branched on.
    x, _, _ = without_farthest(values, a, b, progress.center)
    node.include_first = (t < 0.5 * (smallest + largest)) == (x == a)
    node.stage = 1
    return False


@uncounted(forceinline=True)
def _add_child(values, kinds, limits, tree, depth):
    """Set the next child of a node; return whether the limits allow it."""
    node, child, codes = tree.nodes[depth], tree.nodes[depth + 1], limits.codes
    x, first, end = without_farthest(values, node.first, node.end, tree.progress[0].center)
    include = node.include_first == (node.stage == 1)
    node.stage += 1
    node.taken = -1
    child.cost = node.cost
    if not include:
        first, end = _without_kind(kinds, node.first, node.end, x)
        set_node(tree, depth + 1, first, end, node.size, node.target)
        return True
    if limits.costs.size:
        child.cost += limits.costs[x]
    if child.cost > limits.capacity:
        return False
    if codes.size:
        if tree.counts[codes[x]] >= limits.high[codes[x]]:
            return False
        tree.counts[codes[x]] += 1
    node.taken = x
    set_node(tree, depth + 1, first, end, node.size - 1, node.target - values[x])
    return True


@uncounted
def branch_constrained(values, kinds, limits, groups, by_cost, tree, work):
    """Go on with the search for about ``work`` units; return whether it is finished.

    Parameters
    ----------
    values, kinds
        Values of the pool, shape (m,), float64, ascending, and kinds, shape (m,), int64,
        ascending: positions of one kind are interchangeable.
    limits, groups, by_cost
        The constraints, as :class:`Limits`, :class:`Groups` and :class:`ByCost`.
    tree
        A :class:`Tree`, written to.
    work
        Values to look at, about.
    """
    progress = tree.progress[0]
    stop = progress.work + work
    while progress.depth >= 0 and progress.work < stop:
        progress.work += 1
        node = tree.nodes[progress.depth]
        if node.stage > 0 and node.taken >= 0 and limits.codes.size:
            tree.counts[limits.codes[node.taken]] -= 1  # back from the child that took it
        if node.stage == 0 and _is_settled(values, limits, groups, by_cost, tree, progress.depth):
            if tree.distance[0] <= progress.goal:
                return True
            progress.depth -= 1
        elif node.stage > 2:
            progress.depth -= 1
        elif _add_child(values, kinds, limits, tree, progress.depth):
            progress.depth += 1
    return progress.depth < 0


@uncounted
def _without_kind(kinds, a, b, x):
    """Return the window without x, one of its ends, and all that are interchangeable with it."""
    if x == a:
        return a + run_length(kinds, x, 1, b - a), b
    return a, b - run_length(kinds, x, -1, b - a)


@njit(cache=True)
def open_constrained_distance(values, kinds, limits, groups, tree, most):
    """Return ``open_distance`` for the tree of ``branch_constrained``; a capacity is not looked at.

    0 when the open nodes ask for more than ``most`` values to be looked at.
    """
    codes, center = limits.codes, tree.progress[0].center
    depth = tree.progress[0].depth
    spans, counts = np.empty(limits.low.size, SPAN), tree.counts.copy()
    node_work = span_work(limits.low.size, values.size)
    if codes.size:
        for d in range(depth + 1):
            if tree.nodes[d].taken >= 0:
                counts[codes[tree.nodes[d].taken]] -= 1
    bound, looked = np.inf, 0
    for d in range(depth + 1):
        node = tree.nodes[d]
        a, b, k, t = node.first, node.end, node.size, node.target
        if node.stage == 0:
            bound = min(bound, _span_distance(a, b, k, t, limits, groups, counts, spans))
            looked += node_work
        else:
            x, first, end = without_farthest(values, a, b, center)
            # Children that are still to be looked at: the second, or both.
            for turn in range(node.stage, 3):
                if node.include_first == (turn == 1):
                    if codes.size:
                        if counts[codes[x]] >= limits.high[codes[x]]:
                            continue
                        counts[codes[x]] += 1
                    distance = _span_distance(
                        first, end, k - 1, t - values[x], limits, groups, counts, spans
                    )
                    if codes.size:
                        counts[codes[x]] -= 1
                else:
                    near, far = _without_kind(kinds, a, b, x)
                    distance = _span_distance(near, far, k, t, limits, groups, counts, spans)
                bound = min(bound, distance)
                looked += node_work
        if node.taken >= 0 and codes.size:
            counts[codes[node.taken]] += 1
        if bound == 0.0 or looked > most:
            return 0.0
    return bound


@uncounted
def _span_distance(a, b, k, t, limits, groups, counts, spans):
    """Return how far t lies outside the sums that sizes and quotas allow; infinity when none."""
    smallest, largest, possible = quota_span(a, b, k, limits, groups, counts, spans)
    return max(smallest - t, t - largest, 0.0) if possible else np.inf
