"""Vector matching: uniform weights against Gurobi, nonnegative ones against the published codes."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import scipy  # type: ignore[import-untyped]
import typer
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.moments import record_moments
from benchmarks.harness.options import RUNS, Out
from benchmarks.harness.output import Result, bar, ms
from benchmarks.rivals import published
from subsetopt import instances as generators

_N, _D, _K = 128, 10, 13
# Batches are recorded after these numbers of updates, as in the benchmark of gradients.
_STEPS = (20, 60, 400, 1500)
# An error is compared with that of this many random subsets.
_DRAWS = 32
# Each target is (seconds, largest share of a random subset's error).
_SMALL = ((0.0005, 0.055),)
_LARGER = (
    (1024, 16, 102, ((0.0005, 0.006), (0.005, 0.004))),
    (4096, 128, 410, ((0.02, 0.025), (0.2, 0.02))),
)
_AGAINST_GUROBI = ((0.05, 1.2), (0.5, 1.0))
_WEIGHTED = (1024, 256, 64)
_FULL_RANK = (1024, 16)
# The fastest of this many calls counts, since other work on the machine only adds to a time.
_REPEATS = 25
_ROUNDING = 1e-9
_TINY = 1e-300

Floats = NDArray[np.floating[Any]]
Outcome = tuple[float, float]  # error, seconds
Way = Callable[[Floats], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """Vectors, of which k are chosen with equal weights."""

    family: str
    vectors: Floats
    k: int
    seed: int

    @property
    def key(self) -> str:
        """What tells the instance from all others, its data included."""
        digest = hashlib.sha256(self.vectors.tobytes()).hexdigest()[:12]
        return f"{self.family}/{self.seed}/k={self.k}/{digest}"

    def problem(self) -> so.Problem:
        return so.Problem(so.VectorMatching(self.vectors), self.k)

    def error(self, indices: NDArray[np.int64]) -> float:
        rows = self.vectors.astype(np.float64)
        return float(np.linalg.norm(rows.mean(axis=0) - rows[indices].sum(axis=0) / self.k))

    def random_error(self) -> float:
        rng = np.random.default_rng((self.seed, len(self.vectors)))
        picks = (rng.choice(len(self.vectors), self.k, replace=False) for _ in range(_DRAWS))
        return geometric_mean([self.error(pick) for pick in picks])


@dataclass(frozen=True, slots=True)
class Reference:
    """What Gurobi found of an instance, and whether it proved that to be the best."""

    error: float
    proved: bool


References = dict[str, Reference]


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; nan for no values."""
    if not len(values):
        return math.nan
    return float(np.exp(np.mean(np.log(np.maximum(values, _TINY)))))


@command
def vectors(
    instances: Annotated[int, typer.Option(help="Of each family at n = 128.")] = 50,
    large: Annotated[int, typer.Option(help="At n = 1,024; a fifth as many at 4,096.")] = 50,
    weighted: Annotated[int, typer.Option(help="With nonnegative weights.")] = 10,
    gurobi_seconds: Annotated[float, typer.Option(help="Limit of a reference; 0: none.")] = 60.0,
    gurobi_instances: Annotated[int, typer.Option(help="Of both families; 0: none.")] = 20,
    out: Out = RUNS,
) -> Result:
    """Vector matching: swap, omp, giga and Frank-Wolfe against what others do."""
    so.warmup()
    settings = {
        "instances": instances, "n=1,024": large, "n=4,096": -(-large // 5), "weighted": weighted,
        "Gurobi": f"{gurobi_instances} x {gurobi_seconds:g} s", "random subsets": _DRAWS,
        "scipy": scipy.__version__,
    }  # fmt: skip
    result = Result("vectors", "Matching vectors", settings)
    most = max(instances, -(-gurobi_instances // 2))
    small = [gaussian(most, _N, _D, _K), recorded(most)]
    both = [instance for pair in zip(*small, strict=True) for instance in pair]
    both = both[:gurobi_instances] if gurobi_seconds > 0.0 else []
    known = references(out / "vectors-gurobi.jsonl", both, gurobi_seconds)
    _uniform(result, [family[:instances] for family in small], large, known)
    if both:
        _against_gurobi(result, both, known, gurobi_seconds)
    if weighted:
        _nonnegative(result, weighted)
        _full_rank(result, weighted)
    return result


def gaussian(count: int, n: int, d: int, k: int) -> list[Instance]:
    """Return Gaussian rows, each times an exponential number."""
    return [Instance("Gaussian", generators.vectors(n, d, i), k, i) for i in range(count)]


def recorded(count: int) -> list[Instance]:
    """Return logit gradients of batches of digits, from each of some steps of training in turn."""
    if not count:
        return []
    batches = -(-count // len(_STEPS))
    # Each step has a training run of its own, so the number of batches changes no other step.
    moments = [record_moments("digits", None, [step], batches) for step in _STEPS[:count]]
    turns = [moment for turn in zip(*moments, strict=True) for moment in turn]
    return [
        Instance(f"logit gradients, step {moment.step}", moment.signals["logit_gradients"], _K, i)
        for i, moment in enumerate(turns[:count])
    ]


def swapped(instance: Instance, limit: float) -> Outcome:
    """Return error and time of one whole call."""
    problem = instance.problem()
    start = time.perf_counter()
    answer = so.solve(problem, "swap", time_limit=limit, seed=instance.seed)
    taken = time.perf_counter() - start
    return instance.error(answer.indices), taken


def single_swaps(instance: Instance, limit: float) -> Outcome:
    """Return error and time of the simplest search in the same time."""
    rows = instance.vectors.astype(np.float64)
    best, taken = published.single_swaps(rows, instance.k, limit, instance.seed)
    return instance.error(best), taken


def _uniform(
    result: Result, small: Sequence[Sequence[Instance]], large: int, known: References
) -> None:
    """Add the table and the checks of uniform weights against random subsets."""
    rows: list[list[Any]] = []
    for family in small:
        rows += _over_random(result, family, _SMALL, known)
    for n, d, k, targets in _LARGER:
        count = large if n < 4096 else -(-large // 5)
        rows += _over_random(result, gaussian(count, n, d, k), targets, {})
    columns = ("vectors", "n", "d", "k", "limit", "swap / random", "time, median",
               "longest", "single swaps / random", "time, median")  # fmt: skip
    result.table("Uniform weights: error over a random subset's", columns, rows)
    result.notes.append(
        "Single swaps: compiled descents by exchanges of one vector from random starts, as many "
        "as the same time holds, at least one. Errors are geometric means."
    )


def _over_random(
    result: Result,
    family: Sequence[Instance],
    targets: Sequence[tuple[float, float]],
    known: References,
) -> list[list[Any]]:
    """Return a row for every limit and kind of vectors; add a check for every limit."""
    rows: list[list[Any]] = []
    if not family:
        return rows
    random = [instance.random_error() for instance in family]
    title, (n, d) = family[0].family.partition(",")[0], family[0].vectors.shape
    best = _reached(family, random, known)
    for limit, target in targets:
        ours, crude = _both(family, limit)
        for kind in dict.fromkeys([*(instance.family for instance in family), title]):
            own = [i for i, one in enumerate(family) if kind in (one.family, title)]
            by = [random[i] for i in own]
            swap, single = [ours[i] for i in own], [crude[i] for i in own]
            sizes = (kind, n, d, family[0].k, ms(limit))
            of_single = (_share(single, by), _times(single)[0])
            rows.append([*sizes, _share(swap, by), *_times(swap), *of_single])
        what = f"{title}, n={n:,}: swap in {ms(limit)}, error over random's"
        result.check(what, _share(ours, random), target, "x", least=False, best=best)
    return rows


def _reached(
    family: Sequence[Instance], random: Sequence[float], known: References
) -> tuple[float, str] | None:
    """Return what Gurobi comes to on the instances that it was given, if it was given any."""
    pairs = [(known[one.key], by) for one, by in zip(family, random, strict=True)
             if one.key in known]  # fmt: skip
    if not pairs:
        return None
    shares = [reference.error / by for reference, by in pairs]
    proved = sum(reference.proved for reference, _ in pairs)
    return geometric_mean(shares), f"Gurobi on {len(pairs)} of them, {proved} proved"


def _both(family: Sequence[Instance], limit: float) -> tuple[list[Outcome], list[Outcome]]:
    """Run swap and single swaps in turn, after a first time that does not count."""
    swapped(family[0], limit)
    single_swaps(family[0], 0.0)
    ours, crude = [], []
    with bar() as progress:
        task = progress.add_task(f"n = {len(family[0].vectors):,}", total=len(family))
        for instance in family:
            ours.append(swapped(instance, limit))
            crude.append(single_swaps(instance, limit))
            progress.advance(task)
    return ours, crude


def _share(outcomes: Sequence[Outcome], by: Sequence[float]) -> float:
    """Return the geometric mean of errors over others."""
    errors = [error for error, _ in outcomes]
    return geometric_mean([e / b for e, b in zip(errors, by, strict=True)])


def _times(outcomes: Sequence[Outcome]) -> tuple[str, str]:
    times = [seconds for _, seconds in outcomes]
    return ms(median(times)), ms(max(times))


def _against_gurobi(
    result: Result, family: Sequence[Instance], known: References, seconds: float
) -> None:
    """Add the table and the checks of uniform weights against Gurobi."""
    found = [known[instance.key] for instance in family]
    random = [instance.random_error() for instance in family]
    theirs = [reference.error for reference in found]
    rows: list[list[Any]] = []
    for limit, target in _AGAINST_GUROBI:
        ours, crude = _both(family, limit)
        for kind in sorted({instance.family for instance in family}):
            own = [i for i, one in enumerate(family) if one.family == kind]
            by = [theirs[i] for i in own]
            swap, single = [ours[i] for i in own], [crude[i] for i in own]
            over = geometric_mean([theirs[i] / random[i] for i in own])
            proved = sum(found[i].proved for i in own)
            shares = (_share(swap, by), _share(single, by), over, proved)
            rows.append([kind, len(own), ms(limit), *shares, *_times(swap)])
        what = f"n={_N}: swap in {ms(limit)}, error over Gurobi's in {seconds:g} s"
        result.check(what, _share(ours, theirs), target + _ROUNDING, "x", least=False)
    columns = ("vectors", "instances", "limit", "swap / Gurobi", "single swaps / Gurobi",
               "Gurobi / random", "proved", "time of swap, median",
               "longest")  # fmt: skip
    result.table(f"Uniform weights against Gurobi in {seconds:g} s", columns, rows)


def references(path: Path, family: Sequence[Instance], seconds: float) -> References:
    """Return what Gurobi finds by instance; what was stored by an earlier run is not run again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = _stored(path, seconds)
    with path.open("a", encoding="utf-8") as file, bar() as progress:
        task = progress.add_task("Gurobi", total=len(family))
        for instance in family:
            if instance.key not in stored:
                start = time.perf_counter()
                answer = so.solve(instance.problem(), "gurobi", time_limit=seconds).require()
                taken, error = time.perf_counter() - start, instance.error(answer.indices)
                proved = answer.status is so.Status.OPTIMAL
                stored[instance.key] = Reference(error, proved)
                row = {"key": instance.key, "limit": seconds, "seconds": taken, "error": error,
                       "bound": answer.bound, "status": answer.status.name}  # fmt: skip
                # The line break keeps the line apart from one that an earlier run left torn.
                file.write("\n" + json.dumps(row) + "\n")
                file.flush()
            progress.advance(task)
    return {instance.key: stored[instance.key] for instance in family}


def _stored(path: Path, seconds: float) -> dict[str, Reference]:
    found: dict[str, Reference] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["limit"] == seconds:
            proved = row["status"] == so.Status.OPTIMAL.name
            found[row["key"]] = Reference(row["error"], proved)
    return found


def solved(
    rows: Floats,
    k: int,
    solver: Literal["omp", "giga", "frank-wolfe"],
    options: dict[str, str] | None = None,
) -> so.Solution:
    """Return the answer of a solver with nonnegative weights, building the problem included."""
    problem = so.Problem(so.VectorMatching(rows, weights="nonnegative"), k)
    return so.solve(problem, solver, options=options)


def _ways(k: int) -> dict[str, Way]:
    """Return the solvers, and the published forms in NumPy, all from vectors to weights."""
    return {
        "omp": lambda rows: solved(rows, k, "omp"),
        "omp, by product": lambda rows: solved(rows, k, "omp", {"pick": "product"}),
        "OMP, published (largest product)": lambda rows: published.matching_pursuit(rows, k),
        "OMP, published (least angle)": lambda rows: published.matching_pursuit(rows, k, True),
        "giga": lambda rows: solved(rows, k, "giga"),
        "GIGA, published": lambda rows: published.giga(rows, k),
        "GIGA, tuned": lambda rows: published.tuned_giga(rows, k),
        "GIGA, tuned, float32": lambda rows: published.tuned_giga(rows.astype(np.float32), k),
        "frank-wolfe": lambda rows: solved(rows, k, "frank-wolfe"),
        "Frank-Wolfe, published": lambda rows: published.frank_wolfe(rows, k),
    }


def _nonnegative(result: Result, count: int) -> None:
    """Add the table and the checks of nonnegative weights against published algorithms."""
    n, d, k = _WEIGHTED
    outcomes: dict[str, list[Outcome]] = {name: [] for name in _ways(k)}
    with bar() as progress:
        for seed in progress.track(range(count), description="nonnegative"):
            rows = generators.vectors(n, d, seed)
            for name, way in _ways(k).items():
                outcomes[name].append(_fastest(way, rows))
    random = [float(np.linalg.norm(generators.vectors(n, d, i).mean(axis=0))) for i in range(count)]
    table = [[name, _share(found, random), _times(found)[0]] for name, found in outcomes.items()]
    columns = ("algorithm", "residual over the target's length", "time, median")
    result.table(f"Nonnegative weights: n = {n:,}, d = {d}, k = {k}", columns, table)
    for ours, theirs in (
        ("omp", ("OMP, published (largest product)", "OMP, published (least angle)")),
        ("omp, by product", ("OMP, published (largest product)",)),
        ("giga", ("GIGA, published",)),
        ("frank-wolfe", ("Frank-Wolfe, published",)),
    ):
        for name in theirs:
            worst = max(
                a / b for (a, _), (b, _) in zip(outcomes[ours], outcomes[name], strict=True)
            )
            what = f"{ours}: residual over that of {name}, worst instance"
            result.check(what, worst, 1.0 + _ROUNDING, "x", least=False)
    for slow, fast, target in (
        ("GIGA, tuned", "giga", 4.0),
        ("OMP, published (largest product)", "omp, by product", 20.0),
        ("OMP, published (least angle)", "omp", 20.0),
    ):
        ratio = _typical(outcomes[slow]) / _typical(outcomes[fast])
        result.check(f"time of {slow} / {fast}", ratio, target, "x", least=True)
    result.notes.append(
        f"Nonnegative weights: from vectors to weights, the fastest of {_REPEATS} calls on every "
        "instance, the median over instances."
    )


def _fastest(way: Way, rows: Floats) -> Outcome:
    """Return residual and time of the fastest of several calls."""
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        found = way(rows)
        times.append(time.perf_counter() - start)
    weights = found
    if isinstance(found, so.Solution):
        weights = np.zeros(len(rows))
        weights[found.indices] = found.weights
    return published.residual(rows, weights), min(times[1:])


def _typical(outcomes: Sequence[Outcome]) -> float:
    return median(seconds for _, seconds in outcomes)


def _full_rank(result: Result, count: int) -> None:
    """Add the checks of as many nonnegative weights as coordinates."""
    n, d = _FULL_RANK
    families = [generators.vectors(n, d, seed) for seed in range(count)]
    outcomes = [_fastest(lambda rows: solved(rows, d, "omp"), rows) for rows in families]
    proved = [solved(rows, d, "omp").status is so.Status.OPTIMAL for rows in families]
    scales = [float(np.linalg.norm(rows, axis=1).mean()) for rows in families]
    worst = max(error / scale for (error, _), scale in zip(outcomes, scales, strict=True))
    what = f"omp, k = d = {d}, n={n:,}"
    result.check(f"{what}: OPTIMAL", sum(proved), count, "instances", least=True)
    result.check(f"{what}: residual over the mean norm, worst", worst, 1e-12, "", least=False)
    slowest = max(seconds for _, seconds in outcomes)
    result.check(f"{what}: time, slowest instance", slowest * 1e3, 1.0, "ms", least=False)
