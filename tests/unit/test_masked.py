"""Masked arrays that hide something are refused wherever an array is taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import subsetopt as so
from subsetopt.proxy import class_balanced_selection, rank_combination

HIDDEN = np.arange(40) < 8
X = np.random.default_rng(0).exponential(size=40)
V = np.random.default_rng(1).normal(size=(40, 3))


def masked(values: object) -> np.ma.MaskedArray:
    array = np.asarray(values)
    mask = np.broadcast_to(HIDDEN.reshape(-1, *[1] * (array.ndim - 1)), array.shape)
    return np.ma.array(array, mask=mask)


def some(*values: int) -> np.ma.MaskedArray:
    return np.ma.array(values, mask=[False, True, False])


TAKERS: dict[str, Callable[[], object]] = {
    "losses": lambda: so.select(masked(X), k=8),
    "scores": lambda: so.TopScores(masked(X)),
    "scores of a band": lambda: so.ScoredMatching(masked(X), X, 0.1),
    "losses of a band": lambda: so.ScoredMatching(X, masked(X), 0.1),
    "weighted": lambda: so.WeightedScores(masked(X)),
    "base_weights": lambda: so.MeanMatching(X, base_weights=masked(X)),
    "vectors": lambda: so.VectorMatching(masked(V)),
    "rows of vectors": lambda: so.VectorMatching([*V[:39], masked(V).T[:, 0]]),
    "target": lambda: so.VectorMatching(V, target=some(1, 2, 3)),
    "features": lambda: so.FacilityLocation(masked(V)),
    "similarity": lambda: so.FacilityLocation(similarity=masked(V @ V.T)),
    "centers": lambda: so.KCenter(masked(V)),
    "inclusion": lambda: so.SamplingDesign(masked(np.full(40, 0.2))),
    "balance": lambda: so.SamplingDesign(np.full(40, 0.2), masked(X)),
    "probabilities": lambda: so.inclusion_probabilities(masked(X), 3),
    "include": lambda: so.select(X, k=8, include=some(1, 2, 3)),
    "exclude": lambda: so.select(X, k=8, exclude=some(1, 2, 3)),
    "mask": lambda: so.select(X, k=8, exclude=masked(HIDDEN)),
    "groups": lambda: so.select(X, k=8, groups=masked(np.zeros(40, int)), quotas={0: 8}),
    "costs": lambda: so.select(X, k=8, costs=masked(np.ones(40)), capacity=8),
    "warm_start": lambda: so.select(X, k=3, solver="greedy", warm_start=some(1, 2, 3)),
    "many": lambda: list(so.select_many(masked(np.stack([X, X], axis=1)).T, k=3, seed=0)),
    "many rows": lambda: list(so.select_many([X, masked(X)], k=3, seed=0)),
    "many in turn": lambda: list(so.select_many([X, masked(X)], k=3, seed=0, solver="greedy")),
    "proxies": lambda: rank_combination(masked(np.stack([X, X], axis=1)).T),
    "labels": lambda: class_balanced_selection(X, masked(np.zeros(40, int)), 3),
}


@pytest.mark.parametrize("name", TAKERS)
def test_hidden_entries_are_refused(name: str) -> None:
    with pytest.raises(so.ProblemError, match=r"is a masked array that hides .* the first at"):
        TAKERS[name]()


def test_the_message_counts_and_names_a_remedy() -> None:
    with pytest.raises(so.ProblemError) as told:
        so.MeanMatching(masked(X))
    assert str(told.value) == (
        "losses is a masked array that hides 8 entries, the first at position 0: leave these "
        "samples out, or fill them and name them in exclude."
    )


def test_a_mask_that_hides_nothing_is_no_obstacle() -> None:
    for open_array in (np.ma.array(X), np.ma.array(X, mask=np.zeros(40, bool))):
        answer = so.select(open_array, k=8, seed=0)
        assert np.array_equal(answer.indices, so.select(X, k=8, seed=0).indices)
