"""Claims against facts: is what a solver says of its answer true, as far as can be known?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.harness.store import Row

__all__ = ["Facts", "Verdict", "facts_of", "judge"]


@dataclass(slots=True)
class Facts:
    """What is known of one instance from all answers to it.

    ``best`` is the smallest independently recomputed residual of a feasible subset (infinity
    without any), ``proved`` whether the exhaustive search went to its end, and ``impossible``
    whether it found no feasible subset.
    """

    best: float = math.inf
    proved: bool = False
    impossible: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a row succeeded (within tolerance, or proved), and whether what it claims is so."""

    success: bool
    correct: bool
    why: str = ""


def facts_of(rows: Iterable[Row]) -> dict[tuple[str, int, int, bool, int], Facts]:
    """Return what all rows together say of each instance."""
    found: dict[tuple[str, int, int, bool, int], Facts] = defaultdict(Facts)
    for row in rows:
        facts = found[row.instance]
        if row.feasible:
            facts.best = min(facts.best, row.residual)
        if row.solver == "exhaustive" and row.stop in ("COMPLETED", "TARGET"):
            facts.proved = True
            facts.impossible = row.status == "INFEASIBLE"
    return dict(found)


def judge(row: Row, facts: Facts) -> Verdict:
    """Judge one answer.

    An OPTIMAL claim is wrong when the subset is infeasible, or anybody has a subset better by more
    than the tolerance; any claim is wrong when its objective is not the recomputed one, or its
    bound lies above a residual that somebody reached. A crash claims nothing and is no success.
    """
    why = _lie(row, facts)
    proved = row.status == "OPTIMAL" or (row.status == "INFEASIBLE" and not why)
    return Verdict(not why and (row.within or proved), not why, why)


def _lie(row: Row, facts: Facts) -> str:
    slack = 1e-6 * row.tolerance + 1e-12 * row.scale
    if row.status == "INFEASIBLE":
        return "" if math.isinf(facts.best) else "claims infeasibility, others have a subset"
    if row.status not in ("OPTIMAL", "FEASIBLE"):
        return ""
    if not row.feasible:
        return "the subset is infeasible"
    if abs(row.objective - row.residual) > row.tolerance + slack:
        return f"claims an objective of {row.objective:.3g}, it is {row.residual:.3g}"
    if row.bound > facts.best + row.tolerance + slack:
        return f"claims a bound of {row.bound:.3g}, others reach {facts.best:.3g}"
    if row.status == "OPTIMAL" and row.residual > facts.best + row.tolerance + slack:
        return f"claims optimality at {row.residual:.3g}, others reach {facts.best:.3g}"
    return ""
