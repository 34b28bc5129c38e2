"""BatchSelector: what policies are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from selector_parts import DEVICES, losses

import subsetopt as so
from subsetopt.policies import Feedback, SelectionState, Signals, StatelessPolicy, to_host

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402


@dataclass
class Recorder(StatelessPolicy):
    """Chooses by the logits' norm and remembers what it was given."""

    requires: ClassVar[frozenset[str]] = frozenset({"losses", "logits", "ids"})

    def __post_init__(self) -> None:
        self.seen: list[Signals] = []
        self.feedback: list[Feedback] = []

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        self.seen.append(signals)
        return so.Problem(so.TopScores(to_host((signals["logits"] ** 2).sum(1))), k)

    def observe(self, feedback: Feedback) -> None:
        self.feedback.append(feedback)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": len(self.seen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = [{}] * state["seen"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_policy_that_wants_more_than_vectors_works_on_the_device(device: str) -> None:
    policy = Recorder()
    selector = st.BatchSelector(policy, k=2, nonfinite="exclude")
    logits = torch.eye(4, 3, device=device) * torch.arange(1.0, 5.0, device=device)[:, None]
    vector = torch.tensor([1.0, 2.0, float("nan"), 3.0], device=device)
    ids = np.array([7, 8, 9, 5])
    picked = selector(vector, logits=logits, ids=ids, targets=torch.zeros(4))
    assert picked.indices.tolist() == [0, 1]
    (seen,) = policy.seen
    assert set(seen) == {"losses", "logits", "ids", "positions"}
    assert all(isinstance(seen[n], torch.Tensor) for n in ("losses", "logits", "ids"))
    assert seen["logits"].device.type == device and seen["ids"].tolist() == [7, 8, 9, 5]
    assert seen["losses"].tolist() == [1.0, 2.0, 2.0, 3.0]


def test_signals_that_are_missing_or_too_short() -> None:
    selector = st.BatchSelector(Recorder(), k=2)
    with pytest.raises(so.ProblemError, match="needs the signal 'ids': pass ids= to the selector"):
        selector(losses(4), logits=torch.ones(4, 2))
    with pytest.raises(so.ProblemError, match=r"'logits' has shape \(3, 2\) for 4 candidates"):
        selector(losses(4), logits=torch.ones(3, 2), ids=torch.arange(4))


def test_choosing_without_losses() -> None:
    selector = st.BatchSelector("uniform", rate=0.25, seed=0)
    assert not selector.needs_scoring(8)
    assert len(selector.without_losses(8)) == 2
    obtf = st.BatchSelector("obtf", rate=0.25, seed=0)
    assert obtf.needs_scoring(8)
    with pytest.raises(so.ProblemError, match="needs the signal 'losses'"):
        obtf.without_losses(8)


class Sometimes(Recorder):
    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def needs_scoring(self, state: SelectionState) -> bool:
        return state.step % 2 == 1 and (state.n, state.k) == (8, 2)


def test_needs_scoring_sees_the_state() -> None:
    selector = st.BatchSelector(Sometimes(), rate=0.25)
    assert not selector.needs_scoring(8)
    selector.everything(8)
    assert selector.needs_scoring(8)
