"""The plots of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.judge import facts_of, judge
from benchmarks.harness.stats import shifted_geometric_mean
from benchmarks.harness.store import Row
from benchmarks.harness.tables import penalized, whole

__all__ = ["draw", "pareto_points", "scaling_points"]

# A relative residual below the first number is rounding of float64 sums; the second stands for
# no subset at all.
_FLOOR, _NOTHING = 1e-10, 1.0
_LEAST_OVERRUN = 1e-6

Points = dict[str, list[tuple[float, float]]]


def draw(rows: Sequence[Row], folder: Path) -> list[tuple[str, str]]:
    """Write every plot that the rows have points for; return titles and file names."""
    made = []
    order = sorted({row.solver for row in rows})
    for title, name, points, labels, scatter in (
        ("Residual against time", "pareto.png", pareto_points(rows),
         ("time (s)", "residual / mean|l|, median"), False),
        ("Time against size", "scaling.png", scaling_points(rows),
         ("n", "time (s), failures count as the limit"), False),
        ("Overrun against limit", "overrun.png", overrun_points(rows),
         ("limit (s)", "actual time - limit (s)"), True),
    ):  # fmt: skip
        if points:
            _plot(points, order, folder / name, title, labels, scatter=scatter)
            made.append((title, name))
    return made


def pareto_points(rows: Sequence[Row]) -> Points:
    """Return, per solver, (mean time, median residual) for each limit it was sampled at.

    Over the instances with samples whose optimum is within tolerance: elsewhere the residual
    cannot fall, whoever searches.
    """
    facts = facts_of(rows)
    ladders = defaultdict(set)
    for row in rows:
        ladders[row.instance].add(row.limit)
    sampled = {
        instance for instance, limits in ladders.items()
        if len(limits) > 1 and facts[instance].best <= _tolerance(rows, instance)
    }  # fmt: skip
    groups: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        if row.instance in sampled and not row.skipped and not row.error:
            groups[row.solver, row.limit].append(row)
    points: Points = defaultdict(list)
    for (name, _), group in sorted(groups.items()):
        time = shifted_geometric_mean([row.total for row in group])
        points[name].append((time, median(_shown(row) for row in group)))
    return {name: sorted(found) for name, found in points.items()}


def scaling_points(rows: Sequence[Row]) -> Points:
    """Return, per solver, (n, mean time) over the unconstrained instances."""
    facts = facts_of(rows)
    groups: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in whole(rows):
        if not row.skipped and not row.constrained:
            groups[row.solver, row.n].append(penalized(row, judge(row, facts[row.instance])))
    points: Points = defaultdict(list)
    for (name, n), times in sorted(groups.items()):
        points[name].append((float(n), shifted_geometric_mean(times)))
    return dict(points)


def overrun_points(rows: Sequence[Row]) -> Points:
    """Return, per solver, (limit, overrun) of every solve that ended at its limit."""
    points: Points = defaultdict(list)
    for row in rows:
        if row.stop == "TIME":
            points[row.solver].append((row.limit, max(row.total - row.limit, _LEAST_OVERRUN)))
    return dict(points)


def _tolerance(rows: Sequence[Row], instance: Any) -> float:
    return next(row.tolerance for row in rows if row.instance == instance) * (1.0 + 1e-6)


def _shown(row: Row) -> float:
    return max(_FLOOR, row.relative) if row.feasible else _NOTHING


def _plot(
    points: Points,
    order: list[str],
    path: Path,
    title: str,
    labels: tuple[str, str],
    *,
    scatter: bool,
) -> None:
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colors = rcParams["axes.prop_cycle"].by_key()["color"]
    markers = "osv^D<>PX"
    for name, found in points.items():
        i = order.index(name)  # a solver looks the same in every plot
        x, y = zip(*found, strict=True)
        axes.plot(
            x, y, label=name, color=colors[i % len(colors)], markersize=4,
            marker=markers[i % len(markers)], linestyle="none" if scatter else "-",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1], title=title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    # No date is written, so that equal rows give equal bytes.
    figure.savefig(path, dpi=100, metadata={"Software": None})
