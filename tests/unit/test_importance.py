"""importance: when it is on, what it scores, what it refuses, what it remembers."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import Feedback, Policy, SelectionState, make_policy
from subsetopt.policies.importance import Importance, TauRow, largest_speedup

N, B = 128, 13
FLAT = np.ones(B)
SPIKED = np.where(np.arange(B) == 0, 100.0, 0.1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def told(bounds: np.ndarray, step: int = 0) -> Feedback:
    return Feedback(step, None, None, np.ones(len(bounds)), signals={"upper_bound": bounds})


def switched_on(**options: object) -> Importance:
    policy = Importance(**options)  # type: ignore[arg-type]
    policy.tau = 1e9
    return policy


def test_it_satisfies_the_protocol() -> None:
    policy = make_policy("importance")
    assert isinstance(policy, Policy) and isinstance(policy, Importance)
    assert policy.requires == {"upper_bound"} == policy.learns_from
    assert policy.tau == 0.0 and policy.history == [] and policy.switches == []
    assert repr(policy) == (
        "Importance(presample=3.0, score='upper_bound', tau_threshold=None, momentum=0.9, "
        "max_weight=None)"
    )
    by_loss = make_policy("importance", score="loss")
    assert (by_loss.requires, by_loss.learns_from) == ({"losses"}, set())  # type: ignore[attr-defined]
    exact = make_policy("importance", score="gradient_norm")
    assert exact.requires == {"gradient_norms"}
    assert exact.learns_from == {"upper_bound"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("presample", "n", "k", "size", "threshold"),
    [
        (3.0, 128, 13, 39, 2.0),
        (3.0, 20, 13, 20, 59 / 39),
        (2.5, 128, 13, 33, 72 / 39),
        (1.0, 128, 13, 13, 4 / 3),
        (None, 128, 64, 128, 320 / 192),
    ],
)
def test_presampled_and_threshold(
    presample: float | None, n: int, k: int, size: int, threshold: float
) -> None:
    policy = Importance(presample=presample)
    assert policy.presampled(n, k) == size
    assert policy.threshold(n, k) == pytest.approx(threshold)
    drawn = policy.presample(SelectionState(0, n, k), rng())
    if size == n:
        assert drawn is None
    else:
        assert drawn is not None and drawn.dtype == np.int64
        assert drawn.size == size and (np.diff(drawn) > 0).all()
        assert drawn[0] >= 0 and drawn[-1] < n


def test_presampling_is_uniform() -> None:
    policy, generator, counts = Importance(presample=2.0), rng(1), np.zeros(30)
    for _ in range(6000):
        counts[policy.presample(SelectionState(0, 30, 5), generator)] += 1
    # Each is drawn with probability 1/3; five standard deviations are 183.
    assert np.abs(counts - 2000).max() < 183


def test_off_at_first_on_when_it_pays_off_when_it_no_longer_does() -> None:
    policy = Importance(momentum=0.5)
    ons = []
    for step in range(12):
        on = policy.needs_scoring(SelectionState(step, N, B))
        ons.append(on)
        rising = step < 4
        if on:
            scores = np.full(39, 1.0)
            scores[:2] = 400.0 if rising else 1.0
            problem = policy.propose({"upper_bound": scores}, B, rng(step))
            assert isinstance(problem.objective, so.SamplingDesign)
        else:
            problem = policy.propose({"positions": np.arange(N)}, B, rng(step))
            assert isinstance(problem.objective, so.TopScores)
        policy.observe(told(SPIKED if rising else FLAT, step))
    first = ons.index(True)
    last = len(ons) - 1 - ons[::-1].index(True)
    assert 0 < first < 4 and 4 < last < 11
    assert ons == [first <= step <= last for step in range(12)]  # once on, once off
    assert policy.switches == [(first, True), (last + 1, False)]
    assert [row.step for row in policy.history] == list(range(12))
    assert [row.on for row in policy.history] == ons
    taus = [row.tau for row in policy.history]
    assert all(
        on is (before > policy.threshold(N, B))
        for before, on in zip([0.0, *taus[:-1]], ons, strict=True)
    )


def test_while_on_it_learns_from_the_scored_and_not_from_the_trained() -> None:
    policy = switched_on(momentum=0.0)
    scores = rng().exponential(size=39)
    policy.propose({"upper_bound": scores}, B, rng())
    policy.observe(told(SPIKED))
    g = scores / scores.sum()
    assert policy.tau == pytest.approx(math.sqrt(39 * (g @ g)))


def test_a_draw_is_learned_from_once() -> None:
    """Gathered samples may come back in two updates; those of a weighted draw are not uniform."""
    policy = switched_on()
    policy.propose({"upper_bound": SPIKED}, B, rng())
    for _ in range(2):
        policy.observe(replace(told(FLAT), scored=True))
    assert len(policy.history) == 1
    policy.observe(told(FLAT, 1))  # a whole batch, taken without a proposal
    assert [(row.step, row.on) for row in policy.history] == [(0, True), (1, False)]


def test_while_off_it_draws_uniformly_with_equal_weights() -> None:
    policy = Importance()
    counts = np.zeros(8)
    for seed in range(3000):
        problem = policy.propose({"positions": np.arange(8)}, 5, rng(seed))
        drawn = so.solve(problem, seed=0)
        assert (policy.weigh(drawn) == 0.2).all()
        counts[drawn.indices] += 1
    # Each is drawn with probability 5/8; five standard deviations are 133.
    assert np.abs(counts - 1875).max() < 133


def test_scores_of_zero_are_uniform_draws() -> None:
    policy = switched_on(momentum=0.0)
    problem = policy.propose({"upper_bound": np.zeros(39)}, B, rng())
    assert (problem.objective.inclusion == 1 / 39).all()  # type: ignore[attr-defined]
    assert so.solve(problem, seed=0).weights == pytest.approx(np.full(B, 1 / B))
    policy.observe(told(FLAT))
    assert policy.tau == pytest.approx(1.0)


def test_it_could_never_switch_on() -> None:
    message = (
        r"never switch on with b = 13: .* at most sqrt\(b\) = 3\.606, and tau_threshold is 4\.282 "
        r"= \(B \+ 3b\)/\(3b\) with B = 128 scored of n = 128\. Choose more samples per batch, or "
        r"pass presample below 7\.817, or pass tau_threshold, below 3\.606"
    )
    with pytest.raises(so.OptionError, match=message):
        Importance(presample=None).needs_scoring(SelectionState(0, N, B))
    with pytest.raises(so.OptionError, match=message):
        Importance(presample=None).propose({"positions": np.arange(N)}, B, rng())
    given = r"sqrt\(b\) = 2, and tau_threshold is 2\. Choose more .*, or pass tau_threshold below 2"
    with pytest.raises(so.OptionError, match=given):
        Importance(tau_threshold=2.0).needs_scoring(SelectionState(0, N, 4))
    with pytest.raises(so.OptionError, match=r"per batch, or pass tau_threshold, below 1\.\Z"):
        Importance().needs_scoring(SelectionState(0, N, 1))
    assert not Importance(presample=7.8).needs_scoring(SelectionState(0, N, B))


def test_a_small_last_batch_is_no_error() -> None:
    policy = Importance()
    assert not policy.needs_scoring(SelectionState(0, N, B))
    assert not policy.needs_scoring(SelectionState(1, 20, 2))
    assert policy.propose({"positions": np.arange(20)}, 2, rng()).k == 2
    assert not policy.needs_scoring(SelectionState(2, N, B))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presample": 0.5}, "presample must be a number of at least 1, got 0.5"),
        ({"presample": math.inf}, "presample must be a number of at least 1, got inf"),
        ({"presample": True}, "presample must be a number of at least 1, got True"),
        ({"score": "upperbound"}, "score must be one of .*, got 'upperbound'. Did you mean 'upper"),
        ({"score": None}, "score must be one of 'upper_bound', 'loss', 'gradient_norm', got None"),
        ({"tau_threshold": -1}, "tau_threshold must be a number of at least 0, got -1"),
        ({"momentum": 1.5}, "momentum must be a number from 0 to 1, got 1.5"),
        ({"momentum": 1}, "momentum must be below 1, got 1: the estimate would never move"),
        ({"max_weight": 0.9}, "max_weight must be a number of at least 1, got 0.9"),
        ({"max_weight": "no"}, "max_weight must be a number of at least 1, got 'no'"),
        ({"tau_treshold": 1}, "no option 'tau_treshold'. Did you mean 'tau_threshold'"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make_policy("importance", **options)


@pytest.mark.parametrize(
    ("signals", "score", "message"),
    [
        ({"positions": FLAT}, "upper_bound", "needs the signal 'upper_bound', got positions"),
        ({"losses": -FLAT}, "loss", r"got -1 at position 0. Shift the losses, or use score='upper"),
        (
            {"upper_bound": np.where(np.arange(39) == 3, np.nan, 1.0)},
            "upper_bound",
            "in proportion to 'upper_bound', which must be finite and at least 0, got nan at "
            "position 3",
        ),
        ({"upper_bound": np.ones((39, 2))}, "upper_bound", r"shape \(n,\), got \(39, 2\)"),
    ],
)
def test_malformed_signals(signals: dict[str, np.ndarray], score: str, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        switched_on(score=score).propose(signals, B, rng())


def test_feedback_without_what_it_learns_from() -> None:
    with pytest.raises(so.ProblemError, match=r"signals=\{'upper_bound': \.\.\.\}\), got logits"):
        Importance().observe(Feedback(0, None, None, FLAT, signals={"logits": FLAT}))
    policy = Importance(score="loss", momentum=0.0)
    policy.observe(Feedback(0, None, None, SPIKED))
    assert policy.tau > 3.0


def test_an_empty_batch_proposes_nothing() -> None:
    assert Importance().propose({"positions": np.arange(0)}, 0, rng()).k == 0
    assert Importance().propose({"positions": np.arange(5)}, 0, rng()).k == 0


def test_max_weight() -> None:
    policy = switched_on(max_weight=2.0)
    scores = np.where(np.arange(39) < 3, 50.0, 1.0)
    drawn = so.solve(policy.propose({"upper_bound": scores}, B, rng()), seed=3)
    assert drawn.weights.max() > 2 / B  # an easy one was drawn
    capped = policy.weigh(drawn)
    assert capped.max() == pytest.approx(2 / B)
    assert policy.last_clipped.samples == (drawn.weights > 2 / B).sum() > 0
    assert policy.clipped.weight == pytest.approx((drawn.weights - capped).sum())
    plain = switched_on()
    assert np.array_equal(plain.weigh(drawn), drawn.weights)
    assert plain.clipped == (0, 0.0, 1)


def advance(policy: Importance, steps: range) -> list[tuple[list[int], list[float]]]:
    """Train on made-up scores that first rise and then fall; return what was drawn."""
    drawn = []
    for step in steps:
        generator = rng(step)
        spread = 3.0 if 5 < step < 25 else 0.1
        bounds = np.exp(spread * rng(1000 + step).normal(size=N))
        on = policy.needs_scoring(SelectionState(step, N, B))
        positions = policy.presample(SelectionState(step, N, B), generator) if on else None
        signals = {"positions": np.arange(N)} if positions is None else {}
        if positions is not None:
            signals["upper_bound"] = bounds[positions]
        solution = so.solve(policy.propose(signals, B, generator), seed=(step, 1)).require()
        weights = policy.weigh(solution)
        drawn.append((solution.indices.tolist(), weights.tolist()))
        policy.observe(told(bounds[solution.indices], step))
    return drawn


@pytest.mark.parametrize("interrupted", [0, 4, 9, 20, 33])
def test_a_resumed_run_is_bit_identical(interrupted: int) -> None:
    whole = Importance(momentum=0.7, max_weight=3.0)
    expected = advance(whole, range(40))
    assert {row.on for row in whole.history} == {True, False}
    first = Importance(momentum=0.7, max_weight=3.0)
    begun = advance(first, range(interrupted))
    state = copy.deepcopy(first.state_dict())
    advance(first, range(interrupted, 40))  # a state is a copy: going on does not change it
    second = Importance(momentum=0.7, max_weight=3.0)
    second.load_state_dict(state)
    assert begun + advance(second, range(interrupted, 40)) == expected
    assert second.state_dict() == whole.state_dict()
    assert all(isinstance(row, TauRow) for row in second.history)


def test_a_state_between_proposal_and_feedback_is_whole() -> None:
    policy, other = switched_on(momentum=0.5), Importance(momentum=0.5)
    policy.propose({"upper_bound": SPIKED}, B, rng())
    other.load_state_dict(policy.state_dict())
    for each in (policy, other):
        each.observe(told(FLAT))
    assert policy.history == other.history
    assert other.history[0].on


def test_a_state_of_another_policy() -> None:
    with pytest.raises(so.OptionError, match=r"state to load \['tau'\]: it was saved by another"):
        Importance().load_state_dict({"tau": 1.0})


def test_a_long_history_is_thinned_and_no_switch_is_lost() -> None:
    policy, on_at = Importance(momentum=0.0), (101, 4095, 9003)
    for step in range(10_000):
        on = policy.needs_scoring(SelectionState(step, N, B))
        policy.propose({"upper_bound": FLAT} if on else {"positions": FLAT}, B, rng())
        policy.observe(told(SPIKED if step + 1 in on_at else FLAT, step))
    assert policy.switches == [(at + i, i == 0) for at in on_at for i in (0, 1)]
    assert [row.step for row in policy.history] == list(range(0, 10_000, 4))
    steps, taus = policy.curves()["tau"]
    assert steps[-1] == 9996 and taus[-1] == 1.0
    other = Importance(momentum=0.0)
    other.load_state_dict(copy.deepcopy(policy.state_dict()))
    assert other.switches == policy.switches and other.state_dict() == policy.state_dict()


def test_largest_speedup() -> None:
    assert largest_speedup(3 * B, B) == pytest.approx(1.5)
    assert largest_speedup(6 * B, B) == pytest.approx(2.0)
    with pytest.raises(so.OptionError, match="k must be a number of at least 1, got 0"):
        largest_speedup(3, 0)
