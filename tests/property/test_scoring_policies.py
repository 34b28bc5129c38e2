"""Scores of policies against slow twins written from the papers' equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import losses as loss_vectors

import subsetopt as so
from subsetopt.policies import ScoredPolicy, make_policy, to_host, uncertainty_scores

torch = pytest.importorskip("torch")

KINDS: dict[str, Callable[[np.ndarray], Any]] = {"numpy": np.asarray, "torch": torch.as_tensor}
RTOL = {"float32": 1e-4, "float64": 1e-9}
DIGITS = 400  # of the twins: 1 - P of a sure sample loses its first hundred
SCORES = ("confidence", "margin", "entropy")

every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", RTOL)


def scores(policy: str, k: int = 1, **signals: Any) -> np.ndarray:
    made = make_policy(policy)
    assert isinstance(made, ScoredPolicy)
    return np.asarray(to_host(made.scores(signals, k, np.random.default_rng(0))))


# Losses as training has them: at least 0, tied, far apart.
LOSSES = hnp.arrays(
    np.float64,
    st.integers(1, 12),
    elements=st.one_of(st.floats(0.0, 20.0, width=32), st.sampled_from([0.0, 1.0, 1e-30, 1e30])),
)


def on_losses(test: Callable[..., None]) -> Callable[..., None]:
    """Give a test losses of every kind and dtype."""
    return every_kind(every_dtype(given(values=LOSSES)(test)))


LOGITS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(2, 5)),
    elements=st.one_of(st.floats(-40.0, 40.0, width=32), st.sampled_from([0.0, 1.0, -300.0])),
)


@on_losses
def test_adaboost_is_equation_1(kind: str, dtype: str, values: np.ndarray) -> None:
    values = values.astype(dtype)
    found = scores("adaboost", losses=KINDS[kind](values))
    with localcontext() as context:
        context.prec = DIGITS
        exact = [Decimal(float(value)) for value in values]
        largest = (1 + Decimal("1e-6")) * max(exact)
        ratios = [value / largest if largest else Decimal(0) for value in exact]
        twin = [float(((1 + r) / (1 - r)).ln() / 2) for r in ratios]
    np.testing.assert_allclose(found, twin, rtol=RTOL[dtype])


@given(values=loss_vectors())
def test_adaboost_is_odd_finite_and_rises_with_the_loss(values: np.ndarray) -> None:
    values = values.astype(np.float64)
    found = scores("adaboost", losses=values)
    assert np.isfinite(found).all()
    assert np.array_equal(scores("adaboost", losses=-values), -found)
    assert (np.diff(found[np.argsort(values)]) >= 0.0).all()


@every_kind
@given(values=loss_vectors(min_size=1), data=st.data())
@pytest.mark.parametrize(
    ("policy", "solver"), [("coreset-1", "half-and-half"), ("coreset-2", "nearest-mean")]
)
def test_coresets_choose_what_the_solvers_do(
    policy: str, solver: str, kind: str, values: np.ndarray, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, values.size))
    problem = make_policy(policy).propose(
        {"losses": KINDS[kind](values)}, k, np.random.default_rng(0)
    )
    of_policy = so.solve(problem).require().indices
    of_solver = so.solve(so.Problem(so.MeanMatching(values), k), solver).require().indices
    assert np.array_equal(of_policy, of_solver)


@given(values=loss_vectors(min_size=1), data=st.data())
def test_coreset_1_takes_half_of_the_largest_and_half_of_the_smallest(
    values: np.ndarray, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, values.size))
    chosen = np.argsort(-scores("coreset-1", losses=values), kind="stable")[:k]
    ranked = np.sort(values.astype(np.float64))[::-1]
    expected = [*ranked[: math.ceil(k / 2)], *ranked[values.size - k // 2 :]]
    assert sorted(values[chosen].astype(np.float64)) == sorted(expected)


@on_losses
def test_coreset_2_is_the_distance_from_the_mean(kind: str, dtype: str, values: np.ndarray) -> None:
    values = values.astype(dtype)
    found = scores("coreset-2", losses=KINDS[kind](values))
    exact = [float(value) for value in values]
    mean = math.fsum(exact) / len(exact)
    twin = [-abs(value - mean) for value in exact]
    np.testing.assert_allclose(found, twin, rtol=RTOL[dtype], atol=RTOL[dtype] * abs(mean))


@every_kind
@pytest.mark.parametrize(
    ("policy", "signal"),
    [("gradient-norm", "gradient_norms"), ("upper-bound", "upper_bound"), ("big-loss", "losses")],
)
@given(values=LOSSES)
def test_the_signal_is_the_score(policy: str, signal: str, kind: str, values: np.ndarray) -> None:
    assert np.array_equal(scores(policy, **{signal: KINDS[kind](values)}), values)


@given(values=loss_vectors(min_size=1))
def test_small_loss_is_big_loss_of_the_negated(values: np.ndarray) -> None:
    values = values.astype(np.float64)
    assert np.array_equal(scores("small-loss", losses=values), -values)


def uncertainty_twin(row: np.ndarray) -> dict[str, Decimal]:
    """Return equations 1 to 3 for one sample, as printed."""
    exact = [Decimal(float(value)) for value in row]
    odds = [(value - max(exact)).exp() for value in exact]
    p = [value / sum(odds) for value in odds]
    best = max(range(len(p)), key=p.__getitem__)
    return {
        "confidence": 1 - p[best],
        "margin": 1 - min(p[best] - p[y] for y in range(len(p)) if y != best),
        "entropy": -sum(share * share.ln() for share in p),
    }


@every_kind
@every_dtype
@given(logits=LOGITS)
def test_uncertainty_is_equations_1_to_3(kind: str, dtype: str, logits: np.ndarray) -> None:
    logits = logits.astype(dtype)
    with localcontext() as context:
        context.prec = DIGITS
        twins = [uncertainty_twin(row) for row in logits]
    for score in SCORES:
        found = to_host(uncertainty_scores(KINDS[kind](logits), score))
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, [float(t[score]) for t in twins], rtol=RTOL[dtype])


@given(logits=LOGITS, shift=st.floats(-50.0, 50.0), data=st.data())
def test_uncertainty_does_not_depend_on_names_of_classes_or_a_shift(
    logits: np.ndarray, shift: float, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(logits.shape[1])))
    for score in SCORES:
        found = uncertainty_scores(logits, score)
        again = uncertainty_scores(logits[:, order] + shift, score)
        np.testing.assert_allclose(again, found, rtol=1e-9, atol=1e-300)


@given(
    values=hnp.arrays(
        np.float64, st.integers(0, 8), elements=st.integers(-60, 60).map(float), unique=True
    )
)
def test_for_two_classes_all_scores_order_alike(values: np.ndarray) -> None:
    order = np.argsort(-np.abs(values), kind="stable")
    for score in SCORES:
        found = uncertainty_scores(values, score)[order]
        distinct = np.abs(np.diff(np.abs(values[order]))) > 0.0
        assert (np.diff(found)[distinct] > 0.0).all()


@every_kind
@given(values=hnp.arrays(np.float64, st.integers(0, 6), elements=st.floats(-60.0, 60.0)))
def test_one_logit_is_the_second_of_two_classes(kind: str, values: np.ndarray) -> None:
    pair = np.column_stack([np.zeros(values.size), values])
    for score in SCORES:
        two = to_host(uncertainty_scores(KINDS[kind](pair), score))
        for one in (values, values[:, None]):
            assert np.array_equal(to_host(uncertainty_scores(KINDS[kind](one), score)), two)


@given(n=st.integers(1, 5), classes=st.integers(2, 7))
def test_uncertainty_of_no_idea(n: int, classes: int) -> None:
    logits = np.full((n, classes), 3.0)
    np.testing.assert_allclose(uncertainty_scores(logits, "confidence"), 1.0 - 1.0 / classes)
    np.testing.assert_allclose(uncertainty_scores(logits, "margin"), 1.0)
    np.testing.assert_allclose(uncertainty_scores(logits, "entropy"), math.log(classes))


@given(logits=LOGITS)
def test_a_class_that_is_ruled_out_counts_nothing(logits: np.ndarray) -> None:
    assume(logits.shape[1] > 2)
    without = logits.copy()
    without[:, 0] = -np.inf
    for score in SCORES:
        expected = uncertainty_scores(logits[:, 1:], score)
        np.testing.assert_allclose(uncertainty_scores(without, score), expected, rtol=1e-12)


@pytest.mark.parametrize("row", [[np.nan, 0.0], [np.inf, 0.0], [np.inf, np.inf], [-np.inf] * 2])
@pytest.mark.parametrize("score", SCORES)
@every_kind
def test_uncertainty_of_nonsense_is_nan(kind: str, score: str, row: list[float]) -> None:
    found = to_host(uncertainty_scores(KINDS[kind](np.array([row, [0.0, 1.0]])), score))
    assert np.isnan(found).tolist() == [True, False]


@every_kind
@every_dtype
@given(values=LOSSES, data=st.data())
def test_rho_loss_is_the_loss_less_the_irreducible(
    kind: str, dtype: str, values: np.ndarray, data: st.DataObject
) -> None:
    values = values.astype(dtype)
    table = data.draw(hnp.arrays(np.float64, 15, elements=st.floats(0.0, 20.0)))
    ids = data.draw(hnp.arrays(np.int64, values.size, elements=st.integers(0, 14)))
    signals = {"losses": KINDS[kind](values), "ids": KINDS[kind](ids)}
    twin = [float(loss) - table[sample] for loss, sample in zip(values, ids, strict=True)]
    for irreducible in (table, dict(enumerate(table.tolist())), torch.as_tensor(table)):
        policy = make_policy("rho-loss", irreducible=irreducible)
        found = to_host(policy.scores(signals, 1, np.random.default_rng(0)))  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, twin, rtol=RTOL[dtype])
