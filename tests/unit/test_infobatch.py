"""infobatch: which samples it keeps, with what weights, against the published algorithm."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import subsetopt as so
from subsetopt.policies import make_policy
from subsetopt.policies.infobatch import InfoBatch


def published(losses: np.ndarray, prune: float, rng: np.random.Generator) -> dict[int, float]:
    """Return the samples that the authors' own code keeps, and how much each counts."""
    low = np.flatnonzero(losses < losses.mean())
    kept = rng.choice(low, math.floor((1.0 - prune) * low.size), replace=False)
    counts = dict.fromkeys(np.flatnonzero(losses >= losses.mean()).tolist(), 1.0)
    return counts | dict.fromkeys(kept.tolist(), 1.0 / (1.0 - prune))


def draw(policy: InfoBatch, losses: np.ndarray, k: int, seed: int = 0) -> so.Solution:
    problem = policy.propose({"losses": losses}, k, np.random.default_rng(0))
    return so.solve(problem, seed=seed).require()


@given(
    losses=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=40).map(np.array),
    prune=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    seed=st.integers(0, 99),
)
def test_keeps_what_the_published_algorithm_keeps(
    losses: np.ndarray, prune: float, seed: int
) -> None:
    policy = InfoBatch(prune)
    k = policy.size(losses)
    expected = published(losses, prune, np.random.default_rng(seed))
    assert k == len(expected)
    drawn = draw(policy, losses, k, seed)
    above = np.flatnonzero(losses >= losses.mean())
    assert np.isin(above, drawn.indices).all()
    counts = drawn.weights * losses.size
    low = losses[drawn.indices] < losses.mean()
    assert np.allclose(counts[~low], 1.0)
    # The published weights are 1 / (1 - r) whatever was rounded; these make the total exact.
    below = losses.size - above.size
    if low.any():
        assert np.allclose(counts[low], below / math.floor((1.0 - prune) * below))
        assert counts.sum() == pytest.approx(losses.size)


@pytest.mark.parametrize("k", [1, 8, 20, 28, 36, 40])
def test_is_unbiased_for_every_size(k: int) -> None:
    losses = np.random.default_rng(3).exponential(size=40)
    policy = InfoBatch()
    inclusion = policy.propose({"losses": losses}, k, np.random.default_rng(0)).objective.inclusion  # type: ignore[attr-defined]
    low = losses < losses.mean()
    assert inclusion.sum() == pytest.approx(k)
    assert np.unique(inclusion[low]).size == 1 == np.unique(inclusion[~low]).size
    if k >= policy.size(losses):
        assert (inclusion[~low] == 1.0).all()
    else:
        assert inclusion[low][0] == pytest.approx(0.5 * inclusion[~low][0])
    totals = [
        drawn.weights @ losses[drawn.indices]
        for drawn in (draw(policy, losses, k, seed) for seed in range(400))
    ]
    error = np.std(totals) / 20.0
    assert abs(np.mean(totals) - losses.mean()) <= 4.0 * error + 1e-12


def test_huge_losses_have_a_mean() -> None:
    losses = np.array([1.7e308, 1.7e308, 1.6e308, 1.7e308])
    assert InfoBatch().size(losses) == 3


def test_pruning_everything_below_the_mean_is_refused() -> None:
    with pytest.raises(so.OptionError, match="prune must be below 1"):
        make_policy("infobatch", prune=1.0)
    with pytest.raises(so.OptionError, match="prune"):
        make_policy("infobatch", prune=-0.1)
