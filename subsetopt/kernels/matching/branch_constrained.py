"""Branch and bound under quotas and a capacity, on the stack of ``branch``.

A node is bounded by the interval of sums that its window and the quotas allow. Where the target
lies beyond it, the interval's end is the best of the node if the capacity has room for it; the last
two members are found in one pass.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from subsetopt.kernels.matching.branch import B_DEPTH, B_WORK, nearest, record, run_length
from subsetopt.kernels.matching.quotas import quota_span, span_work

__all__ = ["branch_constrained", "open_constrained_distance"]


@njit(cache=True)
def _affordable(costs, by_cost, cost_sums, a, b, k, room):
    """Whether the k cheapest of the window fit into the room."""
    if costs.size == 0:
        return True
    # At worst all that is outside the window is cheaper; at best none of it is.
    outside = by_cost.size - (b - a)
    if cost_sums[outside + k] - cost_sums[outside] <= room:
        return True
    if cost_sums[k] > room:
        return False
    left = k
    spent = 0.0
    for q in range(by_cost.size):
        if left == 0:
            break
        p = by_cost[q]
        if a <= p < b:
            spent += costs[p]
            left -= 1
    return spent <= room


@njit(cache=True)
def _end_cost(least, a, b, k, members, room, costs):
    """Return the cost of the window's subset of least (else greatest) sum."""
    cost = 0.0
    if costs.size == 0:
        return cost
    if room.shape[0] == 0:
        first = a if least else b - k
        for p in range(first, first + k):
            cost += costs[p]
    for g in range(room.shape[0]):
        number = room[g, 4] if least else room[g, 5]
        first = room[g, 0] if least else room[g, 1] - number
        for q in range(first, first + number):
            cost += costs[members[q]]
    return cost


@njit(cache=True)
def _record_end(best, value, best_value, take, depth, least, a, b, k, members, room):
    """Keep the path's values and the window's subset of least (else greatest) sum as the best."""
    if room.shape[0] == 0:
        record(best, value, best_value, take, depth, a if least else b - k, k)
        return
    if value >= best_value[0]:
        return
    record(best, value, best_value, take, depth, a, 0)
    filled = best.size - k
    for g in range(room.shape[0]):
        number = room[g, 4] if least else room[g, 5]
        first = room[g, 0] if least else room[g, 1] - number
        for q in range(first, first + number):
            best[filled] = members[q]
            filled += 1


@njit(cache=True)
def _joins(p, codes, low, high, count, missing, cost, costs, capacity):
    """Return whether a position may join, and how many the lower quotas then still ask for."""
    if costs.size and cost + costs[p] > capacity:
        return False, missing
    if codes.size == 0:
        return True, missing
    g = codes[p]
    return count[g] < high[g], missing - (1 if count[g] < low[g] else 0)


@njit(cache=True)
def _last_ones(
    v, a, b, k, t, best, best_value, take, depth, codes, low, high, count, costs, cost, capacity
):
    """Record the best one or two (k) of the window that may join; return the work.

    From the position that fits best outwards: the first that may join is the best, and none is
    looked at that is no better than the best so far.
    """
    missing, work = 0, b - a
    for g in range(low.size):
        missing += max(0, low[g] - count[g])
    if missing > k:
        return work
    firsts = b - 1 - a if k == 2 else 1
    for first in range(a, a + firsts):
        start, wanted, spent, still = a, t, cost, missing
        if k == 2:
            good, still = _joins(first, codes, low, high, count, missing, cost, costs, capacity)
            if not good:
                continue
            start, wanted = first + 1, t - v[first]
            if costs.size:
                spent = cost + costs[first]
            if codes.size:
                count[codes[first]] += 1
        up = nearest(v, start, b, wanted)
        down = up - 1
        while up < b or down >= start:
            above = v[up] - wanted if up < b else np.inf
            below = wanted - v[down] if down >= start else np.inf
            p = up if abs(above) <= abs(below) else down
            value = min(abs(above), abs(below))
            if value >= best_value[0]:
                break
            work += 1
            good, left = _joins(p, codes, low, high, count, still, spent, costs, capacity)
            if good and left == 0:
                if k == 2:
                    take[depth] = first
                record(best, value, best_value, take, depth + k - 1, p, 1)
                take[depth] = -1
                break
            if p == up:
                up += 1
            else:
                down -= 1
        if k == 2 and codes.size:
            count[codes[first]] -= 1
    return work


@njit(cache=True)
def branch_constrained(
    v, kinds, center, best, best_value, goal, slack, win, target, stage, take, first, spent, ints,
    codes, members, begin, sums, low, high, count, costs, by_cost, cost_sums, capacity, work,
):  # fmt: skip
    """Like ``branch``, with quotas and a capacity.

    ``first`` (m + 2,) tells which child of a node went first, ``spent`` (m + 2,) is the cost of
    the path, ``by_cost`` the positions by ascending cost and ``cost_sums`` (m + 1,) their cumulated
    costs. Positions with the same one of the ``kinds`` (m,), ascending, are interchangeable. Work
    is values looked at.
    """
    stop = ints[B_WORK] + work
    depth = ints[B_DEPTH]
    room = np.empty((low.size, 6), dtype=np.int64)
    node_work = span_work(low.size, v.size)
    while depth >= 0:
        if ints[B_WORK] >= stop:
            ints[B_DEPTH] = depth
            return False
        a, b, k, t = win[depth, 0], win[depth, 1], win[depth, 2], target[depth]
        ints[B_WORK] += 1
        bottom = b > a and center - v[a] >= v[b - 1] - center
        if stage[depth] == 0:
            ints[B_WORK] += node_work
            smallest, largest, possible = quota_span(
                a, b, k, codes, members, begin, sums, low, high, count, room
            )
            if possible:
                possible = _affordable(costs, by_cost, cost_sums, a, b, k, capacity - spent[depth])
            distance = max(smallest - t, t - largest, 0.0)
            if not possible or distance >= best_value[0] - slack:
                depth -= 1
                continue
            if t <= smallest or t >= largest:
                # The end of the interval is the best of the node, if the capacity has room for it.
                least = t <= smallest
                ints[B_WORK] += k
                cost = _end_cost(least, a, b, k, members, room, costs)
                if spent[depth] + cost <= capacity:
                    _record_end(
                        best, distance, best_value, take, depth, least, a, b, k, members, room
                    )
                    if best_value[0] <= goal:
                        ints[B_DEPTH] = depth
                        return True
                    depth -= 1
                    continue
            if k <= 2:
                ints[B_WORK] += _last_ones(
                    v, a, b, k, t, best, best_value, take, depth, codes, low, high, count, costs,
                    spent[depth], capacity,
                )  # fmt: skip
                if best_value[0] <= goal:
                    ints[B_DEPTH] = depth
                    return True
                depth -= 1
                continue
            stage[depth] = 1
            # Include first when the target asks for values of this end.
            first[depth] = 1 if (t < 0.5 * (smallest + largest)) == bottom else 0
        elif take[depth] >= 0 and codes.size:
            count[codes[take[depth]]] -= 1  # back from the child that took it
        if stage[depth] > 2:
            depth -= 1
            continue
        x = a if bottom else b - 1
        include = (first[depth] == 1) == (stage[depth] == 1)
        stage[depth] += 1
        take[depth] = -1
        if include:
            cost = costs[x] if costs.size else 0.0
            if spent[depth] + cost > capacity:
                continue
            if codes.size:
                if count[codes[x]] >= high[codes[x]]:
                    continue
                count[codes[x]] += 1
            take[depth] = x
            spent[depth + 1] = spent[depth] + cost
            win[depth + 1, 0] = a + 1 if bottom else a
            win[depth + 1, 1] = b if bottom else b - 1
            win[depth + 1, 2] = k - 1
            target[depth + 1] = t - v[x]
        else:
            a, b = _without(kinds, a, b, x)
            spent[depth + 1] = spent[depth]
            win[depth + 1, 0], win[depth + 1, 1], win[depth + 1, 2] = a, b, k
            target[depth + 1] = t
        depth += 1
        stage[depth] = 0
        take[depth] = -1
    ints[B_DEPTH] = -1
    return True


@njit(cache=True)
def _without(kinds, a, b, x):
    """Return the window without x, one of its ends, and all that are interchangeable with it."""
    if x == a:
        return a + run_length(kinds, x, 1, b - a), b
    return a, b - run_length(kinds, x, -1, b - a)


@njit(cache=True)
def open_constrained_distance(
    v, kinds, center, win, target, stage, take, first, ints, codes, members, begin, sums, low,
    high, count, most,
):  # fmt: skip
    """Return ``open_distance`` for the tree of ``branch_constrained``; a capacity is not looked at.

    0 when the open nodes ask for more than ``most`` values to be looked at.
    """
    depth = ints[B_DEPTH]
    room, chosen = np.empty((low.size, 6), dtype=np.int64), count.copy()
    node_work = span_work(low.size, v.size)
    if codes.size:
        for d in range(depth + 1):
            if take[d] >= 0:
                chosen[codes[take[d]]] -= 1
    bound, looked = np.inf, 0
    for d in range(depth + 1):
        a, b, k, t = win[d, 0], win[d, 1], win[d, 2], target[d]
        if stage[d] == 0:
            distance = _span_distance(
                a, b, k, t, codes, members, begin, sums, low, high, chosen, room
            )
            bound = min(bound, distance)
            looked += node_work
        elif stage[d] <= 2:
            # Children that are still to be looked at: the second, or both.
            bottom = center - v[a] >= v[b - 1] - center
            x = a if bottom else b - 1
            for turn in range(stage[d], 3):
                if (first[d] == 1) == (turn == 1):
                    if codes.size:
                        if chosen[codes[x]] >= high[codes[x]]:
                            continue
                        chosen[codes[x]] += 1
                    near, far = (a + 1, b) if bottom else (a, b - 1)
                    distance = _span_distance(
                        near,
                        far,
                        k - 1,
                        t - v[x],
                        codes,
                        members,
                        begin,
                        sums,
                        low,
                        high,
                        chosen,
                        room,
                    )
                    if codes.size:
                        chosen[codes[x]] -= 1
                else:
                    near, far = _without(kinds, a, b, x)
                    distance = _span_distance(
                        near, far, k, t, codes, members, begin, sums, low, high, chosen, room
                    )
                bound = min(bound, distance)
                looked += node_work
        if take[d] >= 0 and codes.size:
            chosen[codes[take[d]]] += 1
        if bound == 0.0 or looked > most:
            return 0.0
    return bound


@njit(cache=True)
def _span_distance(a, b, k, t, codes, members, begin, sums, low, high, count, room):
    """Return how far t lies outside the sums that sizes and quotas allow; infinity when none."""
    smallest, largest, possible = quota_span(
        a, b, k, codes, members, begin, sums, low, high, count, room
    )
    return max(smallest - t, t - largest, 0.0) if possible else np.inf
