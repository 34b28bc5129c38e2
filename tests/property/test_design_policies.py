"""importance, balanced and gradient-matching against slow twins of the papers' equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import subsetopt as so
from subsetopt.policies import Feedback, SelectionState, as_float64, make_policy
from subsetopt.policies.parts.sample_scores import mixed_scores, normalized_scores, tau_estimate
from subsetopt.policies.parts.weight_cap import WeightCap

torch = pytest.importorskip("torch")

KINDS: dict[str, Callable[[np.ndarray], Any]] = {"numpy": np.asarray, "torch": torch.as_tensor}
RTOL = {"float32": 1e-4, "float64": 1e-9}
# No score that float32 would round to 0: scores of 0 are drawn separately.
ELEMENTS = st.one_of(
    st.floats(2.0**-90, 10.0),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.floats(2.0**-90, 2.0**90, width=32),
)


def scores(min_size: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Draw scores: generic, tied, zero, far apart; some all 0."""
    drawn = hnp.arrays(np.float64, st.integers(min_size, 20), elements=ELEMENTS)
    return st.one_of(drawn, drawn.map(np.zeros_like))


def shares(values: np.ndarray) -> list[Fraction]:
    """Return g of algorithm 1, line 7, in exact arithmetic; uniform where there is nothing."""
    exact = [Fraction(float(value)) for value in values]
    if sum(exact) == 0:
        exact = [Fraction(1)] * len(exact)
    return [value / sum(exact) for value in exact]


def tau_twin(values: np.ndarray) -> float:
    """Return tau as eq. 26 prints it."""
    g = shares(values)
    u = Fraction(1, len(g))
    distance = sum((share - u) ** 2 for share in g)
    return 1.0 / math.sqrt(1 - 1 / sum(share**2 for share in g) * distance)


def inclusion_twin(values: np.ndarray, mix: float, k: int) -> list[float]:
    """Return inclusion probabilities by capping one round after the other, exactly."""
    n, m = len(values), Fraction(mix)
    exact = [Fraction(float(value)) for value in values]
    mean = sum(exact) / n
    mixed = [(1 - m) * value / mean + m if mean else Fraction(1) for value in exact]
    positive = sum(value > 0 for value in mixed)
    if positive <= k:
        return [1.0 if v > 0 else (k - positive) / (n - positive) for v in mixed]
    capped = [False] * n
    while True:
        rest = sum(v for v, full in zip(mixed, capped, strict=True) if not full)
        left = k - sum(capped)
        pi = [
            Fraction(1) if full else v * left / rest for v, full in zip(mixed, capped, strict=True)
        ]
        if all(share <= 1 for share in pi):
            return [float(share) for share in pi]
        capped = [full or share > 1 for full, share in zip(capped, pi, strict=True)]


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("kind", KINDS)
@given(values=scores())
def test_probabilities_and_tau_are_those_of_the_paper(
    kind: str, dtype: str, values: np.ndarray
) -> None:
    scored = KINDS[kind](values.astype(dtype))
    g = normalized_scores(as_float64(scored))
    np.testing.assert_allclose(g, [float(share) for share in shares(values)], rtol=RTOL[dtype])
    assert tau_estimate(scored) == pytest.approx(tau_twin(values), rel=RTOL[dtype])
    assert 1.0 <= tau_estimate(scored) <= math.sqrt(values.size)


@given(values=scores(), scale=st.sampled_from([1e-300, 1e-10, 1e10, 1e280]))
def test_tau_has_no_unit(values: np.ndarray, scale: float) -> None:
    values = np.where(values > 0.0, 0.1 + values % 10.0, 0.0)
    assert tau_estimate(values * scale) == pytest.approx(tau_estimate(values), rel=1e-9)


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("kind", KINDS)
@given(values=scores(), seed=st.integers(0, 99), data=st.data())
def test_weights_are_those_of_line_9(
    kind: str, dtype: str, values: np.ndarray, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, values.size))
    policy = make_policy("importance", tau_threshold=0.5)
    policy.tau = 1.0  # type: ignore[attr-defined]
    signals = {"upper_bound": KINDS[kind](values.astype(dtype))}
    problem = policy.propose(signals, k, np.random.default_rng(0))
    assert problem.objective.replacement  # type: ignore[attr-defined]
    drawn = so.solve(problem, seed=seed).require()
    assert drawn.indices.size == k
    g, size = shares(values), len(values)
    expected = [float(1 / (size * g[i] * k)) for i in drawn.indices]
    np.testing.assert_allclose(policy.weigh(drawn), expected, rtol=RTOL[dtype])  # type: ignore[attr-defined]


class AlgorithmOne:
    """Lines 2 to 18 of algorithm 1, sample by sample; b, B and the scores come from outside."""

    def __init__(self, threshold: float, momentum: float) -> None:
        self.tau, self.threshold, self.momentum = 0.0, threshold, momentum

    def step(self, trained: np.ndarray, presampled: np.ndarray) -> bool:
        on = self.tau > self.threshold
        estimate = tau_twin(presampled if on else trained)
        self.tau = self.momentum * self.tau + (1.0 - self.momentum) * estimate
        return on


@pytest.mark.parametrize("score", ["upper_bound", "loss"])
@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("kind", KINDS)
@given(
    steps=st.lists(
        st.tuples(hnp.arrays(np.float64, 9, elements=ELEMENTS), st.integers(0, 2**32)), max_size=12
    ),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_it_runs_as_algorithm_1_does(
    score: str, dtype: str, kind: str, steps: list[tuple[np.ndarray, int]], momentum: float
) -> None:
    make, b, n = KINDS[kind], 9, 27
    policy = make_policy("importance", score=score, momentum=momentum)
    twin = AlgorithmOne((n + 3 * b) / (3 * b), momentum)
    name = {"upper_bound": "upper_bound", "loss": "losses"}[score]
    for number, (trained, seed) in enumerate(steps):
        trained = trained.astype(dtype)
        presampled = np.random.default_rng(seed).exponential(size=n).astype(dtype) ** 4
        on = policy.needs_scoring(SelectionState(number, n, b))
        signals = {name: make(presampled)} if on else {"positions": np.arange(n)}
        problem = policy.propose(signals, b, np.random.default_rng(seed))
        assert isinstance(problem.objective, so.SamplingDesign) is on
        losses = make(trained) if score == "loss" else make(np.ones(b, dtype=dtype))
        policy.observe(
            Feedback(number, None, None, losses, signals={"upper_bound": make(trained)}, scored=on)
        )
        assert twin.step(trained, presampled) is on
        tau = policy.tau  # type: ignore[attr-defined]
        assert tau == pytest.approx(twin.tau, rel=RTOL[dtype])
        assert policy.history[-1] == (number, tau, on)  # type: ignore[attr-defined]
        # The last bit of a tie must not decide what the next step does.
        twin.tau = tau


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("kind", KINDS)
@given(values=scores(), mix=st.sampled_from([0.0, 0.1, 0.5, 1.0]), data=st.data())
def test_inclusion_probabilities_of_balanced(
    kind: str, dtype: str, values: np.ndarray, mix: float, data: st.DataObject
) -> None:
    values = np.where(values < 1e-12, 0.0, values).astype(dtype)
    n = values.size
    k = data.draw(st.integers(0, n))
    losses = np.linspace(0.0, 2.0, n).astype(dtype)
    gradients = np.cos(np.arange(3 * n).reshape(n, 3)).astype(dtype)
    make = KINDS[kind]
    policy = make_policy("balanced", mix=mix, balance="logit_gradients", max_weight=None)
    signals = {
        "upper_bound": make(values),
        "losses": make(losses),
        "logit_gradients": make(gradients),
    }
    design = policy.propose(signals, k, np.random.default_rng(0)).objective
    assert isinstance(design, so.SamplingDesign) and not design.replacement
    np.testing.assert_allclose(
        design.inclusion, inclusion_twin(values, mix, k), rtol=RTOL[dtype], atol=1e-15
    )
    assert design.balance is not None
    assert np.array_equal(design.balance, np.column_stack([losses, gradients]))


@given(values=scores(), mix=st.floats(0.0, 1.0))
def test_mixed_scores_have_mean_1(values: np.ndarray, mix: float) -> None:
    mixed = mixed_scores(values, mix)
    assert mixed.mean() == pytest.approx(1.0)
    assert mixed.min() >= mix * (1.0 - 1e-12)


@given(seed=st.integers(0, 99), k=st.integers(1, 12), data=st.data())
def test_weights_of_balanced_are_horvitz_thompson_up_to_the_cap(
    seed: int, k: int, data: st.DataObject
) -> None:
    limit = data.draw(st.none() | st.sampled_from([1.0, 2.0, 5.0]))
    rng = np.random.default_rng(seed)
    bounds, losses = rng.exponential(size=24) ** 3, rng.exponential(size=24)
    policy = make_policy("balanced", mix=0.0, max_weight=limit)
    problem = policy.propose({"upper_bound": bounds, "losses": losses}, k, rng)
    drawn = so.solve(problem, seed=seed).require()
    pi = inclusion_twin(bounds, 0.0, k)
    plain = [1.0 / (24 * pi[i]) for i in drawn.indices]
    expected = [w if limit is None else min(w, limit / k) for w in plain]
    np.testing.assert_allclose(policy.weigh(drawn), expected, rtol=1e-9)  # type: ignore[attr-defined]
    record = policy.last_clipped  # type: ignore[attr-defined]
    assert record.samples == sum(e < p * (1 - 1e-12) for e, p in zip(expected, plain, strict=True))
    assert record.weight == pytest.approx(sum(plain) - sum(expected), abs=1e-12)


@given(
    rounds=st.lists(
        hnp.arrays(np.float64, st.integers(0, 6), elements=st.floats(0.0, 9.0)), max_size=5
    ),
    limit=st.sampled_from([None, 1.0, 3.0]),
)
def test_the_record_of_a_cap_adds_up(rounds: list[np.ndarray], limit: float | None) -> None:
    cap, samples, weight = WeightCap(limit), 0, 0.0
    for weights in rounds:
        before = weights.copy()
        after = cap(weights)
        assert np.array_equal(weights, before)
        assert (after <= weights).all()
        samples += int((after < weights).sum())
        weight += float((weights - after).sum())
    assert cap.total.samples == samples
    assert cap.total.weight == pytest.approx(weight)
    assert cap.total.selections == len(rounds)


@pytest.mark.parametrize("signal", ["logit_gradients", "last_layer_gradients"])
@pytest.mark.parametrize("weights", ["uniform", "nonnegative"])
@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 99), n=st.integers(1, 9), d=st.integers(1, 4), data=st.data())
def test_gradient_matching_is_the_distance_of_the_mean_gradients(
    signal: str,
    weights: str,
    dtype: str,
    kind: str,
    seed: int,
    n: int,
    d: int,
    data: st.DataObject,
) -> None:
    k, total = data.draw(st.integers(1, n)), data.draw(st.booleans())
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d))
    policy = make_policy("gradient-matching", signal=signal, weights=weights, total=total)
    signals = {signal: KINDS[kind](vectors.astype(dtype))}
    problem = policy.propose(signals, k, rng)
    drawn = so.solve(problem, seed=seed).require()
    assert drawn.indices.size <= k and (drawn.indices.size == k or weights == "nonnegative")
    chosen = list(zip(drawn.indices, drawn.weights, strict=True))
    missed = [
        math.fsum(vectors[:, j]) / n - math.fsum(w * vectors[i, j] for i, w in chosen)
        for j in range(d)
    ]
    unit = math.fsum(math.hypot(*row) for row in vectors) / n
    if weights == "nonnegative" and total:
        missed.append(unit * (1.0 - math.fsum(drawn.weights)))
    size = unit * max(1.0, math.fsum(drawn.weights))
    assert drawn.objective == pytest.approx(
        math.hypot(*missed), rel=RTOL[dtype], abs=RTOL[dtype] * size
    )
    if weights == "nonnegative" and k >= d + total:
        assert drawn.objective <= 10 * RTOL[dtype] * size
