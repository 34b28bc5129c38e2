"""Sampling designs: probabilities, sizes, balance, what a draw is worth and what it takes.

``p`` counts the columns of ``balance``. The library balances the size besides, always, so that a
flight leaves at most p + 1 candidates undecided.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.command import command
from benchmarks.harness.output import Result, bar, us
from benchmarks.harness.stats import quantiles
from benchmarks.rivals.cube_numpy import plain_cube
from subsetopt.kernels.designs import cube as kernel
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.designs import Cube, Flight

_ERRORS = 4.5  # the largest deviation of a frequency or a mean, in standard errors
_AT = (0.5, 0.9, 0.99, 1.0)
_PLAIN = "cube in NumPy"
# Rounding may move a total by this share of the total of magnitudes.
_ROUNDING = 1e-9
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Design:
    """Losses, inclusion probabilities and balancing variables; the first of these is the loss."""

    kind: str
    n: int
    k: int
    p: int
    losses: Vector
    inclusion: Vector
    balance: NDArray[np.float64] | None

    @classmethod
    def make(cls, kind: str, n: int, k: int, p: int, seed: int = 0) -> Design:
        rng = np.random.default_rng((seed, n, k))
        losses = rng.exponential(size=n)
        inclusion = _KINDS[kind](rng, losses, k)
        more = [rng.normal(size=n) * (1 + losses) ** (j % 2) for j in range(p - 1)]
        balance = np.column_stack([losses, *more]) if p else None
        return cls(kind, n, k, p, losses, inclusion, balance)

    def problem(self) -> so.Problem:
        return so.Problem(so.SamplingDesign(self.inclusion, self.balance), self.k)

    def with_replacement(self) -> so.Problem:
        return so.Problem(so.SamplingDesign(self.inclusion, replacement=True), self.k)

    def error(self, indices: NDArray[np.int64], weights: Vector) -> float:
        """Return by how much the weighted loss misses the batch mean, relative to it."""
        return float(weights @ self.losses[indices] / self.losses.mean() - 1.0)


def _mixed(rng: np.random.Generator, losses: Vector, k: int) -> Vector:
    scores = losses * np.exp(0.3 * rng.normal(size=losses.size))
    return so.inclusion_probabilities(0.8 * scores / scores.mean() + 0.2, k)


def _pure(rng: np.random.Generator, losses: Vector, k: int) -> Vector:
    return so.inclusion_probabilities(losses * np.exp(0.3 * rng.normal(size=losses.size)), k)


def _constant(rng: np.random.Generator, losses: Vector, k: int) -> Vector:
    return so.inclusion_probabilities(np.ones(losses.size), k)


def _extreme(rng: np.random.Generator, losses: Vector, k: int) -> Vector:
    """Return probabilities of 0.005 and 0.995 for half of the candidates; n is even."""
    n, ends = losses.size, losses.size // 2
    near = np.where(np.arange(ends) < k // 2, 0.995, 0.005)
    rest = 0.2 + rng.random(n - ends)
    return rng.permutation(np.append(near, rest * ((k - near.sum()) / rest.sum())))


_KINDS: dict[str, Callable[[np.random.Generator, Vector, int], Vector]] = {
    "mixed": _mixed,
    "pure": _pure,
    "constant": _constant,
    "near 0 and 1": _extreme,
}
_FREQUENCIES = (
    ("mixed", 32, 8, 1), ("mixed", 64, 13, 2), ("mixed", 128, 13, 2), ("mixed", 128, 13, 6),
    ("mixed", 128, 64, 2), ("mixed", 512, 51, 2), ("constant", 64, 16, 0), ("constant", 64, 16, 2),
    ("near 0 and 1", 64, 20, 1), ("near 0 and 1", 64, 20, 4),
)  # fmt: skip
_BALANCE = (
    ("mixed", 128, 13, 1), ("mixed", 128, 13, 2), ("mixed", 128, 13, 5), ("pure", 128, 13, 2),
    ("constant", 128, 13, 2), ("mixed", 1024, 102, 2), ("mixed", 1024, 102, 10),
)  # fmt: skip
_WORTH = ((128, 13, 0.03), (1024, 102, 0.005))
# Each row is (n, k, balancing variables, target in seconds); for a batch of 128, 60 us are a tenth
# of its forward pass.
_SPEED = ((128, 13, 1, 60e-6), (128, 13, 2, 60e-6), (1024, 102, 2, None), (4096, 410, 10, 10e-3))


@command
def designs(
    draws: Annotated[int, typer.Option(help="Draws of each design.")] = 20_000,
    batches: Annotated[int, typer.Option(help="Batches whose mean loss is estimated.")] = 400,
    repeats: Annotated[int, typer.Option(help="Calls that are timed.")] = 400,
) -> Result:
    """Sampling designs: probabilities, sizes, balance, spread and speed."""
    so.warmup()
    settings = {"draws": draws, "batches": batches, "repeats": repeats, "k/n": "about 0.1"}
    result = Result("designs", "Sampling designs", settings)
    _frequencies(result, draws)
    _balanced(result, max(1, draws // 10))
    _worth(result, batches)
    _spread(result, draws)
    _speed(result, repeats)
    result.notes.append(
        "p counts the balancing variables; the size is balanced besides. Relative deviations are "
        "those of the Horvitz-Thompson total, over the total of magnitudes. Times are those of the "
        f"wall clock; of {_PLAIN}, the processor's, because others interrupt so long a call."
    )
    return result


def _frequencies(result: Result, draws: int) -> None:
    """Check how often every candidate is drawn, and every size."""
    rows, wrong = [], 0
    worst: dict[str, float] = {}
    kinds = [(*case, order) for case in _FREQUENCIES for order in ("closest-last", "random")]
    with bar() as progress:
        for kind, n, k, p, order in progress.track(kinds, description="Frequencies"):
            design = Design.make(kind, n, k, p)
            off, sizes = _counted(design, order, draws)
            wrong += sizes
            worst[order] = max(worst.get(order, 0.0), off)
            low, high = (float(end(design.inclusion)) for end in (np.min, np.max))
            rows.append([kind, n, k, p, order, low, high, off])
    columns = ("probabilities", "n", "k", "p", "order", "least pi", "largest pi", "worst z")
    result.table(f"cube: inclusion frequencies over {draws:,} draws", columns, rows)
    for order, off in worst.items():
        what = f"cube, {order}: worst inclusion frequency"
        result.check(what, off, _ERRORS, "standard errors", least=False)
    result.check("cube: draws of another size", wrong, 0, f"of {draws * len(rows):,}", least=False)


def _counted(design: Design, order: str, draws: int) -> tuple[float, int]:
    """Return by how many standard errors a frequency is off at most, and draws of a wrong size."""
    problem, counts, wrong = design.problem(), np.zeros(design.n), 0
    for i in range(draws):
        chosen = so.solve(problem, "cube", seed=i, options={"order": order}).indices
        wrong += np.unique(chosen).size != design.k
        counts[chosen] += 1
    pi = design.inclusion
    checked = (pi >= 0.005 - 1e-12) & (pi <= 0.995 + 1e-12)
    error = np.sqrt(pi * (1.0 - pi) / draws)
    return float((np.abs(counts / draws - pi) / np.where(checked, error, np.inf)).max()), wrong


def _balanced(result: Result, draws: int) -> None:
    """Show how far every balanced total is off, and check it against what the landing allows."""
    rows, over, most = [], 0.0, 0
    with bar() as progress:
        for kind, n, k, p in progress.track(_BALANCE, description="Balance"):
            design = Design.make(kind, n, k, p)
            off, bounds, left = _landed(design, draws)
            most = max(most, left - p - 1)
            over = max(over, float((off / (bounds + _ROUNDING)).max()))
            limit = landing_bound(design, np.flatnonzero(design.inclusion < 1.0))
            for j in range(p):
                rows.append([kind, n, k, p, j + 1, *quantiles(off[:, j].tolist(), _AT),
                             float(np.median(bounds[:, j])), float(limit[j])])  # fmt: skip
    columns = ("probabilities", "n", "k", "p", "variable", *(f"{at:.0%}" for at in _AT),
               "median bound", "bound of all")  # fmt: skip
    result.table(f"cube: relative deviations of totals, {draws:,} draws", columns, rows)
    result.check("cube: undecided at the landing, beyond p + 1", most, 0, "", least=False)
    result.check("cube: deviation / what the landing allows", over, 1.0, "x", least=False)


def _landed(design: Design, draws: int) -> tuple[Vector, Vector, int]:
    """Return deviations and bounds (draws, p), and the most candidates left to the landing."""
    sampling, balance, left = so.SamplingDesign(design.inclusion, design.balance), design.balance, 0
    assert balance is not None
    means, sizes = balance.mean(axis=0), np.abs(balance).mean(axis=0)
    off, bounds = np.empty((2, draws, design.p))
    for i in range(draws):
        flight = Flight(sampling, np.array([i], dtype=np.uint64), closest_last=True)
        flight.run(SolveContext(entropy=i))
        undecided = flight.units[(flight.pi > 0.0) & (flight.pi < 1.0)]
        chosen = flight.finish(design.k, balanced=True)
        weights = sampling.weights_for(chosen, design.k)
        off[i] = np.abs(weights @ balance[chosen] - means) / sizes
        bounds[i] = landing_bound(design, undecided)
        left = max(left, undecided.size)
    return off, bounds, left


def landing_bound(design: Design, units: NDArray[np.int64]) -> Vector:
    """Return by how much the landing may move each total, relative to that of magnitudes.

    The flight keeps every total. The landing turns the probability pi*_i of an undecided unit into
    s_i, 0 or 1, and moves the total of x_j by the sum of d_i r_i, with d_i = s_i - pi*_i in
    (-1, 1) and r_i = x_ij / pi_i. It gives up the variables from the last to the first: x_j is
    kept until it is the last one left, that is until a vector in the null space of the size and
    x_1 .. x_(j-1) decides, for which at most j + 1 units are undecided. The size is kept
    to the end, so the d_i sum to 0, and the largest sum pairs the largest ratios with the
    smallest: with h = floor((j + 1) / 2) pairs it is at most the sum of the h largest r_i less
    that of the h smallest. (Without the size it would be the sum of the j + 1 largest |r_i|.)
    """
    bounds = np.zeros(design.p)
    if design.balance is None or not units.size:
        return bounds
    ratios = np.sort(design.balance[units] / design.inclusion[units, None], axis=0)
    for j in range(design.p):
        pairs = min((j + 2) // 2, units.size // 2)
        spread = ratios[units.size - pairs :, j].sum() - ratios[:pairs, j].sum()
        bounds[j] = spread / np.abs(design.balance[:, j]).sum()
    return bounds


def _worth(result: Result, batches: int) -> None:
    """Check the error of the estimated mean loss where probabilities go with the loss."""
    rows = []
    for n, k, wanted in _WORTH:
        plain = [
            _random_error(Design.make("mixed", n, k, 1, seed), seed) for seed in range(batches)
        ]
        rows.append(["random subset", n, k, "-", *quantiles(plain, _AT)])
        for kind in ("mixed", "pure"):
            for p in (1, 2):
                off = [
                    _cube_error(Design.make(kind, n, k, p, seed), seed) for seed in range(batches)
                ]
                rows.append([f"cube, {kind}", n, k, p, *quantiles(off, _AT)])
                what = f"n={n:,}, k={k}, {kind}, p={p}: median error of the mean loss"
                result.check(what, float(np.median(off)), wanted, "", least=False)
    columns = ("draw", "n", "k", "p", *(f"{at:.0%}" for at in _AT))
    result.table("Relative error of the estimated mean loss, one draw a batch", columns, rows)


def _random_error(design: Design, seed: int) -> float:
    chosen = np.random.default_rng((seed, 1)).choice(design.n, design.k, replace=False)
    return abs(design.error(chosen, np.full(design.k, 1.0 / design.k)))


def _cube_error(design: Design, seed: int) -> float:
    answer = so.solve(design.problem(), "cube", seed=seed)
    return abs(design.error(answer.indices, answer.weights))


def ways(design: Design) -> dict[str, Callable[[int], tuple[NDArray[np.int64], Vector]]]:
    """Return every way to draw, by name: from a seed to indices and weights."""
    once, repeated = design.problem(), design.with_replacement()
    x = np.ones((design.n, 0)) if design.balance is None else design.balance
    equal = np.full(design.k, 1.0 / design.k)

    def solver(problem: so.Problem, name: str) -> Callable[[int], Any]:
        def drawn(seed: int) -> tuple[NDArray[np.int64], Vector]:
            answer = so.solve(problem, name, seed=seed)
            return answer.indices, answer.weights

        return drawn

    def plain(seed: int) -> tuple[NDArray[np.int64], Vector]:
        chosen = plain_cube(x, design.inclusion, np.random.default_rng(seed))
        return chosen, 1.0 / (design.n * design.inclusion[chosen])

    def subset(seed: int) -> tuple[NDArray[np.int64], Vector]:
        return np.random.default_rng(seed).choice(design.n, design.k, replace=False), equal

    return {
        "random subset": subset,
        "multinomial": solver(repeated, "multinomial"),
        "systematic": solver(once, "systematic"),
        "cube": solver(once, "cube"),
        _PLAIN: plain,
    }


def _spread(result: Result, draws: int) -> None:
    """Compare the ways to draw: bias, spread of the estimated mean loss, time."""
    for n, k, p in ((128, 13, 2), (1024, 102, 2)):
        design, rows = Design.make("mixed", n, k, p), []
        for name, way in ways(design).items():
            # The textbook's method is a hundred times slower, so fewer draws estimate its spread.
            count = max(2, draws // 20) if name == _PLAIN else draws
            errors, seconds = _drawn(design, way, count, _clock(name))
            bias = float(np.mean(errors)) / (np.std(errors) / np.sqrt(count))
            rows.append([name, count, float(np.std(errors)), float(np.median(np.abs(errors))),
                         bias, us(seconds)])  # fmt: skip
            if n == 128 and name in ("multinomial", "systematic", "cube"):
                what = f"{name}: mean of the weighted loss"
                result.check(what, abs(bias), _ERRORS, "standard errors", least=False)
        columns = ("draw", "draws", "spread", "median error", "bias, z", "median time")
        result.table(f"Estimated mean loss of one batch, n={n:,}, k={k}, p={p}", columns, rows)


def _clock(name: str) -> Callable[[], float]:
    """Return the processor's time for calls so long that other processes interrupt them."""
    return time.thread_time if name == _PLAIN else time.perf_counter


def _drawn(
    design: Design, way: Callable[[int], Any], count: int, clock: Callable[[], float]
) -> tuple[list[float], float]:
    errors, seconds = [], []
    for seed in range(count):
        start = clock()
        indices, weights = way(seed)
        seconds.append(clock() - start)
        errors.append(design.error(indices, weights))
    return errors, median(seconds)


def _speed(result: Result, repeats: int) -> None:
    rows = []
    for n, k, p, wanted in _SPEED:
        design = Design.make("mixed", n, k, p)
        kernels, solves, calls, plains = _timed(design, repeats if n < 4096 else repeats // 8 + 1)
        ratio = plains / calls
        rows.append([n, k, p, us(kernels), us(solves), us(calls), us(plains), ratio])
        if wanted is not None:
            for what, seconds in (("kernel", kernels), ("whole call", calls)):
                name = f"n={n:,}, p={p}: {what}, median"
                result.check(name, seconds * 1e6, wanted * 1e6, "us", least=False)
    columns = ("n", "k", "p", "kernels", "Cube().solve", "so.solve", _PLAIN,
               "NumPy / so.solve")  # fmt: skip
    result.table("Time of a draw by cube, medians", columns, rows)


def _timed(design: Design, repeats: int) -> tuple[float, float, float, float]:
    """Return medians of kernels, solver, whole call and NumPy, in turn: noise hits all alike."""
    problem, plain = design.problem(), ways(design)[_PLAIN]
    kernels, solves, calls, plains = [], [], [], []
    for i in range(repeats):
        context = SolveContext(entropy=i)
        solves.append(_seconds(Cube().solve, problem, context))
        calls.append(_seconds(so.solve, problem, "cube", seed=i))
        kernels.append(kernel_seconds(Cube().solve, problem, context))
        if i % 20 == 0:
            start = _clock(_PLAIN)()
            plain(i)
            plains.append(_clock(_PLAIN)() - start)
    return median(kernels), median(solves), median(calls), median(plains)


def _seconds(call: Callable[..., Any], *arguments: Any, **keywords: Any) -> float:
    start = time.perf_counter()
    call(*arguments, **keywords)
    return time.perf_counter() - start


def kernel_seconds(call: Callable[..., Any], *arguments: Any) -> float:
    """Return the time inside the kernels of the cube during a call."""
    inside, names = 0.0, ("draw", "add_column", "restart", "fly", "land")
    own = {name: getattr(kernel, name) for name in names}

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            outcome = work(*arguments)
            inside += time.perf_counter() - start
            return outcome

        return run

    try:
        for name, work in own.items():
            setattr(kernel, name, timed(work))
        call(*arguments)
    finally:
        for name, work in own.items():
            setattr(kernel, name, work)
    return inside
