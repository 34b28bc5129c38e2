"""Combining the scores of proxies, and selecting by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import subsetopt as so
from subsetopt.proxy import alternating_selection, class_balanced_selection, rank_combination

VALUES = st.one_of(st.floats(-5.0, 5.0, width=16), st.sampled_from([0.0, 1.0]))
MATRICES = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(0, 9)), elements=VALUES)


def ranks_twin(row: np.ndarray) -> list[float]:
    """Return the mean of the places (from 1) that a value could have in sorted order."""
    return [1 + float((row < value).sum()) + (float((row == value).sum()) - 1) / 2 for value in row]


def most_wanted(scores: Any, left: set[int]) -> int:
    return min(left, key=lambda i: (-scores[i], i))


@given(scores=MATRICES)
def test_rank_combination_is_the_sum_of_ranks(scores: np.ndarray) -> None:
    expected = np.sum([ranks_twin(row) for row in scores], axis=0)
    assert np.array_equal(rank_combination(scores), expected)


@given(scores=MATRICES, data=st.data())
def test_rank_combination_looks_at_order_only_and_has_a_fixed_sum(
    scores: np.ndarray, data: st.DataObject
) -> None:
    proxies, n = scores.shape
    combined = rank_combination(scores)
    assert combined.sum() == proxies * n * (n + 1) / 2
    assert np.array_equal(rank_combination(np.exp(scores)), combined)
    order = data.draw(st.permutations(range(proxies)))
    assert np.array_equal(rank_combination(scores[order]), combined)


@given(scores=MATRICES, data=st.data())
def test_alternating_selection_takes_turns(scores: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, scores.shape[1]))
    left, expected = set(range(scores.shape[1])), []
    for turn in range(k):
        expected.append(most_wanted(scores[turn % len(scores)], left))
        left.remove(expected[-1])
    chosen = alternating_selection(scores, k)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == expected


@given(scores=MATRICES, data=st.data())
def test_class_balanced_selection_goes_round(scores: np.ndarray, data: st.DataObject) -> None:
    row = scores[0]
    labels = data.draw(st.lists(st.sampled_from("abc"), min_size=row.size, max_size=row.size))
    k = data.draw(st.integers(0, row.size))
    left, expected = set(range(row.size)), []
    while left:
        offers = [
            most_wanted(row, {i for i in left if labels[i] == label})
            for label in set(labels[i] for i in left)
        ]
        expected += sorted(offers, key=lambda i: (-row[i], i))
        left -= set(offers)
    chosen = class_balanced_selection(row, labels, k)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == expected[:k]
    renamed = [{"a": 7, "b": 3, "c": 5}[label] for label in labels]
    assert np.array_equal(class_balanced_selection(row, renamed, k), chosen)


@given(
    scores=hnp.arrays(np.float64, st.integers(0, 30), elements=VALUES),
    data=st.data(),
)
def test_class_counts_differ_by_one_while_no_class_has_run_out(
    scores: np.ndarray, data: st.DataObject
) -> None:
    labels = data.draw(hnp.arrays(np.int64, scores.size, elements=st.integers(0, 2)))
    k = data.draw(st.integers(0, scores.size))
    members = np.bincount(labels, minlength=3)
    counts = np.bincount(labels[class_balanced_selection(scores, labels, k)], minlength=3)
    assert counts.sum() == k and (counts <= members).all()
    unfinished = counts[counts < members]
    assert unfinished.size == 0 or counts.max() <= unfinished.min() + 1


def test_one_class_and_one_proxy_are_a_top_k() -> None:
    scores = np.random.default_rng(0).normal(size=100)
    top = so.solve(so.Problem(so.TopScores(scores), 10)).indices
    assert np.array_equal(np.sort(alternating_selection([scores], 10)), top)
    assert np.array_equal(np.sort(class_balanced_selection(scores, np.zeros(100), 10)), top)
    ranked = so.solve(so.Problem(so.TopScores(rank_combination([scores])), 10)).indices
    assert np.array_equal(ranked, top)


def test_inputs_stay_as_they_are() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 20))
    before = scores.copy()
    rank_combination(scores)
    alternating_selection(scores, 7)
    class_balanced_selection(scores[0], np.arange(20) % 4, 7)
    assert np.array_equal(scores, before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_combination([1.0, 2.0]), r"\(proxies, n\) with .*, got shape \(2,\)"),
        (lambda: rank_combination(np.zeros((0, 3))), r"at least one proxy, got shape \(0, 3\)"),
        (lambda: rank_combination([["a"]]), "real numbers .* dtype <U1"),
        (lambda: rank_combination([[1.0], [np.nan]]), "got nan for sample 0 of proxy 1"),
        (lambda: alternating_selection([[1.0, 2.0]], 3), "an integer from 0 to 2, .* got 3"),
        (lambda: alternating_selection([[1.0, 2.0]], True), "an integer from 0 to 2, .* got True"),
        (lambda: class_balanced_selection([1.0, np.inf], [0, 1], 1), r"got inf for sample 1\."),
        (lambda: class_balanced_selection([[1.0]], [0], 1), r"of shape \(n,\), got shape \(1, 1\)"),
        (lambda: class_balanced_selection([1.0], [0, 1], 1), r"shape \(1,\), got \(2,\)"),
        (lambda: class_balanced_selection([1.0], [0], -1), "from 0 to 1, .* got -1"),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        call()
