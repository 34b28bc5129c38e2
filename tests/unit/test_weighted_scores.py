"""WeightedScores: one linear score out of several methods' importances."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import losses as loss_vectors
from strategies import weighted_scores

import subsetopt as so
from subsetopt.objectives.loss_scores import LOSS_SCORES
from subsetopt.objectives.weighted_scores import curriculum_reward, sample_importance

LOSSES = np.random.default_rng(5).exponential(size=12)


def softmax_of_standardized(scores: list[float]) -> list[float]:
    """Return the softmax of the standardized scores, exact up to the exponential."""
    exact = [Fraction(score) for score in scores]
    mean = sum(exact, Fraction(0)) / len(exact)
    variance = sum(((s - mean) ** 2 for s in exact), Fraction(0)) / len(exact)
    units = [
        math.copysign(math.sqrt((s - mean) ** 2 / variance), s - mean) if variance else 0.0
        for s in exact
    ]
    powers = [math.exp(unit) for unit in units]
    return [power / math.fsum(powers) for power in powers]


@given(values=loss_vectors(min_size=1, max_size=12))
def test_importance_is_the_softmax_of_the_standardized_scores(values: np.ndarray) -> None:
    scores = values.astype(np.float64)
    found = sample_importance(scores)
    np.testing.assert_allclose(found, softmax_of_standardized(scores.tolist()), rtol=1e-9)
    assert abs(found.sum() - 1.0) < 1e-12
    rows = sample_importance(np.stack([scores, np.zeros(scores.size)]))
    np.testing.assert_array_equal(rows[0], found)
    np.testing.assert_allclose(rows[1], 1.0 / scores.size)


def test_importance_forgets_scale_and_origin() -> None:
    found = sample_importance(LOSSES)
    for other in (1e-200 * LOSSES, 1e200 * LOSSES, 7.0 + 3.0 * LOSSES):
        np.testing.assert_allclose(sample_importance(other), found, rtol=1e-9)
    assert sample_importance(np.empty(0)).size == 0
    with pytest.raises(so.ProblemError, match="scores must be finite, and so must be their range"):
        sample_importance(np.array([-1.7e308, 1.7e308]))


@given(values=loss_vectors(min_size=1), pace=st.sampled_from([0.0, 0.01, 1.0, 5.0]))
def test_the_curriculum_reward_is_the_papers_up_to_a_factor(
    values: np.ndarray, pace: float
) -> None:
    exact = [Fraction(float(value)) for value in values]
    squares = sum((value**2 for value in exact), Fraction(0))
    expected = []
    for value in exact:
        power = Fraction(pace) * (value - min(exact)) / squares if squares else Fraction(0)
        expected.append(math.exp(-float(min(power, Fraction(10**6)))))
    found = curriculum_reward(values.astype(np.float64), pace)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found.max() == 1.0


@pytest.mark.parametrize("name", LOSS_SCORES)
@given(values=loss_vectors(max_size=12))
def test_scores_by_name_are_those_of_the_policy(name: str, values: np.ndarray) -> None:
    values = values.astype(np.float64)
    policy = so.make_policy(name)
    theirs = policy.scores({"losses": values}, 1, np.random.default_rng(0))  # type: ignore[attr-defined]
    ours = LOSS_SCORES[name](values)
    if values.size:
        np.testing.assert_allclose(sample_importance(ours), sample_importance(theirs), rtol=1e-9)
    assert ours.shape == theirs.shape


def test_the_score_is_put_together_from_its_parts() -> None:
    alphas = {"a": LOSSES, "b": -LOSSES, "c": np.ones(12)}
    reward = np.arange(12) / 12
    weights = [0.5, 2.0, 0.25]
    objective = so.WeightedScores(LOSSES, alphas, weights, reward)
    for i in range(12):
        total = sum(w * alphas[name][i] for w, name in zip(weights, "abc", strict=True))
        assert math.isclose(objective.scores[i], reward[i] * total, rel_tol=1e-12, abs_tol=1e-15)
    assert objective.names == ("a", "b", "c")
    assert repr(objective) == "WeightedScores(n=12, methods=['a', 'b', 'c'])"
    named = so.WeightedScores(LOSSES, alphas, {"c": 0.25, "a": 0.5, "b": 2.0}, reward)
    np.testing.assert_array_equal(named.scores, objective.scores)


def test_defaults_weigh_big_and_small_loss_alike() -> None:
    objective = so.WeightedScores(LOSSES)
    assert objective.names == ("big-loss", "small-loss")
    np.testing.assert_array_equal(objective.weights, [0.5, 0.5])
    np.testing.assert_array_equal(objective.reward, np.ones(12))
    np.testing.assert_allclose(objective.importances[0], sample_importance(LOSSES))
    np.testing.assert_allclose(objective.scores.sum(), 1.0)


def test_one_method_alone_is_its_own_top_k() -> None:
    for name, order in (("big-loss", np.argsort(-LOSSES)), ("small-loss", np.argsort(LOSSES))):
        solution = so.solve(so.Problem(so.WeightedScores(LOSSES, [name]), 4))
        assert set(solution.indices) == set(order[:4])
        assert (solution.solver, solution.status) == ("topk", so.Status.OPTIMAL)


@pytest.mark.parametrize("name", ["coreset-1", "coreset-2"])
def test_the_coresets_alone_are_their_solvers_choices(name: str) -> None:
    solver = {"coreset-1": "half-and-half", "coreset-2": "nearest-mean"}[name]
    for k in range(1, 13):
        ours = so.solve(so.Problem(so.WeightedScores(LOSSES, [name]), k))
        theirs = so.solve(so.Problem(so.MeanMatching(LOSSES), k), solver)
        np.testing.assert_array_equal(ours.indices, theirs.indices)


def test_a_large_pace_makes_easy_samples_win() -> None:
    hard = so.solve(so.Problem(so.WeightedScores(LOSSES, ["big-loss"]), 3))
    easy = so.solve(so.Problem(so.WeightedScores(LOSSES, ["big-loss"], reward=1e3), 3))
    assert set(hard.indices) == set(np.argsort(-LOSSES)[:3])
    assert set(easy.indices) == set(np.argsort(LOSSES)[:3])


@given(values=loss_vectors(max_size=10), data=st.data())
def test_every_solution_is_that_of_top_scores(values: np.ndarray, data: st.DataObject) -> None:
    objective = data.draw(weighted_scores(values))
    k = data.draw(st.integers(0, values.size))
    problem = so.Problem(objective, k)
    solution = so.solve(problem, seed=0)
    plain = so.solve(so.Problem(so.TopScores(objective.scores), k), seed=0)
    assert so.verify(problem, solution)
    assert solution.status is so.Status.OPTIMAL
    assert solution.objective == plain.objective


def test_it_takes_what_top_scores_takes() -> None:
    plain = so.Problem(so.TopScores(LOSSES), 3, costs=LOSSES, capacity=2.0)
    weighted = so.Problem(so.WeightedScores(LOSSES), 3, costs=LOSSES, capacity=2.0)
    assert so.available_solvers(weighted) == so.available_solvers(plain)
    assert so.choose_solver(weighted) == so.choose_solver(plain)
    quotas = so.Problem(
        so.WeightedScores(LOSSES), 4, groups=[0, 1] * 6, quotas={0: 1}, include=[2], exclude=[1]
    )
    best = so.solve(quotas, "topk")
    assert best.status is so.Status.OPTIMAL
    assert 2 in best.indices and 1 not in best.indices and (best.indices % 2 == 0).sum() == 1
    assert math.isclose(best.objective, so.solve(quotas, "exhaustive").objective)
    with pytest.raises(so.UnsupportedProblemError, match="'swap' cannot take the objective Weight"):
        so.solve(weighted, "swap")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"methods": "big-loss"},
            r"methods must be a list of names or a mapping .* got 'big-loss'",
        ),
        ({"methods": 3}, "methods must be a list of names or a mapping"),
        ({"methods": []}, "methods is empty; known by name are big-loss, small-loss, adaboost"),
        ({"methods": {}}, "methods is empty"),
        ({"methods": ["big-los"]}, r"no method named 'big-los' .* Did you mean 'big-loss'\?"),
        ({"methods": ["gradient-norm"]}, r"pass the importances: methods=\{name: importances\}"),
        ({"methods": ["big-loss", "big-loss"]}, "methods names 'big-loss' twice"),
        ({"methods": {"a": [1.0]}}, "importances of 'a' have 1 entries for 12 losses"),
        ({"methods": {"a": [math.nan] * 12}}, "the importances of 'a' must be finite"),
        ({"weights": [1.0]}, "weights has 1 entries for 2 methods"),
        ({"weights": [1.0, -2.0]}, "weights must be at least 0, got -2 at position 1"),
        ({"weights": {"big-loss": 1.0}}, "weights has the names 'big-loss', but the methods are"),
        ({"weights": [1.0, math.inf]}, "weights must be finite"),
        ({"reward": -1.0}, "reward must be finite and at least 0, got -1.0"),
        ({"reward": math.nan}, "reward must be finite and at least 0, got nan"),
        ({"reward": [1.0]}, "reward has 1 entries for 12 losses; pass one each, or one number"),
        ({"reward": -LOSSES}, "reward must be at least 0, got .* at position 0"),
        ({"losses": [[1.0]]}, "losses must be one-dimensional"),
        ({"losses": [math.nan]}, "losses must be finite"),
    ],
)
def test_bad_input(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        so.WeightedScores(**{"losses": LOSSES, **arguments})  # type: ignore[arg-type]


def test_inputs_are_left_as_they_are() -> None:
    losses, alpha, weights = LOSSES.copy(), LOSSES.copy(), np.ones(1)
    so.WeightedScores(losses, {"a": alpha}, weights, 2.0)
    np.testing.assert_array_equal(losses, LOSSES)
    np.testing.assert_array_equal(alpha, LOSSES)
    np.testing.assert_array_equal(weights, [1.0])
