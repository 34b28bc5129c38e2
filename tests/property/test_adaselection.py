"""AdaSelection against a slow twin written from the paper's equations, and its laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subsetopt as so
from subsetopt.policies import ScoredPolicy
from subsetopt.policies.adaselection import AdaSelection

pytestmark = pytest.mark.filterwarnings("ignore:adaselection with beta=")

# The arithmetic is in float64 whatever the losses come in, so both have the same tolerance.
RELATIVE = 1e-9
# Ties of coreset-2 are decided by the last bit of the mean: it has a test of its own.
CANDIDATES = ("big-loss", "small-loss", "uniform", "adaboost", "coreset-1")


def scores_of(name: str, losses: list[float], rng: np.random.Generator) -> list[float]:
    """Return a method's scores (section 3.1, eq. 1)."""
    n = len(losses)
    if name == "uniform":
        return [float(value) for value in rng.random(n)]
    if name == "big-loss":
        return losses
    if name == "small-loss":
        return [-loss for loss in losses]
    if name == "adaboost":
        most = Fraction(max(abs(loss) for loss in losses)) * (1 + Fraction(1, 10**6))
        parts = [Fraction(loss) / most if most else Fraction(0) for loss in losses]
        return [0.5 * math.log((1 + part) / (1 - part)) for part in parts]
    if name == "coreset-2":
        mean = sum(map(Fraction, losses)) / n
        return [-float(abs(loss - mean)) for loss in losses]
    assert name == "coreset-1"
    down = sorted(range(n), key=lambda i: -losses[i])
    turns: list[int] = []
    while down:
        turns.append(down.pop(0))
        if down:
            turns.append(down.pop())
    return [float(n - turns.index(i)) for i in range(n)]


def softmax(scores: list[float]) -> list[float]:
    exact = list(map(Fraction, scores))
    mean = sum(exact) / len(exact)
    variance = sum((s - mean) ** 2 for s in exact) / len(exact)
    powers = [
        math.exp(math.copysign(math.sqrt((s - mean) ** 2 / variance), s - mean) if variance else 0)
        for s in exact
    ]
    return [power / math.fsum(powers) for power in powers]


class Twin:
    """Equations 2 to 6, one sample at a time."""

    def __init__(
        self, names: Sequence[str], beta: float, curriculum: float | None, method_loss: str
    ) -> None:
        self.names, self.beta, self.c, self.method_loss = names, beta, curriculum, method_loss
        self.weights = [1.0 / len(names)] * len(names)
        self.before: list[Fraction] | None = None
        self.floor = Fraction(0)
        self.t = 0

    def step(self, losses: list[float], k: int, rng: np.random.Generator) -> list[float]:
        """Return the final score of every sample at the next iteration."""
        self.t += 1
        n = len(losses)
        exact = list(map(Fraction, losses))
        scores = [scores_of(name, losses, rng) for name in self.names]
        now = []
        for row in scores:
            picked = sorted(range(n), key=lambda i: -row[i])[:k]
            if self.method_loss == "batch":
                picked = list(range(n))
            now.append(sum(exact[i] for i in picked) / len(picked))
        if self.before is not None:
            for m, (new, old) in enumerate(zip(now, self.before, strict=True)):
                self.weights[m] *= math.exp(self.beta * self.change(new, old))
            total = sum(self.weights)
            self.weights = [weight / total for weight in self.weights]
        self.before = now
        self.floor = Fraction(1, 2**23) * sum(map(abs, exact)) / n
        alphas = [softmax(row) for row in scores]
        combined = [
            sum(weight * alpha[i] for weight, alpha in zip(self.weights, alphas, strict=True))
            for i in range(n)
        ]
        return [reward * s for reward, s in zip(self.rewards(exact), combined, strict=True)]

    def change(self, now: Fraction, before: Fraction) -> float:
        difference, base = abs(now - before), max(abs(before), self.floor)
        if not difference:
            return 0.0
        return float(min(Fraction(10), difference / base)) if base else 10.0

    def rewards(self, losses: list[Fraction]) -> list[float]:
        """Return eq. 4, as a multiple of the largest reward."""
        squares = sum(loss**2 for loss in losses)
        if self.c is None or not squares:
            return [1.0] * len(losses)
        pace = Fraction(self.t**self.c)
        powers = [pace * (loss - min(losses)) / squares for loss in losses]
        return [math.exp(-float(min(power, Fraction(1000)))) for power in powers]


def assert_top(expected: list[float], chosen: np.ndarray, k: int) -> None:
    """Check that the chosen are k largest, ties apart (eq. 6)."""
    assert chosen.size == k
    others = np.setdiff1d(np.arange(len(expected)), chosen)
    if k and others.size:
        least, most = min(expected[i] for i in chosen), max(expected[i] for i in others)
        assert least >= most * (1.0 - RELATIVE)


def given_as(kind: str, losses: list[float]) -> Any:
    """Return losses as a NumPy array or a tensor: "numpy float64", "torch float32", ..."""
    library, dtype = kind.split()
    array = np.array(losses, dtype=dtype)
    if library == "torch":
        return pytest.importorskip("torch").from_numpy(array)
    return array


NORMAL = st.floats(0.0, 8.0, width=32).filter(lambda v: v == 0.0 or v > 1e-30)
LEVELS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0])
BATCH = st.one_of(
    st.lists(NORMAL, min_size=1, max_size=9),
    st.lists(LEVELS, min_size=1, max_size=9),
    st.lists(st.sampled_from([-2.0, -0.5, 0.0, 1.0, 3.0]), min_size=1, max_size=9),
    st.lists(NORMAL, min_size=2, max_size=9).map(lambda batch: [1e6, *batch[1:]]),
)
EXTREME = st.tuples(BATCH, st.sampled_from([1e-120, 1e-8, 1.0, 1e120, 1e300])).map(
    lambda drawn: [value * drawn[1] for value in drawn[0]]
)
SETTINGS = st.tuples(
    st.lists(st.sampled_from(CANDIDATES), min_size=1, max_size=4),
    st.floats(-1.0, 1.0),
    st.one_of(st.none(), st.floats(-2.0, -0.01)),
    st.sampled_from(["picked", "batch"]),
)


def check_against_the_twin(
    options: tuple[list[str], float, float | None, str],
    batches: list[list[float]],
    k: int,
    kind: str = "numpy float64",
) -> None:
    policy, twin = AdaSelection(*options), Twin(*options)  # type: ignore[arg-type]
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    for losses in batches:
        size = min(k, len(losses))
        problem = policy.propose({"losses": given_as(kind, losses)}, size, ours)
        expected = twin.step(losses, size, theirs)
        assert isinstance(problem.objective, so.WeightedScores)
        np.testing.assert_allclose(list(policy.weights.values()), twin.weights, rtol=RELATIVE)
        np.testing.assert_allclose(problem.objective.scores, expected, rtol=RELATIVE, atol=1e-300)
        assert_top(expected, so.solve(problem).require().indices, size)
    assert [t for t, _ in policy.history] == list(range(1, len(batches) + 1))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("dtype", "losses"), [("float64", EXTREME), ("float32", BATCH)])
@given(options=SETTINGS, k=st.integers(1, 9), data=st.data())
@settings(max_examples=100)
def test_against_the_twin(
    library: str,
    dtype: str,
    losses: st.SearchStrategy[list[float]],
    options: tuple[list[str], float, float | None, str],
    k: int,
    data: st.DataObject,
) -> None:
    batches = data.draw(st.lists(losses, min_size=1, max_size=6))
    check_against_the_twin(options, batches, k, f"{library} {dtype}")


@pytest.mark.parametrize("kind", ["numpy float64", "torch float64"])
def test_with_coreset_2_on_losses_without_ties(kind: str) -> None:
    rng = np.random.default_rng(8)
    batches = [rng.exponential(size=20).tolist() for _ in range(12)]
    names = ["big-loss", "coreset-1", "coreset-2", "uniform"]
    check_against_the_twin((names, 0.7, -0.3, "picked"), batches, 6, kind)


def run(policy: AdaSelection, batches: list[list[float]], k: int = 2) -> list[list[float]]:
    """Return the weights after every batch."""
    rng = np.random.default_rng(0)
    weights = []
    for losses in batches:
        policy.propose({"losses": np.array(losses)}, min(k, len(losses)), rng)
        weights.append(list(policy.weights.values()))
    return weights


@given(options=SETTINGS, batches=st.lists(BATCH, min_size=1, max_size=8), k=st.integers(1, 9))
def test_weights_are_positive_and_sum_to_1(
    options: tuple[list[str], float, float | None, str], batches: list[list[float]], k: int
) -> None:
    policy = AdaSelection(*options)  # type: ignore[arg-type]
    for weights in run(policy, batches, k):
        assert min(weights) > 0.0
        assert abs(sum(weights) - 1.0) < 1e-12


@given(
    name=st.sampled_from(["big-loss", "small-loss", "adaboost", "coreset-1", "coreset-2"]),
    count=st.integers(2, 4),
    beta=st.floats(-1.0, 1.0),
    batches=st.lists(BATCH, min_size=2, max_size=8),
)
def test_identical_candidates_keep_equal_weights(
    name: str, count: int, beta: float, batches: list[list[float]]
) -> None:
    policy = AdaSelection([name] * count, beta=beta)
    assert policy.names == (name, *(f"{name}-{i}" for i in range(2, count + 1)))
    for weights in run(policy, batches):
        assert len(set(weights)) == 1


@given(options=SETTINGS, batches=st.lists(BATCH, min_size=2, max_size=8))
def test_the_batchs_loss_leaves_all_weights_equal(
    options: tuple[list[str], float, float | None, str], batches: list[list[float]]
) -> None:
    names, beta, curriculum, _ = options
    policy = AdaSelection(names, beta, curriculum, method_loss="batch")
    for weights in run(policy, batches):
        assert len(set(weights)) == 1


@given(batches=st.lists(BATCH, min_size=2, max_size=8))
def test_beta_0_leaves_all_weights_equal(batches: list[list[float]]) -> None:
    for weights in run(AdaSelection(beta=0), batches):
        assert len(set(weights)) == 1


@given(
    batches=st.lists(BATCH, min_size=2, max_size=6), factor=st.sampled_from([2.0**-60, 0.5, 2.0**9])
)
def test_the_weights_do_not_depend_on_the_losses_unit(
    batches: list[list[float]], factor: float
) -> None:
    scaled = [[factor * loss for loss in batch] for batch in batches]
    assert run(AdaSelection(), batches) == run(AdaSelection(), scaled)


@given(beta=st.floats(0.05, 1.0), sign=st.sampled_from([1, -1]))
def test_beta_says_whether_change_is_rewarded(beta: float, sign: int) -> None:
    """The mean of the largest doubles, that of the smallest stays."""
    policy = AdaSelection(["big-loss", "small-loss"], beta=sign * beta)
    weights = run(policy, [[1.0, 2.0, 3.0], [1.0, 2.0, 6.0]], k=1)[-1]
    ratio = weights[0] / weights[1]
    assert math.isclose(ratio, math.exp(sign * beta), rel_tol=1e-12)


@given(low=st.floats(1e-6, 1.0), high=st.sampled_from([1e3, 1e30, 1e300]))
def test_a_change_counts_at_most_tenfold(low: float, high: float) -> None:
    policy = AdaSelection(["big-loss", "small-loss"], beta=1.0)
    weights = run(policy, [[low, low], [low, high]], k=1)[-1]
    assert math.isclose(weights[0] / weights[1], math.exp(10.0), rel_tol=1e-9)


def test_a_loss_below_the_datas_precision_counts_as_0() -> None:
    """Small losses of a float32 batch flicker between 0 and a rounding error."""
    policy = AdaSelection(["big-loss", "small-loss"], beta=1.0)
    run(policy, [[0.0, 1.0], [1e-12, 1.0], [0.0, 1.0]], k=1)
    assert abs(policy.weights["small-loss"] - 0.5) < 1e-4
    policy = AdaSelection(["big-loss", "small-loss"], beta=1.0)
    run(policy, [[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]], k=1)  # nothing to divide by
    assert math.isclose(policy.weights["big-loss"], 1.0 / (1.0 + math.exp(-10.0)))


@given(batches=st.lists(BATCH, min_size=1, max_size=5), seed=st.integers(0, 99))
def test_order_of_the_samples_does_not_matter(batches: list[list[float]], seed: int) -> None:
    names = ["big-loss", "small-loss", "adaboost"]
    first, second = AdaSelection(names), AdaSelection(names)
    rng = np.random.default_rng(0)
    for losses in batches:
        order = np.random.default_rng(seed).permutation(len(losses))
        array = np.array(losses)
        plain = first.propose({"losses": array}, 1, rng).objective.scores  # type: ignore[attr-defined]
        moved = second.propose({"losses": array[order]}, 1, rng).objective.scores  # type: ignore[attr-defined]
        np.testing.assert_allclose(moved, plain[order], rtol=1e-9, atol=1e-300)


class Backwards(ScoredPolicy):
    """Scores by position, the last first."""

    def scores(self, signals: Any, k: int, rng: np.random.Generator) -> np.ndarray:
        return np.arange(len(signals["losses"]), dtype=np.float32)


def test_one_candidate_without_a_reward_chooses_as_it_does_alone() -> None:
    losses = np.random.default_rng(1).exponential(size=15)
    makers: list[Callable[[], Any]] = [
        Backwards,
        *(lambda name=name: so.make_policy(name) for name in (*CANDIDATES, "coreset-2")),
    ]
    for make in makers:
        alone = make().propose({"losses": losses}, 5, np.random.default_rng(2))
        policy = AdaSelection([make()], curriculum=None)
        combined = policy.propose({"losses": losses}, 5, np.random.default_rng(2))
        np.testing.assert_array_equal(so.solve(alone).indices, so.solve(combined).indices)
