"""Facility location against apricot and submodlib, and large; k-center against NumPy."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness import memory
from benchmarks.harness.command import command
from benchmarks.harness.options import RUNS, Out, integers
from benchmarks.harness.output import Result, console, ms
from benchmarks.rivals.peers import OF_FEATURES, OF_SIMILARITIES, Peer, cosines, missing

_D = 64
# Each cloud has a number of clusters, and a spread of their centers relative to that within them:
# the first lie apart, the second all but coincide.
_CLOUDS = ((50, 4.0), (500, 1.0))
_SAME = 1e-6
# Above this number of samples no matrix of all distances is made.
_MATRIX = 10_000
_COLUMNS = ("what", "median", "over lazy-greedy", "objective", "remark")
Way = Callable[[], Any]
Indices = NDArray[np.int64]


@command
def coverage(
    n: Annotated[int, typer.Option(help="Samples, for the other libraries.")] = 5000,
    k: Annotated[int, typer.Option(help="Samples chosen.")] = 100,
    large: Annotated[
        int, typer.Option(help="Samples, in a process of its own; 0: none.")
    ] = 100_000,
    centers: Annotated[str, typer.Option(help="Samples, for k-center.")] = "5000,50000",
    repeats: Annotated[int, typer.Option(help="Calls of each kind, in turn.")] = 7,
    out: Out = RUNS,
) -> Result:
    """Facility location and k-center against other libraries and NumPy."""
    so.warmup()
    settings = {"n": n, "d": _D, "k": k, "large": large, "repeats": repeats,
                "features": "clustered Gaussian"}  # fmt: skip
    result = Result("coverage", "Coverage", settings)
    for clusters, spread in _CLOUDS:
        _facilities(result, f"{clusters} clusters, spread {spread:g}",
                    cloud(n, clusters, spread), k, repeats)  # fmt: skip
    for size in integers(centers):
        _centers(result, size, k, repeats)
    if large:
        _large(result, large, k)
    result.notes += _NOTES
    return result


_NOTES = [
    "Every call of this library builds the problem, and ends with the verified objective and a "
    "bound. Objectives are recomputed in float64 on one similarity, 1 + cosine.",
    "apricot compiles its loops in every call; but for the row that says so, they were compiled "
    "before. Its 'naive' and submodlib's 'NaiveGreedy' are left out: slower at this size.",
]


def cloud(n: int, clusters: int, spread: float) -> NDArray[np.float64]:
    """Return features around Gaussian centers, the same for the same arguments."""
    rng = np.random.default_rng(0)
    middles = spread * rng.normal(size=(clusters, _D))
    return middles[rng.integers(0, clusters, n)] + rng.normal(size=(n, _D))


def _facilities(
    result: Result, title: str, features: NDArray[np.float64], k: int, repeats: int
) -> None:
    similarity = cosines(features)
    similarity = np.maximum(similarity, similarity.T)  # rounding must not break the symmetry

    def worth(chosen: Indices) -> float:
        return float(similarity[:, chosen].max(axis=1).sum())

    for what, matrix, peers, make in (
        ("one float64 similarity", similarity, OF_SIMILARITIES, _of_similarity),
        ("features", features, OF_FEATURES, so.FacilityLocation),
    ):
        ways = _own(matrix, make, k) | {
            p.name: partial(p.choose, matrix, k) for p in peers if missing(p.package) is None
        }
        times, answers = in_turn(ways, repeats)
        worths = {name: worth(chosen) for name, chosen in answers.items()}
        absent = {p.name: why for p in peers if (why := missing(p.package))}
        result.table(f"{title}: {what}", _COLUMNS, _rows(times, worths, absent))
        _check(result, f"{title}, {what}", times, worths, peers)


def _of_similarity(similarity: NDArray[Any]) -> so.FacilityLocation:
    return so.FacilityLocation(similarity=similarity)


def _own(matrix: NDArray[Any], make: Callable[..., so.FacilityLocation], k: int) -> dict[str, Way]:
    def solve(given: NDArray[Any], solver: str) -> Indices:
        return so.solve(so.Problem(make(given), k), solver, seed=0).require().indices

    single = matrix.astype(np.float32)
    return {
        "lazy-greedy": partial(solve, matrix, "lazy-greedy"),
        "lazy-greedy, float32 given": partial(solve, single, "lazy-greedy"),
        "greedy": partial(solve, matrix, "greedy"),
        "stochastic-greedy": partial(solve, matrix, "stochastic-greedy"),
    }


def in_turn(ways: dict[str, Way], repeats: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return the times of each way, in turn so that noise hits all alike, and its last answer."""
    answers = {name: way() for name, way in ways.items()}  # this first call compiles everything
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            answers[name] = way()
            times[name].append(time.perf_counter() - start)
    return times, answers


def _rows(
    times: dict[str, list[float]], worths: dict[str, float], absent: dict[str, str]
) -> list[list[Any]]:
    middle = {name: median(t) for name, t in times.items()}
    own = middle["lazy-greedy"]
    rows = [[name, ms(t), f"{t / own:.2f} x", f"{worths[name]:.6f}", ""]
            for name, t in middle.items()]  # fmt: skip
    return rows + [[name, "-", "-", "-", why] for name, why in absent.items()]


def _check(
    result: Result, what: str, times: dict[str, list[float]], worths: dict[str, float],
    peers: Sequence[Peer],
) -> None:  # fmt: skip
    own = worths["lazy-greedy"]
    result.check(f"{what}: lazy-greedy / greedy - 1", abs(own / worths["greedy"] - 1.0), _SAME,
                 "", least=False)  # fmt: skip
    present = [p for p in peers if p.name in times]
    for package in dict.fromkeys(p.package for p in present):
        off = max(abs(worths[p.name] / own - 1.0)
                  for p in present if p.package == package and p.same)  # fmt: skip
        result.check(f"{what}: objective / {package}'s - 1", off, _SAME, "", least=False)
    if present:
        fastest = min(median(times[p.name]) for p in present)
        ratio = fastest / median(times["lazy-greedy"])
        result.check(f"{what}: fastest other / lazy-greedy", ratio, 5.0, "x", least=True)


def _centers(result: Result, n: int, k: int, repeats: int) -> None:
    """Compare farthest-first with the same by NumPy, from the same first center."""
    features = cloud(n, *_CLOUDS[0])

    def solve(size: int = k) -> Indices:
        return so.solve(so.Problem(so.KCenter(features), size), "farthest-first", seed=0).indices

    first = int(solve(1)[0])
    ways: dict[str, Way] = {
        "farthest-first": solve,
        "NumPy, by products": lambda: _by_products(features, k, first),
        "NumPy, by differences": lambda: _by_differences(features, k, first),
    }
    if missing("sklearn") is None:
        if n <= _MATRIX:
            ways["scikit-learn, all pairwise distances"] = lambda: _by_matrix(features, k, first)
        ways["scikit-learn, kmeans_plusplus (random)"] = lambda: _plus_plus(features, k)
    times, answers = in_turn(ways, repeats)
    radii = {name: radius(features, chosen) for name, chosen in answers.items()}
    own = median(times["farthest-first"])
    rows = [[name, ms(median(t)), f"{median(t) / own:.2f} x", f"{radii[name]:.9f}"]
            for name, t in times.items()]  # fmt: skip
    columns = ("what", "median", "over farthest-first", "radius")
    result.table(f"K-center, n = {n:,}, k = {k:,}", columns, rows)
    off = abs(radii["farthest-first"] / radii["NumPy, by products"] - 1.0)
    result.check(f"k-center, n = {n:,}: radius / NumPy's - 1", off, _SAME, "", least=False)


def _by_products(features: NDArray[np.float64], k: int, first: int) -> Indices:
    norms = np.einsum("ij,ij->i", features, features)
    nearest, picks = np.full(len(features), np.inf), [first]
    while len(picks) < k:
        pick = picks[-1]
        np.minimum(nearest, norms - 2.0 * (features @ features[pick]) + norms[pick], out=nearest)
        picks.append(int(np.argmax(nearest)))
    return np.array(picks)


def _by_differences(features: NDArray[np.float64], k: int, first: int) -> Indices:
    nearest, picks = np.full(len(features), np.inf), [first]
    while len(picks) < k:
        off = features - features[picks[-1]]
        np.minimum(nearest, np.einsum("ij,ij->i", off, off), out=nearest)
        picks.append(int(np.argmax(nearest)))
    return np.array(picks)


def _by_matrix(features: NDArray[np.float64], k: int, first: int) -> Indices:
    from sklearn.metrics import pairwise_distances

    distances = pairwise_distances(features)
    nearest, picks = distances[first].copy(), [first]
    while len(picks) < k:
        picks.append(int(np.argmax(nearest)))
        np.minimum(nearest, distances[picks[-1]], out=nearest)
    return np.array(picks)


def _plus_plus(features: NDArray[np.float64], k: int) -> Indices:
    from sklearn.cluster import kmeans_plusplus

    return np.asarray(kmeans_plusplus(features, k, random_state=0)[1], dtype=np.int64)


def radius(features: NDArray[np.float64], chosen: Indices) -> float:
    """Return the largest distance from the nearest chosen sample, by differences."""
    nearest = np.full(len(features), np.inf)
    for j in chosen:
        off = features - features[j]
        np.minimum(nearest, np.einsum("ij,ij->i", off, off), out=nearest)
    return math.sqrt(float(nearest.max()))


def _large(result: Result, n: int, k: int) -> None:
    """Solve in processes of their own, one after the other, to the end."""
    rows, peaks = [], {}
    for clusters, spread in _CLOUDS:
        for solver in ("lazy-greedy", "stochastic-greedy"):
            console.print(f"{solver}, n = {n:,}, {clusters} clusters ...", highlight=False)
            told = alone(solver, n, clusters, spread, k)
            peaks[solver] = max(peaks.get(solver, 0.0), told["peak"])
            rows.append([f"{clusters} clusters, spread {spread:g}", solver,
                         f"{told['seconds']:.2f} s", f"{told['peak'] / 2**30:.3f} GiB",
                         f"{told['objective']:.3f}", f"{told['bound']:.3f}",
                         told["stopped"]])  # fmt: skip
    columns = ("features", "solver", "time", "peak of the process", "objective", "bound", "stopped")
    result.table(f"n = {n:,}, k = {k:,}, float32 features, one call", columns, rows)
    for solver, peak in peaks.items():
        result.check(f"n = {n:,}: {solver}, peak", peak / 2**30, 4.0, "GiB", least=False)


def alone(solver: str, n: int, clusters: int, spread: float, k: int) -> dict[str, Any]:
    """Return time, objective, bound and peak memory of one solve in a fresh process."""
    task = json.dumps([solver, n, clusters, spread, k])
    command = [sys.executable, "-m", "benchmarks.commands.coverage", task]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _main(task: str) -> None:
    solver, n, clusters, spread, k = json.loads(task)
    features = cloud(n, clusters, spread).astype(np.float32)
    so.warmup()
    start = time.perf_counter()
    answer = so.solve(so.Problem(so.FacilityLocation(features), k), solver, seed=0)
    seconds = time.perf_counter() - start
    peak = memory.peak()  # getrusage may tell the parent's peak
    print(json.dumps({
        "seconds": seconds, "peak": peak, "objective": answer.objective, "bound": answer.bound,
        "stopped": answer.stop_reason.name.lower(),
    }))  # fmt: skip


if __name__ == "__main__":
    _main(sys.argv[1])
