"""AdaSelection as a policy: options, candidates, history, state."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import Feedback, Policy, ScoredPolicy, SelectionState, make_policy
from subsetopt.policies.adaselection import AdaSelection
from subsetopt.policies.parts import history


def batches(count: int, n: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.exponential(size=n) / (1 + t) for t in range(count)]


def play(policy: AdaSelection, drawn: list[np.ndarray], first: int = 0) -> list[list[float]]:
    """Return the scores of every batch; each has a generator of its own, as in a selector."""
    found = []
    for step, losses in enumerate(drawn, start=first):
        problem = policy.propose({"losses": losses}, 4, np.random.default_rng([7, step]))
        found.append(problem.objective.scores.tolist())  # type: ignore[attr-defined]
    return found


class Counting(ScoredPolicy):
    """Scores by the amount of feedback it got, and remembers it."""

    requires = frozenset({"ids"})
    learns_from = frozenset({"upper_bound"})

    def __init__(self) -> None:
        self.told = 0

    def scores(self, signals: Mapping[str, Any], k: int, rng: np.random.Generator) -> np.ndarray:
        return np.cos(signals["ids"] + self.told)

    def observe(self, feedback: Feedback) -> None:
        self.told += 1

    def state_dict(self) -> dict[str, Any]:
        return {"told": self.told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.told = state["told"]


def test_it_is_a_policy_with_a_beta_below_0() -> None:
    policy = make_policy("adaselection")
    assert isinstance(policy, Policy) and isinstance(policy, AdaSelection)
    assert policy.names == ("big-loss", "small-loss", "uniform")
    assert (policy.beta, policy.curriculum, policy.method_loss) == (-0.5, -0.5, "picked")
    (row,) = (row for row in so.list_policies() if row.name == "adaselection")
    assert policy.requires == frozenset(row.requires) == {"losses"}
    assert policy.needs_scoring(SelectionState(0, 10, 2))
    assert repr(policy) == (
        "AdaSelection(['big-loss', 'small-loss', 'uniform'], beta=-0.5, curriculum=-0.5, "
        "method_loss='picked')"
    )


@pytest.mark.parametrize("beta", [0.5, 1, 1e-9])
def test_a_beta_above_0_warns_once_and_names_the_remedy(beta: float) -> None:
    said = (
        rf"adaselection with beta={beta} gives weight .* Pass a beta below 0; the default is -0\.5"
    )
    with pytest.warns(UserWarning, match=said) as warned:
        policy = make_policy("adaselection", beta=beta)
        play(policy, batches(3))  # type: ignore[arg-type]
    assert len(warned) == 1


@pytest.mark.parametrize("beta", [0.0, -0.5, -1.0])
def test_a_beta_of_at_most_0_says_nothing(beta: float) -> None:
    play(AdaSelection(beta=beta), batches(3))  # the tests turn warnings into errors


def test_it_requires_what_its_candidates_do() -> None:
    policy = AdaSelection(["uniform", "gradient-norm", "upper-bound", Counting()])
    assert policy.requires == {"losses", "gradient_norms", "upper_bound", "ids"}
    assert policy.learns_from == {"upper_bound"}
    assert policy.names == ("uniform", "gradient-norm", "upper-bound", "Counting")
    with pytest.raises(so.ProblemError, match=r"needs the signal 'gradient_norms'"):
        policy.propose({"losses": np.ones(3)}, 1, np.random.default_rng(0))
    with pytest.raises(so.ProblemError, match=r"'adaselection' needs the signal 'losses', got ids"):
        policy.propose({"ids": np.ones(3)}, 1, np.random.default_rng(0))


def test_candidates_of_every_signal_take_part() -> None:
    policy = AdaSelection(["gradient-norm", "uncertainty", "big-loss", make_policy("small-loss")])
    rng = np.random.default_rng(0)
    for losses in batches(3):
        signals = {
            "losses": losses,
            "gradient_norms": rng.random(20),
            "logits": rng.normal(size=(20, 3)),
        }
        problem = policy.propose(signals, 4, rng)
    assert problem.objective.names == ("gradient-norm", "uncertainty", "big-loss", "SmallLoss")
    assert len(set(policy.weights.values())) == 4


def test_host_scores_beside_losses_on_a_device_and_the_other_way_round() -> None:
    torch = pytest.importorskip("torch")

    class Other(ScoredPolicy):
        def scores(self, signals: Mapping[str, Any], k: int, rng: np.random.Generator) -> Any:
            given = signals["losses"]
            return torch.from_numpy(given) if isinstance(given, np.ndarray) else given.numpy()

    losses = batches(1)[0]
    expected = AdaSelection(["big-loss"]).propose({"losses": losses}, 4, np.random.default_rng(0))
    for signal in (losses, torch.from_numpy(losses)):
        found = AdaSelection([Other()]).propose({"losses": signal}, 4, np.random.default_rng(0))
        np.testing.assert_allclose(found.objective.scores, expected.objective.scores, rtol=1e-12)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["obtf", "adaselection", "proportional-loss"])
def test_what_can_be_a_candidate_and_what_cannot(name: str) -> None:
    if name == "proportional-loss":
        assert AdaSelection([name]).names == (name,)
        return
    with pytest.raises(so.OptionError, match=rf"the policy '{name}' gives no scores, so .* These"):
        AdaSelection([name])
    with pytest.raises(so.OptionError, match=r"These can: .*big-loss.*, rho-loss, uncertainty"):
        AdaSelection(["big-loss", make_policy(name)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": ["big-los"]}, r"no policy named 'big-los'\. Did you mean 'big-loss'"),
        ({"candidates": "big-loss"}, "candidates must be a list of policies .* got 'big-loss'"),
        ({"candidates": []}, r"at least one, got \[\]\. These can: uniform, big-loss"),
        ({"candidates": [3]}, "3 gives no scores, so that it cannot be a candidate"),
        ({"candidates": ["rho-loss"]}, "rho-loss needs the irreducible losses"),
        ({"beta": 1.5}, "beta must be a number from -1 to 1, got 1.5"),
        ({"beta": True}, "beta must be a number from -1 to 1, got True"),
        ({"beta": float("nan")}, "beta must be a number from -1 to 1, got nan"),
        ({"curriculum": 0.0}, r"curriculum must be a number below 0, .* None for no reward, got 0"),
        ({"curriculum": 1}, "curriculum must be a number below 0"),
        ({"curriculum": float("-inf")}, "curriculum must be a number below 0"),
        ({"curriculum": "no"}, "curriculum must be a number below 0.* got 'no'"),
        ({"method_loss": "all"}, "method_loss must be 'picked' or 'batch', got 'all'"),
        ({"method_los": "all"}, r"no option 'method_los'\. Did you mean 'method_loss'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make_policy("adaselection", **options)


def test_scores_that_are_none() -> None:
    class Wrong(ScoredPolicy):
        value: Any = None

        def scores(self, signals: Mapping[str, Any], k: int, rng: np.random.Generator) -> Any:
            return self.value

    wrong = Wrong()
    policy = AdaSelection(["big-loss", wrong])
    for value, message in (
        (np.ones(2), r"candidate 'Wrong' must give one score per sample, shape \(3,\), got \(2,\)"),
        (np.array([1.0, np.nan, 2.0]), r"scores of the candidate 'Wrong' must be finite; .* 1 \(n"),
    ):
        wrong.value = value
        with pytest.raises(so.ProblemError, match=message):
            policy.propose({"losses": np.ones(3)}, 1, np.random.default_rng(0))
    with pytest.raises(so.ProblemError, match="losses must be finite; not finite at positions 0"):
        policy.propose({"losses": np.array([np.inf, 1.0])}, 1, np.random.default_rng(0))
    assert policy.history == [] and policy.state_dict()["t"] == 0


def test_nothing_chosen_nothing_learned() -> None:
    policy = AdaSelection()
    empty = policy.propose({"losses": np.empty(0)}, 0, np.random.default_rng(0))
    none = policy.propose({"losses": np.ones(5)}, 0, np.random.default_rng(0))
    assert (empty.n, none.n, none.k) == (0, 5, 0)
    assert so.solve(none).indices.size == 0
    assert policy.history == []
    with pytest.raises(so.ProblemError):
        policy.propose({"losses": np.ones(5)}, 6, np.random.default_rng(0))
    assert policy.history == []


def test_history_holds_the_weights_of_every_iteration() -> None:
    policy = AdaSelection()
    assert policy.weights == dict.fromkeys(policy.names, 1 / 3)
    play(policy, batches(5))
    assert [t for t, _ in policy.history] == [1, 2, 3, 4, 5]
    assert policy.history[0][1] == (1 / 3, 1 / 3, 1 / 3)
    assert policy.history[-1][1] == tuple(policy.weights.values())
    assert len(set(policy.history[-1][1])) == 3
    for m, (name, (times, weights)) in enumerate(policy.curves().items()):
        assert name == policy.names[m] and times == [1, 2, 3, 4, 5]
        assert weights == [record[m] for _, record in policy.history]


def test_history_is_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_FULL", 8)
    policy = AdaSelection()
    longest = 0
    for losses in batches(100):
        play(policy, [losses])
        longest = max(longest, len(policy.history))
        times = [t for t, _ in policy.history]
        gaps = {later - earlier for earlier, later in itertools.pairwise(times)}
        assert times[0] == 1 and len(gaps) <= 1
        assert policy.state_dict()["t"] - times[-1] < max(gaps, default=1)
    assert longest == 7 and len(policy.history) >= 4


@pytest.mark.parametrize("through_json", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_resumed_run_is_bit_identical(
    cut: int, through_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_FULL", 4)
    drawn = batches(11)
    whole = AdaSelection()
    expected = play(whole, drawn)
    first = AdaSelection()
    play(first, drawn[:cut])
    state = first.state_dict()
    if through_json:
        state = json.loads(json.dumps(state))
    play(first, drawn[cut:], cut)  # what is saved does not change when the run goes on
    resumed = AdaSelection()
    resumed.load_state_dict(state)
    assert play(resumed, drawn[cut:], cut) == expected[cut:]
    assert resumed.state_dict() == whole.state_dict() == first.state_dict()
    assert resumed.history == whole.history


def test_candidates_learn_and_are_saved() -> None:
    policy = AdaSelection([Counting(), "big-loss"])
    feedback = Feedback(0, np.array([0]), np.ones(1), np.ones(1))
    policy.observe(feedback)
    policy.observe(feedback)
    other = AdaSelection([Counting(), "big-loss"])
    other.load_state_dict(policy.state_dict())
    assert (
        policy.state_dict()["candidates"]
        == other.state_dict()["candidates"]
        == [
            {"told": 2},
            {},
        ]
    )
    signals = {"losses": np.arange(4.0), "ids": np.arange(4)}
    ours, theirs = (
        p.propose(signals, 2, np.random.default_rng(0)).objective.scores  # type: ignore[attr-defined]
        for p in (policy, other)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_states_of_others_are_refused() -> None:
    policy = AdaSelection()
    with pytest.raises(so.OptionError, match=r"state of adaselection lacks \['candidates', 'floor"):
        policy.load_state_dict({"t": 3})
    other = AdaSelection(["big-loss", "uniform"]).state_dict()
    with pytest.raises(so.OptionError, match=r"candidates \['big-loss', 'uniform'\], this policy"):
        policy.load_state_dict(other)


def test_the_reward_prefers_easy_samples_at_first_and_fades() -> None:
    losses = np.linspace(0.1, 3.0, 20)
    policy = AdaSelection(["big-loss"], curriculum=-1.0)
    rng = np.random.default_rng(0)
    chosen = [so.solve(policy.propose({"losses": losses}, 4, rng)).indices for _ in range(400)]
    means = [losses[indices].mean() for indices in chosen]
    assert means == sorted(means)
    assert set(chosen[-1]) == {16, 17, 18, 19}
    tiny = AdaSelection(["big-loss"]).propose({"losses": 1e-3 * losses}, 4, rng)
    assert set(so.solve(tiny).indices) == {0, 1, 2, 3}  # it is not scale-free
