"""The tables of the report, each a function of the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from statistics import median
from typing import Any

from benchmarks.harness.judge import Facts, Verdict, facts_of, judge
from benchmarks.harness.output import ms, us
from benchmarks.harness.stats import quantiles, shifted_geometric_mean
from benchmarks.harness.store import Row

__all__ = [
    "crashes", "milestones", "overruns", "peaks", "results", "skips", "success_by_family",
    "success_by_rate",
    "summary", "time_by_size", "time_constrained", "whole", "wrong_claims",
]  # fmt: skip

Table = tuple[list[str], list[list[Any]]]
_SHOWN = 40


def whole(rows: Sequence[Row]) -> list[Row]:
    """Return the solves under the limit of the tables, without those of the curve over limits."""
    return [row for row in rows if not row.sampled]


def judged(rows: Sequence[Row]) -> list[tuple[Row, Verdict]]:
    """Return what was run, with its verdict by the facts of all rows."""
    facts = facts_of(rows)
    return [(row, judge(row, facts[row.instance])) for row in whole(rows) if not row.skipped]


def penalized(row: Row, verdict: Verdict) -> float:
    """Return the time of a success, the limit for a failure."""
    return row.total if verdict.success else row.limit


def results(rows: Sequence[Row]) -> Table:
    """Return every solve with its verdict, for the file of results."""
    facts = facts_of(rows)
    columns = ["family", "n", "k", "rate", "constrained", "seed", "solver", "limit",
               "relative residual", "claimed", "within tolerance", "success", "correct claim",
               "why not", "build s", "setup s", "total s", "native status", "not run"]  # fmt: skip
    body = []
    for row in rows:
        verdict = judge(row, facts[row.instance])
        body.append(
            [row.family, row.n, row.k, row.rate, row.constrained, row.seed, row.solver, row.limit,
             row.relative, row.status, row.within, verdict.success, verdict.correct, verdict.why,
             row.build, row.setup, row.total, row.native, row.skipped]
        )  # fmt: skip
    return columns, body


def summary(rows: Sequence[Row]) -> Table:
    columns = ["solver", "instances", "success rate", "correct rate", "claims OPTIMAL",
               "time (sgm)", "median residual", "crashes", "wrong claims"]  # fmt: skip
    body = []
    for name, group in _by(judged(rows), lambda row: row.solver).items():
        success = sum(v.success for _, v in group) / len(group)
        correct = sum(v.correct for _, v in group) / len(group)
        time = shifted_geometric_mean([penalized(r, v) for r, v in group])
        found = [r.relative for r, _ in group if r.feasible]
        body.append(
            [name, len(group), f"{success:.1%}", f"{correct:.1%}",
             f"{sum(r.status == 'OPTIMAL' for r, _ in group) / len(group):.1%}", us(time),
             f"{median(found):.1e}" if found else "-", sum(bool(r.error) for r, _ in group),
             sum(not v.correct for _, v in group)]
        )  # fmt: skip
    return columns, body


def milestones(rows: Sequence[Row]) -> Table:
    """First feasible, tolerance and total: the smallest time among all limits that got there.

    The whole limit where none did.
    """
    columns = ["solver", "first feasible", "to tolerance", "in all", "sampled instances"]
    ladders: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        if not row.skipped:
            ladders[(*row.instance, row.solver)].append(row)
    sampled = {key[:-1] for key, group in ladders.items() if len(group) > 1}  # type: ignore[index]
    groups: dict[str, list[list[Row]]] = defaultdict(list)
    for group in ladders.values():
        if not sampled or group[0].instance in sampled:
            groups[group[0].solver].append(group)
    body = []
    for name, found in groups.items():
        first = [_earliest(group, lambda row: row.feasible) for group in found]
        within = [_earliest(group, lambda row: row.within) for group in found]
        total = [_earliest(whole(group) or group, bool) for group in found]
        means = [us(shifted_geometric_mean(times)) for times in (first, within, total)]
        body.append([name, *means, len(found)])
    return columns, body


def success_by_family(rows: Sequence[Row]) -> Table:
    return _matrix(judged(rows), lambda row: row.family, _success_rate)


def success_by_rate(rows: Sequence[Row]) -> Table:
    def label(row: Row) -> str:
        return f"{row.rate:g}{' + constraints' if row.constrained else ''}"

    return _matrix(judged(rows), label, _success_rate)


def time_by_size(rows: Sequence[Row]) -> Table:
    kept = [pair for pair in judged(rows) if not pair[0].constrained]
    return _matrix(kept, lambda row: row.n, _mean_time)


def time_constrained(rows: Sequence[Row]) -> Table:
    kept = [pair for pair in judged(rows) if pair[0].constrained]
    return _matrix(kept, lambda row: row.n, _mean_time)


def overruns(rows: Sequence[Row]) -> Table:
    columns = ["solver", "solves", "median", "99%", "worst"]
    late: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.stop == "TIME":
            late[row.solver].append(row.total - row.limit)
    body = [
        [name, len(over), *(ms(q) for q in quantiles(over, (0.5, 0.99, 1.0)))]
        for name, over in late.items()
    ]
    return columns, body


def wrong_claims(rows: Sequence[Row]) -> Table:
    columns = ["solver", "instance", "status", "why"]
    facts: dict[Any, Facts] = facts_of(rows)
    body = []
    for row in rows:
        verdict = judge(row, facts[row.instance])
        if not row.skipped and not verdict.correct:
            body.append([row.solver, _name(row), row.status, verdict.why])
    return columns, body[:_SHOWN]


def crashes(rows: Sequence[Row]) -> Table:
    body = [[r.solver, _name(r), f"{r.limit:g} s", r.error[:200]] for r in rows if r.error]
    return ["solver", "instance", "limit", "error"], body[:_SHOWN]


def skips(rows: Sequence[Row]) -> Table:
    reasons: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.skipped:
            reasons[row.solver, row.skipped].append(row)
    body = [
        [name, why, len(group), min(r.n for r in group), max(r.n for r in group)]
        for (name, why), group in reasons.items()
    ]
    return ["solver", "why", "solves", "smallest n", "largest n"], body


def peaks(memory: dict[tuple[str, int, bool], float]) -> Table:
    sizes = sorted({n for _, n, _ in memory})
    names = list(dict.fromkeys((name, flag) for name, _, flag in memory))
    body = [
        [name, flag, *(memory.get((name, n, flag), float("nan")) / 2**20 for n in sizes)]
        for name, flag in names
    ]
    kept = [row for row in body if any(value == value for value in row[2:])]
    return ["solver", "constraints", *(f"n={n:,}" for n in sizes)], kept


def _by(
    pairs: Sequence[tuple[Row, Verdict]], key: Callable[[Row], Any]
) -> dict[Any, list[tuple[Row, Verdict]]]:
    groups: dict[Any, list[tuple[Row, Verdict]]] = defaultdict(list)
    for row, verdict in pairs:
        groups[key(row)].append((row, verdict))
    return dict(groups)


def _matrix(
    pairs: Sequence[tuple[Row, Verdict]],
    label: Callable[[Row], Any],
    cell: Callable[[list[tuple[Row, Verdict]]], str],
) -> Table:
    """Return a table of solvers against the values of a label."""
    labels = sorted({label(row) for row, _ in pairs}, key=lambda v: (isinstance(v, str), v))
    groups = _by(pairs, lambda row: (row.solver, label(row)))
    names = dict.fromkeys(row.solver for row, _ in pairs)
    body = [
        [name, *(cell(groups[name, v]) if (name, v) in groups else "" for v in labels)]
        for name in names
    ]
    return ["solver", *(f"{v:,}" if isinstance(v, int) else str(v) for v in labels)], body


def _success_rate(group: list[tuple[Row, Verdict]]) -> str:
    return f"{100.0 * sum(v.success for _, v in group) / len(group):.0f}"


def _mean_time(group: list[tuple[Row, Verdict]]) -> str:
    return f"{1e3 * shifted_geometric_mean([penalized(r, v) for r, v in group]):.3g}"


def _earliest(group: list[Row], good: Callable[[Row], bool]) -> float:
    reached = (row.total for row in group if good(row) and not row.error)
    return min(reached, default=max(row.limit for row in group))


def _name(row: Row) -> str:
    return f"{row.family} n={row.n} k={row.k}{' constrained' * row.constrained} seed={row.seed}"
