"""`online-batch` and `prioritized`: options, memory, state, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import Feedback, Policy, SelectionState, list_policies, make_policy
from subsetopt.policies.online_batch import OnlineBatch
from subsetopt.policies.prioritized import Prioritized

NAMES = ("online-batch", "prioritized")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def feedback(ids: Any, losses: Any) -> Feedback:
    return Feedback(0, ids, None, losses, ids=ids)


@pytest.mark.parametrize("name", NAMES)
def test_reads_ids_only(name: str) -> None:
    policy = make_policy(name)
    assert isinstance(policy, Policy)
    (row,) = (row for row in list_policies() if row.name == name)
    assert policy.requires == frozenset(row.requires) == {"ids"}
    assert row.summary and row.reference
    assert not policy.needs_scoring(SelectionState(0, 40, 4))
    problem = policy.propose({"ids": np.arange(40)}, 4, rng())
    assert (problem.n, problem.k) == (40, 4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 7, 40])
def test_draws_k_with_weights_of_at_most_one_over_k(name: str, k: int) -> None:
    policy: Any = make_policy(name)
    policy.refresh(np.arange(20), rng().exponential(size=20))
    solution = so.solve(policy.propose({"ids": np.arange(40)}, k, rng()), seed=0).require()
    weights = policy.weigh(solution)
    assert solution.indices.size == k == weights.size
    assert weights.max() == pytest.approx(1 / k) and weights.min() > 0.0
    ids, weights = policy.draw(40, k, rng())
    assert ids.size == k == weights.size and ids.dtype == np.int64
    assert weights.max() == pytest.approx(1 / k) and weights.min() > 0.0


@pytest.mark.parametrize("k", [1, 7, 40])
def test_online_batch_without_replacement_repeats_nothing(k: int) -> None:
    policy = OnlineBatch(replacement=False)
    policy.refresh(np.arange(20), rng().exponential(size=20))
    solution = so.solve(policy.propose({"ids": np.arange(40)}, k, rng()), seed=0).require()
    assert np.unique(solution.indices).size == k
    assert np.unique(policy.draw(40, k, rng())[0]).size == k
    assert policy.weigh(solution).tolist() == [1 / k] * k


def test_unseen_samples_come_first() -> None:
    policy = OnlineBatch(pressure=1e9)
    policy.refresh(np.array([0, 1, 2, 4]), np.array([1e30, 5.0, 7.0, 9.0]))
    assert set(np.argsort(-policy.probabilities(np.arange(6)))[:2]) == {3, 5}


def test_the_first_priority_is_the_papers() -> None:
    policy = Prioritized(alpha=1.0)
    assert policy.largest_priority == 1.0
    policy.observe(feedback(np.array([0]), np.array([0.25])))
    p = policy.probabilities(np.arange(2))
    assert p[1] / p[0] == pytest.approx(1.0 / (0.25 + 1e-6))
    policy.observe(feedback(np.array([0]), np.array([-3.0])))
    policy.observe(feedback(np.array([0]), np.array([0.5])))
    assert policy.largest_priority == 3.0 + 1e-6  # so far, not now


def test_alpha_zero_and_pressure_one_are_uniform() -> None:
    ids = np.arange(9)
    for policy in (Prioritized(alpha=0.0), OnlineBatch(pressure=1.0)):
        policy.refresh(ids, rng().exponential(size=9))
        np.testing.assert_allclose(policy.probabilities(ids), 1 / 9, rtol=1e-12)


def test_a_refresh_is_asked_for_every_so_often() -> None:
    policy = OnlineBatch(recompute_every=3)
    asked = []
    for t in range(8):
        asked.append(policy.wants_refresh)
        if policy.wants_refresh:
            policy.refresh(np.arange(5), np.full(5, float(t)))
        policy.draw(5, 2, rng(t))
    assert asked == [False, False, False, True, False, False, True, False]
    assert not OnlineBatch().wants_refresh


def test_draws_follow_what_is_learned_between_them() -> None:
    """The table kept for a data set is the same as one made anew."""
    kept: dict[str, Any] = {name: make_policy(name) for name in NAMES}
    for t in range(30):
        ids = rng(t).integers(0, 600, 16)
        losses = rng(t + 100).exponential(size=16) * (1 + t)
        for name, policy in kept.items():
            policy.draw(500, 8, rng(t))
            policy.observe(feedback(ids, losses))
            anew: Any = make_policy(name)
            anew.load_state_dict(policy.state_dict())
            mine, theirs = policy.draw(500, 8, rng(t + 1)), anew.draw(500, 8, rng(t + 1))
            assert np.array_equal(mine[0], theirs[0]) and np.array_equal(mine[1], theirs[1])


@pytest.mark.parametrize("name", NAMES)
def test_another_size_of_data_is_another_table(name: str) -> None:
    policy: Any = make_policy(name)
    policy.refresh(np.arange(300), rng().exponential(size=300))
    for n in (300, 20, 1000, 1):
        ids, _ = policy.draw(n, 1 if n == 1 else 16, rng())
        assert 0 <= ids.min() and ids.max() < n
    assert np.array_equal(policy.draw(1, 1, rng())[0], [0])


@pytest.mark.parametrize("name", NAMES)
def test_state_is_plain_and_goes_on_bit_identically(name: str) -> None:
    def run(policy: Any, steps: range) -> list[tuple[list[int], list[float]]]:
        made = []
        for t in steps:
            ids = rng(t).choice(90, 30, replace=False)
            problem = policy.propose({"ids": ids}, 6, rng(t))
            solution = so.solve(problem, seed=t).require()
            made.append((ids[solution.indices].tolist(), policy.weigh(solution).tolist()))
            picked = ids[solution.indices]
            policy.observe(feedback(picked, np.sin(picked * (t + 1.0))))
        return made

    options = {"steps": 20} if name == "prioritized" else {"steps": 20, "recompute_every": 4}
    whole = run(make_policy(name, **options), range(16))
    first: Any = make_policy(name, **options)
    assert run(first, range(7)) == whole[:7]
    state = first.state_dict()
    assert all(isinstance(v, (list, int, float, type(None))) for v in state.values())
    assert all(type(loss) is float for loss in state["losses"])
    json.dumps(state)
    second: Any = make_policy(name, **options)
    second.load_state_dict(state)
    assert run(second, range(7, 16)) == whole[7:]


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_another_policy_is_refused(name: str) -> None:
    with pytest.raises(so.OptionError, match=rf"a state of {name} holds .*'tau'.*another policy"):
        make_policy(name).load_state_dict({"tau": 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_malformed_ids_and_losses(name: str) -> None:
    policy = make_policy(name)
    with pytest.raises(so.ProblemError, match=r"needs the signal 'ids', got losses; pass ids="):
        policy.propose({"losses": np.ones(3)}, 1, rng())
    with pytest.raises(so.ProblemError, match=rf"policy '{name}' remembers samples by id, and the"):
        policy.observe(Feedback(0, np.arange(2), None, np.ones(2)))
    for ids, message in (
        (np.array([0.0, 1.0]), "integers, strings or bytes, got dtype float64"),
        (np.array([True, False]), "integers, strings or bytes, got dtype bool"),
        (np.array([3, -1]), r"got -1, which stands for samples without an id: number the"),
        (np.array([3, 2**63], dtype=np.uint64), "64 bits with a sign, got 9223372036854775808"),
        ([3, 2**70], f"64 bits with a sign, got {2**70}; pass"),
        ([3, "a"], "all of one kind, got int and str; pass"),
        (np.array([None, 2.5]), "all of one kind, got NoneType and float"),
        ([[1], [1, 2]], r"ids must have shape \(n,\), one per sample: "),
        (np.ones((2, 1), dtype=int), r"ids must have shape \(n,\), got \(2, 1\)"),
    ):
        with pytest.raises(so.ProblemError, match=message):
            policy.observe(feedback(ids, np.ones(2)))
    for losses, message in (
        (np.ones(3), r"losses must be one per id, shape \(2,\), got shape \(3,\)"),
        (np.float64(1.0), r"shape \(2,\), got shape \(\)"),
        (np.array([1.0, np.nan]), "finite in single precision, got nan for id 8"),
        (np.array([-np.inf, 1.0]), "finite in single precision, got -inf for id 5"),
        (np.array([1.0, 1e39]), r"finite in single precision, got 1e\+39 for id 8"),
    ):
        with pytest.raises(so.ProblemError, match=message):
            policy.observe(feedback(np.array([5, 8]), losses))
    assert policy.memory.size == 0  # type: ignore[attr-defined]


def test_nothing_to_observe_is_nothing_learned() -> None:
    for name in NAMES:
        policy: Any = make_policy(name)
        policy.observe(feedback(np.empty(0, dtype=np.int64), np.empty(0)))
        assert policy.memory.size == 0
        assert policy.probabilities(np.empty(0, dtype=np.int64)).size == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlineBatch(pressure=0.5), "pressure must be a number of at least 1, got 0.5"),
        (lambda: OnlineBatch(final_pressure=0), "final_pressure must be .* at least 1, got 0"),
        (lambda: OnlineBatch(steps=0), "steps must be an integer >= 1 or None, got 0"),
        (lambda: OnlineBatch(recompute_every=1.5), "recompute_every must be an integer .* got 1.5"),
        (lambda: Prioritized(alpha=1.5), "alpha must be a number from 0 to 1, got 1.5"),
        (lambda: Prioritized(beta=-0.1), "beta must be a number from 0 to 1, got -0.1"),
        (lambda: Prioritized(epsilon=0), "epsilon must be above 0"),
        (lambda: Prioritized(steps=True), "steps must be an integer >= 1 or None, got True"),
    ],
)
def test_options_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make()


def test_options_are_shown() -> None:
    assert repr(make_policy("online-batch", steps=9)) == (
        "OnlineBatch(pressure=100.0, final_pressure=1.0, steps=9, recompute_every=None, "
        "replacement=True)"
    )
    assert repr(make_policy("prioritized", beta=0.5)) == (
        "Prioritized(alpha=0.6, beta=0.5, steps=None, epsilon=1e-06, normalize=True)"
    )
