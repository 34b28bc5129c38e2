"""BatchSelector: constraints of the user and of the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from selector_parts import POLICIES, losses, with_bad

import subsetopt as so
from subsetopt.policies import Signals, StatelessPolicy

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402


def test_constraints_hold_per_batch_and_for_all_batches() -> None:
    groups = torch.arange(128) % 4
    selector = st.BatchSelector("obtf", k=12, seed=0, constraints={"quotas": {0: 3, 1: (5, 6)}})
    picked = selector(losses(), constraints={"groups": groups, "include": torch.tensor([5])})
    counts = np.bincount(groups[picked.indices].numpy(), minlength=4)
    assert counts[0] == 3 and counts[1] in (5, 6) and 5 in picked.indices
    with pytest.raises(so.ProblemError, match="quotas need groups"):
        selector(losses())


@pytest.mark.parametrize("policy", POLICIES)
def test_excluded_samples_and_bad_ones_together(policy: str) -> None:
    selector = st.BatchSelector(policy, k=61, seed=0, nonfinite="exclude")
    mask = np.zeros(64, dtype=bool)
    picked = selector(with_bad(), constraints={"exclude": mask})
    assert len(picked) == 61
    with pytest.warns(st.SelectionWarning, match="No subset satisfies"):
        picked = selector(with_bad(), constraints={"exclude": [0, 1]})
    assert picked.fallback is not None
    assert len(picked) == 59 and not {0, 1, 3, 10, 20} & set(picked.indices.tolist())


@dataclass
class OwnGroups(StatelessPolicy):
    requires: ClassVar[frozenset[str]] = frozenset({"losses"})

    def propose(self, signals: Signals, k: int, rng: np.random.Generator) -> so.Problem:
        groups = np.arange(len(signals["losses"])) % 2
        quotas = {0: k // 2}
        return so.Problem(so.MeanMatching(signals["losses"]), k, groups=groups, quotas=quotas)


def test_constraints_of_the_policy_are_kept() -> None:
    selector = st.BatchSelector(OwnGroups(), k=10, seed=0)
    picked = selector(losses(), constraints={"include": [1]})
    assert (picked.indices % 2 == 0).sum() == 5 and 1 in picked.indices
    with pytest.raises(so.ProblemError, match="policy sets groups itself"):
        selector(losses(), constraints={"groups": np.zeros(128), "quotas": {0: 10}})
