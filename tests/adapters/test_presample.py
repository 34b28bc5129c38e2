"""Policies that have only a part of the batch scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as draws
from step_parts import CROSS_ENTROPY, Counting, batch, make, network

import subsetopt as so
from subsetopt.policies import Feedback, SelectionState, Signals, StatelessPolicy

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402
from subsetopt_torch.experiment.comparison import Settings, run_one  # noqa: E402
from subsetopt_torch.experiment.data import DataSet  # noqa: E402


@dataclass
class Peeking(StatelessPolicy):
    """Looks at some candidates and takes the largest losses of those."""

    size: int = 12
    positions: Any = None
    awake: bool = True
    requires: ClassVar[frozenset[str]] = frozenset({"losses", "targets"})
    seen: list[Signals] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)

    def needs_scoring(self, state: SelectionState) -> bool:
        return self.awake

    def presample(self, state: SelectionState, rng: np.random.Generator) -> Any:
        if self.positions is not None:
            return self.positions
        return rng.choice(state.n, min(self.size, state.n), replace=False)

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        self.seen.append(signals)
        if not self.awake:
            return so.Problem(so.TopScores(rng.random(len(signals["positions"]))), k)
        return so.Problem(so.TopScores(np.asarray(signals["losses"])), k)

    def observe(self, feedback: Feedback) -> None:
        self.feedback.append(feedback)


@given(data=draws.data())
def test_picks_are_positions_in_the_whole_batch(data: draws.DataObject) -> None:
    n = data.draw(draws.integers(1, 40))
    positions = data.draw(draws.lists(draws.integers(0, n - 1), min_size=1, unique=True))
    k = data.draw(draws.integers(1, n))
    values = torch.arange(n) * 2.0
    policy = Peeking(positions=positions)
    picked = st.BatchSelector(policy, k=k, seed=0)(values, targets=torch.arange(n))
    assert picked.indices.tolist() == sorted(positions)[-k:] and picked.n == n
    (seen,) = policy.seen
    assert seen["positions"].tolist() == sorted(positions)
    assert seen["losses"].tolist() == [2.0 * i for i in sorted(positions)]
    assert seen["targets"].tolist() == sorted(positions)
    # A loop that scores the presample itself gets the same.
    selector = st.BatchSelector(Peeking(positions=positions), k=k, seed=0)
    wanted = selector.presample(n)
    rows = wanted.on("cpu")
    again = selector(values[rows], presample=wanted, targets=rows)
    assert torch.equal(again.indices, picked.indices) and again.n == n
    assert torch.equal(again.weights, picked.weights)


def test_only_the_presample_is_scored() -> None:
    model = Counting(6, 4)
    model.seen = []  # type: ignore[misc]
    policy = Peeking(size=12)
    x, y = batch()
    before = CROSS_ENTROPY(model(x), y).detach()
    model.seen.clear()
    result = make(model, policy)(x, y, ids=torch.arange(100, 132))
    assert model.seen == [(12, False), (8, True)]
    rows = result.scored_indices
    assert rows.shape == result.losses.shape == (12,) and rows.tolist() == sorted(rows.tolist())
    torch.testing.assert_close(result.losses, before[rows])
    torch.testing.assert_close(result.batch_loss, before[rows].mean())
    (seen,) = policy.seen
    assert seen["positions"].tolist() == rows.tolist()
    assert seen["targets"].tolist() == y[rows].tolist()
    best = rows[result.losses.argsort(descending=True)[:8]].sort().values
    assert torch.equal(result.picked.indices, best) and result.picked.n == 32
    assert result.picked.mask.sum() == 8
    (feedback,) = policy.feedback
    assert torch.equal(feedback.indices, best) and feedback.ids.tolist() == (best + 100).tolist()
    assert torch.equal(feedback.targets, y[best]) and feedback.scored
    torch.testing.assert_close(feedback.losses, before[best])


@dataclass
class Wanting(Peeking):
    requires: ClassVar[frozenset[str]] = frozenset({"losses", "logits", "ids", "age"})


def test_signals_of_every_origin_have_the_rows() -> None:
    policy = Wanting(size=5)
    x, y = batch()
    age = np.arange(32) / 2
    make(network(), policy)(x, y, ids=torch.arange(32), age=age)
    (seen,) = policy.seen
    assert {name: len(value) for name, value in seen.items()} == dict.fromkeys(seen, 5)
    assert seen["ids"].tolist() == seen["positions"].tolist()
    assert (2 * seen["age"]).tolist() == seen["positions"].tolist()
    assert seen["logits"].shape == (5, 4)


def test_none_is_all() -> None:
    class All(Peeking):
        def presample(self, state: SelectionState, rng: np.random.Generator) -> None:
            return None

    result = make(policy=All())(*batch())
    assert result.scored_indices is None and result.losses.shape == (32,)


def test_a_presample_smaller_than_k_is_taken_whole() -> None:
    result = make(policy=Peeking(size=5))(*batch())
    assert torch.equal(result.picked.indices, result.scored_indices)
    torch.testing.assert_close(result.picked.weights, torch.full((5,), 0.2))


def test_while_asleep_there_is_no_scoring_pass() -> None:
    model = Counting(6, 4)
    model.seen = []  # type: ignore[misc]
    policy = Peeking(awake=False)
    step = make(model, policy)
    result = step(*batch())
    assert model.seen == [(8, True)] and result.losses is result.scored_indices is None
    assert result.batch_loss.isnan() and len(result.picked) == 8
    assert set(policy.seen[0]) == {"targets", "positions"} and not policy.feedback[0].scored
    assert step.selector.presample(32) is None
    policy.awake = True
    assert step(*batch()).losses.shape == (12,)
    policy.awake = False  # losses that are there are no harm, and all of them are candidates
    picked = step.selector(torch.rand(32), targets=torch.arange(32))
    assert len(picked) == 8 and len(policy.seen[-1]["positions"]) == 32


def test_other_signals_are_asked_for_also_while_asleep() -> None:
    selector = st.BatchSelector(Wanting(awake=False), k=2)
    with pytest.raises(so.ProblemError, match="needs the signal 'age': pass age="):
        selector.without_losses(8, ids=np.arange(8))


def test_seeds_and_resuming() -> None:
    def drawn(selector: st.BatchSelector, times: int) -> list[list[int]]:
        positions = []
        for _ in range(times):
            positions.append(selector.presample(64).positions.tolist())
            assert selector.presample(64).positions.tolist() == positions[-1]
            selector(torch.rand(64), targets=torch.arange(64))
        return positions

    selector = st.BatchSelector(Peeking(), k=4, seed=1)
    first = drawn(selector, 2)
    state = selector.state_dict()
    rest = drawn(selector, 2)
    assert len({tuple(p) for p in first + rest}) == 4
    resumed = st.BatchSelector(Peeking(), k=4, seed=9)
    resumed.load_state_dict(state)
    assert drawn(resumed, 2) == rest
    assert drawn(st.BatchSelector(Peeking(), k=4, seed=1, rank=1), 2) != first


def test_losses_that_are_not_finite_are_named_by_their_place_in_the_batch() -> None:
    values = torch.arange(40.0)
    values[[7, 30, 31]] = float("nan")
    targets = torch.arange(40)
    with pytest.raises(so.ProblemError, match=r"positions 30 \(nan\) of the batch"):
        st.BatchSelector(Peeking(positions=[3, 30, 39, 20]), k=2)(values, targets=targets)
    selector = st.BatchSelector(Peeking(positions=[3, 30, 39, 20]), k=3, nonfinite="exclude")
    picked = selector(values, targets=targets)
    assert picked.indices.tolist() == [3, 20, 39]
    assert picked.excluded == selector.excluded == 1


def select(rules: Mapping[str, Any], positions: list[int], k: int = 3) -> list[int]:
    policy = Peeking(positions=positions)
    selector = st.BatchSelector(policy, k=k)
    values = torch.arange(20.0)
    return selector(values, targets=values, constraints=rules).indices.tolist()


def test_constraints_are_those_of_the_candidates() -> None:
    positions = [1, 4, 8, 9, 15]
    assert select({}, positions) == [8, 9, 15]
    assert select({"exclude": [9, 10]}, positions) == [4, 8, 15]
    assert select({"exclude": np.arange(20) > 8}, positions) == [1, 4, 8]
    assert select({"include": [1]}, positions) == [1, 9, 15]
    assert select({"include": [0, 19]}, positions) == [0, 15, 19]
    odd = np.arange(20) % 2
    assert select({"groups": odd, "quotas": {1: 1}}, positions) == [4, 8, 15]
    costs = np.where(np.arange(20) == 15, 5.0, 1.0)
    assert select({"costs": costs, "capacity": 3.0}, positions) == [4, 8, 9]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"include": [20]}, "include names candidate 20; valid indices are 0 to 19"),
        ({"groups": np.zeros(5), "quotas": {0: 1}}, r"one label per candidate, shape \(20,\)"),
        ({"costs": np.ones(5), "capacity": 3.0}, "costs has 5 entries for 20 candidates"),
    ],
)
def test_constraints_are_of_the_whole_batch(rules: Mapping[str, Any], message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        select(rules, [1, 4, 8, 9, 15])


def test_what_a_step_must_include_is_scored() -> None:
    step = make(policy=Peeking(positions=[3, 5, 7, 9, 11]), selector={"k": 2})
    result = step(*batch(), constraints={"include": torch.tensor([20])})
    assert result.scored_indices.tolist() == [3, 5, 7, 9, 11, 20]
    assert 20 in result.picked.indices and len(result.picked) == 2


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        (np.array(["cats", "cats", "cat"]), "cat"),
        (["cats", 1, "cat"], "cat"),
        (["cats", None, "cat"], "cat"),
        (np.array([b"cats", b"cats", b"cat"]), b"cat"),
        (["7", 8, 7], 7),
    ],
)
def test_a_quota_of_labels_that_are_not_in_the_presample_is_not_misspelt(
    labels: Any, key: Any
) -> None:
    """The labels of the whole batch say what a key means, and 'cat' is among them."""
    selector = st.BatchSelector(Peeking(positions=np.arange(8)), k=3, seed=0)
    groups = np.repeat(labels, 4) if isinstance(labels, np.ndarray) else [*labels * 4]
    if isinstance(groups, list):
        groups = sorted(groups, key=labels.index)

    def pick(quotas: dict[Any, tuple[int, int]]) -> st.Picked:
        return selector(
            torch.arange(12.0),
            targets=torch.zeros(12),
            constraints={"groups": groups, "quotas": quotas},
        )

    picked = pick({key: (0, 2)})
    assert picked.fallback is None and picked.indices.tolist() == [5, 6, 7]
    with pytest.raises(so.ProblemError, match=r"which no label equals\. Did you mean"):
        wrong = key[:-1] + key[-1:] * 2 if isinstance(key, (str, bytes)) else "8"
        pick({wrong: (0, 2)})
    with pytest.warns(st.SelectionWarning, match="has 0 candidates that may be chosen"):
        assert pick({key: (1, 2)}).fallback


def test_quotas_that_the_presample_cannot_meet_end_in_a_uniform_draw_of_it() -> None:
    policy = Peeking(positions=[0, 2, 4, 6])
    selector = st.BatchSelector(policy, k=2)
    with pytest.warns(st.SelectionWarning, match="quota"):
        picked = selector(
            torch.arange(8.0),
            targets=torch.arange(8),
            constraints={"groups": np.arange(8) % 2, "quotas": {1: 1}},
        )
    assert len(picked) == 2 and set(picked.indices.tolist()) <= {0, 2, 4, 6}


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([3, 20], r"'Peeking' must return distinct positions in \[0, 20\), got 20\."),
        ([-1, 3], r"distinct positions in \[0, 20\), got -1\."),
        ([3, 4, 3], "got 3 with 2 distinct ones"),
        ([[3, 4]], r"got shape \(1, 2\) and dtype int64"),
        ([0.5], r"got shape \(1,\) and dtype float64"),
        ([True, False], "and dtype bool"),
        ([], "got none; to look at all of them return None"),
    ],
)
def test_malformed_positions(positions: Any, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        select({}, positions)


def test_losses_of_other_candidates() -> None:
    selector = st.BatchSelector(Peeking(positions=[3, 4]), k=1)
    with pytest.raises(so.ProblemError, match="got 3 losses for 2 presampled candidates"):
        selector(torch.ones(3), presample=selector.presample(20), targets=torch.ones(3))


@pytest.mark.parametrize("rest", [20, 9])
def test_a_padded_presample_keeps_its_shape(rest: int) -> None:
    model = Counting(6, 4)
    model.seen = []  # type: ignore[misc]
    step = make(model, Peeking(size=12), last_batch="pad")
    assert step(*batch()).losses.shape == (12,)
    result = step(*batch(rest))
    assert {n for n, grad in model.seen if not grad} == {12}
    assert {n for n, grad in model.seen if grad} == {8}
    assert result.losses.shape == (min(rest, 12),)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device() -> None:
    step = make(network().cuda(), Peeking())
    x, y = (part.cuda() for part in batch())
    result = step(x, y)
    assert result.scored_indices.device.type == result.picked.indices.device.type == "cuda"
    assert torch.isin(result.picked.indices, result.scored_indices).all()


def test_the_residual_of_a_run_is_that_of_the_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def selector(self: Settings, method: str, seed: int) -> st.BatchSelector:
        return st.BatchSelector(Peeking(size=6), k=6, seed=seed)

    monkeypatch.setattr(Settings, "selector", selector)
    x = torch.rand(40, 8)
    data = DataSet("small", x, (x[:, 0] > 0.5).long(), x, (x[:, 0] > 0.5).long(), 2)
    run = run_one(Settings(epochs=1, batch_size=20), data, "peeking", 0)
    # All that is scored is taken, so that the subset's mean is the mean of the scored.
    assert run.scored == 12 and len(run.residuals) == 2 and max(run.residuals) < 1e-6
