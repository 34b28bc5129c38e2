"""A policy's own training weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from selector_parts import losses
from step_parts import CROSS_ENTROPY, batch, make, network

import subsetopt as so
from subsetopt.policies import Signals, StatelessPolicy

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402


@dataclass
class Weighing(StatelessPolicy):
    """Chooses the largest losses, and weighs them by a function of the solution."""

    weights: Any
    asked: list[so.Solution] = field(default_factory=list)
    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        return so.Problem(so.TopScores(np.asarray(signals["losses"])), k)

    def weigh(self, solution: so.Solution) -> Any:
        self.asked.append(solution)
        return self.weights(solution)


def by_index(solution: so.Solution) -> np.ndarray:
    return 1.0 / (1.0 + solution.indices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_the_policys(dtype: torch.dtype) -> None:
    picked = st.BatchSelector(Weighing(by_index), k=7)(losses(dtype=dtype))
    torch.testing.assert_close(picked.weights, 1.0 / (1.0 + picked.indices).to(dtype))
    assert picked.weights.dtype == dtype
    np.testing.assert_allclose(picked.solution.weights, np.full(7, 1 / 7))


def test_a_tensor_will_do() -> None:
    policy = Weighing(lambda solution: torch.ones(len(solution.indices)))
    assert st.BatchSelector(policy, k=3)(losses()).weights.tolist() == [1.0, 1.0, 1.0]


def test_a_step_trains_with_them() -> None:
    plain, ours = network(), network()
    for model in (plain, ours):
        model[1].eval()
        model[3].p = 0.0
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    step = make(ours, Weighing(by_index))
    for t in range(3):
        x, y = batch(seed=t)
        rows = step(x, y).picked.indices
        optimizer.zero_grad()
        (CROSS_ENTROPY(plain(x[rows]), y[rows]) / (1.0 + rows)).sum().backward()
        optimizer.step()
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(plain.parameters(), network().parameters(), strict=True):
        assert not torch.equal(a, b)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda s: np.ones(2), r"weigh of the policy 'Weighing' .* shape \(2,\) for 3 chosen"),
        (lambda s: np.ones((3, 1)), r"shape \(3, 1\) for 3 chosen candidates; return one each"),
        (lambda s: 1.0, r"shape \(\) for 3 chosen"),
        (lambda s: np.array([1.0, np.nan, 1.0]), r"'Weighing' returned nan for the candidate 2;"),
        (lambda s: np.array([1.0, 1.0, np.inf]), r"returned inf for the candidate 3; .*finite"),
    ],
)
def test_weights_that_are_none(weights: Any, message: str) -> None:
    selector = st.BatchSelector(Weighing(weights), k=3)
    with pytest.raises(so.ProblemError, match=message):
        selector(torch.tensor([0.0, 1.0, 2.0, 3.0]))


def test_nothing_chosen_has_no_weights_to_ask_for() -> None:
    policy = Weighing(by_index)
    assert len(st.BatchSelector(policy, k=0)(losses())) == 0
    assert len(st.BatchSelector(policy, k=2)(losses(0))) == 0
    assert policy.asked == []


def test_a_uniform_draw_in_place_of_an_answer_has_equal_weights() -> None:
    policy = Weighing(by_index)
    selector = st.BatchSelector(policy, k=4, seed=0, constraints={"exclude": list(range(100))})
    with pytest.warns(st.SelectionWarning):
        picked = selector(losses(102))
    assert picked.weights.tolist() == [0.5, 0.5] and policy.asked == []


def test_where_everything_is_taken_the_policy_is_not_asked() -> None:
    policy = Weighing(by_index)
    result = make(policy=policy, selector={"rate": 1.0})(*batch())
    assert policy.asked == [] and torch.equal(result.picked.weights, torch.full((32,), 1 / 32))
