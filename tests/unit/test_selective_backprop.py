"""selective-backprop: its probabilities, its history, and how many samples it keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import subsetopt as so
from subsetopt.policies import make_policy, to_host

BATCHES = st.lists(
    hnp.arrays(
        np.float64,
        st.integers(1, 8),
        elements=st.one_of(st.floats(-5.0, 5.0, width=32), st.sampled_from([0.0, 1.0])),
    ),
    min_size=1,
    max_size=5,
)


class Twin:
    """The paper's rule, one sample after the other."""

    def __init__(self, beta: float, size: int) -> None:
        self.beta, self.recent = beta, deque[float](maxlen=size)

    def kept(self, losses: Iterable[float], rng: np.random.Generator) -> list[int]:
        values = [float(loss) for loss in losses]
        self.recent.extend(values)
        draws = rng.random(len(values))
        return [i for i, loss in enumerate(values) if draws[i] < self._chance(loss)]

    def _chance(self, loss: float) -> float:
        return float((sum(r <= loss for r in self.recent) / len(self.recent)) ** self.beta)


def kept(policy: Any, losses: Any, k: int, seed: int) -> list[int]:
    problem = policy.propose({"losses": losses}, k, np.random.default_rng(seed))
    solution = so.solve(problem).require()
    assert solution.indices.size == problem.k
    np.testing.assert_allclose(solution.weights, 1.0 / max(1, problem.k))
    return solution.indices.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(batches=BATCHES, beta=st.sampled_from([0.0, 0.5, 1.0, 3.0]), size=st.integers(1, 12))
def test_keeps_what_the_papers_rule_keeps(
    kind: str, dtype: str, batches: list[np.ndarray], beta: float, size: int
) -> None:
    torch = pytest.importorskip("torch")
    policy, twin = make_policy("selective-backprop", beta=beta, size=size), Twin(beta, size)
    for seed, losses in enumerate(batch.astype(dtype) for batch in batches):
        given_ = torch.as_tensor(losses) if kind == "torch" else losses
        expected = twin.kept(losses, np.random.default_rng(seed))
        assert kept(policy, given_, losses.size, seed) == expected


@pytest.mark.parametrize(("options", "rate"), [({}, 0.25), ({"beta": 1.0}, 0.5)])
def test_keeps_the_share_it_promises(options: dict[str, float], rate: float) -> None:
    """k on average by default, n / (1 + beta) with a beta, whatever k is."""
    policy = make_policy("selective-backprop", size=20_000, **options)
    rng = np.random.default_rng(0)
    total = sum(len(kept(policy, rng.exponential(size=400), 100, seed)) for seed in range(50))
    # Each of 20,000 is kept independently: five standard deviations.
    assert abs(total - 20_000 * rate) < 5 * np.sqrt(20_000 * rate * (1 - rate))


def test_large_losses_are_kept_more_often() -> None:
    policy = make_policy("selective-backprop", beta=2.0)
    losses, counts = np.arange(10.0), np.zeros(10)
    for seed in range(2_000):
        counts[kept(policy, losses, 5, seed)] += 1
    expected = 2_000 * (np.arange(1, 11) / 10) ** 2
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected * (1 - expected / 2_000))).all()


def test_a_resumed_run_remembers() -> None:
    batches = [np.random.default_rng(i).exponential(size=32) / (1 + i) for i in range(8)]
    policy = make_policy("selective-backprop", size=50)
    for seed in range(4):
        kept(policy, batches[seed], 8, seed)
    state = policy.state_dict()
    straight = [kept(policy, batches[seed], 8, seed) for seed in range(4, 8)]
    resumed = make_policy("selective-backprop", size=50)
    forgetful = make_policy("selective-backprop", size=50)
    resumed.load_state_dict(state)
    assert [kept(resumed, batches[seed], 8, seed) for seed in range(4, 8)] == straight
    assert [kept(forgetful, batches[seed], 8, seed) for seed in range(4, 8)] != straight
    assert len(resumed.state_dict()["recent"]) == 50


def test_a_longer_history_is_cut() -> None:
    long, short = (make_policy("selective-backprop", size=size) for size in (8, 3))
    kept(long, np.arange(6.0), 2, 0)
    short.load_state_dict(long.state_dict())
    assert short.state_dict() == {"recent": [3.0, 4.0, 5.0]}


def test_all_none_and_equal_losses() -> None:
    policy = make_policy("selective-backprop")
    assert kept(policy, np.ones(6), 6, 0) == list(range(6))
    assert kept(policy, np.ones(6), 0, 0) == []
    assert kept(policy, np.empty(0), 0, 0) == []
    # Equal losses: nobody has seen a larger one, so all are kept, whatever beta is.
    assert kept(policy, np.ones(6), 1, 0) == list(range(6))


def test_excluded_samples_are_not_replaced_by_others() -> None:
    policy = make_policy("selective-backprop", beta=4.0)
    losses = np.arange(40.0)
    problem = policy.propose({"losses": losses}, 10, np.random.default_rng(1))
    chosen = so.solve(problem).indices
    without = so.Problem(problem.objective, problem.k, problem.cardinality, exclude=chosen[:2])
    assert so.solve(without).indices.tolist() == chosen[2:].tolist()


def test_bad_losses_leave_the_history_alone() -> None:
    policy = make_policy("selective-backprop")
    with pytest.raises(so.ProblemError, match=r"losses must be finite; .* positions 1"):
        policy.propose({"losses": np.array([1.0, np.nan])}, 1, np.random.default_rng(0))
    assert policy.state_dict() == {"recent": []}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta must be a number of at least 0, got -1.0"),
        ({"beta": float("nan")}, "beta must be a number of at least 0, got nan"),
        ({"beta": "1"}, "beta must be a number of at least 0, got '1'"),
        ({"size": 0}, "size must be an integer >= 1, got 0"),
        ({"size": 10.0}, "size must be an integer >= 1, got 10.0"),
    ],
)
def test_refuses_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make_policy("selective-backprop", **options)


def test_works_in_a_selector_with_a_sample_left_out() -> None:
    torch = pytest.importorskip("torch")
    st_ = pytest.importorskip("subsetopt_torch")
    losses = torch.rand(64, generator=torch.Generator().manual_seed(0))
    losses[7] = float("nan")
    selector = st_.BatchSelector("selective-backprop", rate=0.5, seed=0, nonfinite="exclude")
    picked = selector(losses)
    assert 15 < len(picked) < 50 and 7 not in to_host(picked.indices)
    assert picked.fallback is None and picked.excluded == 1
