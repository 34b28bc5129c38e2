"""balanced and gradient-matching: what they read, refuse and remember."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from policy_runs import resolved

import subsetopt as so
from subsetopt.policies import Policy, SelectionState, SolverChoice, make_policy
from subsetopt.policies.balanced import Balanced
from subsetopt.policies.gradient_matching import GradientMatching
from subsetopt.solvers.swap import Swap
from subsetopt.solvers.vectors.omp import OrthogonalMatchingPursuit

N, K = 64, 8
BOUNDS = np.random.default_rng(5).exponential(size=N) ** 2
LOSSES = BOUNDS * np.random.default_rng(6).uniform(0.5, 1.5, size=N)
GRADIENTS = np.random.default_rng(7).normal(size=(N, 3)) * BOUNDS[:, None]
SIGNALS = {"upper_bound": BOUNDS, "losses": LOSSES, "logit_gradients": GRADIENTS}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_they_satisfy_the_protocol() -> None:
    for name, needed in (("balanced", {"losses", "upper_bound"}),):
        policy = make_policy(name)
        assert isinstance(policy, Policy)
        assert policy.requires == needed
    assert make_policy("balanced", score="loss", balance=None).requires == {"losses"}
    every = {"gradient_norms", "losses", "logit_gradients"}
    options = {"score": "gradient_norm", "balance": "logit_gradients"}
    assert make_policy("balanced", **options).requires == every
    assert make_policy("balanced").needs_scoring(SelectionState(0, N, K))
    matching = make_policy("gradient-matching")
    assert isinstance(matching, Policy)
    assert matching.requires == {"logit_gradients"}
    assert matching.needs_scoring(SelectionState(0, N, K))
    assert make_policy("gradient-matching", signal="last_layer_gradients").requires == {
        "last_layer_gradients"
    }


@pytest.mark.parametrize(
    ("balance", "columns", "solver"),
    [("loss", 1, "cube"), ("logit_gradients", 4, "cube"), (None, 0, "systematic")],
)
def test_what_is_balanced(balance: str | None, columns: int, solver: str) -> None:
    problem = Balanced(balance=balance).propose(SIGNALS, K, rng())  # type: ignore[arg-type]
    design = problem.objective
    assert isinstance(design, so.SamplingDesign)
    assert (0 if design.balance is None else design.balance.shape[1]) == columns
    drawn = so.solve(problem, seed=0)
    assert drawn.solver == solver and drawn.indices.size == K


def test_balance_makes_the_mean_loss_nearly_certain() -> None:
    def spread(balance: str | None) -> float:
        problem = Balanced(balance=balance, max_weight=None).propose(  # type: ignore[arg-type]
            SIGNALS, K, rng()
        )
        draws = (so.solve(problem, seed=seed) for seed in range(200))
        return float(np.std([draw.weights @ LOSSES[draw.indices] for draw in draws]))

    assert spread("loss") < 0.5 * spread(None)


def test_mix_bounds_the_weights_without_a_cap() -> None:
    policy = Balanced(mix=0.25, max_weight=None)
    problem = policy.propose(SIGNALS, K, rng())
    weights = 1.0 / (N * problem.objective.inclusion)  # type: ignore[attr-defined]
    assert weights.max() <= 4.0 / K * (1.0 + 1e-12)
    uniform = Balanced(mix=1.0).propose(SIGNALS, K, rng()).objective
    assert np.allclose(uniform.inclusion, K / N)  # type: ignore[attr-defined]


def test_scores_of_zero_are_uniform_draws() -> None:
    signals = {"upper_bound": np.zeros(N), "losses": np.zeros(N)}
    problem = Balanced(mix=0.0).propose(signals, K, rng())
    assert np.allclose(problem.objective.inclusion, K / N)  # type: ignore[attr-defined]
    assert so.solve(problem, seed=0).weights == pytest.approx(np.full(K, 1 / K))


def test_what_was_clipped_is_told() -> None:
    policy = Balanced(mix=0.0, max_weight=1.5)
    samples, weight = 0, 0.0
    for seed in range(20):
        drawn = so.solve(policy.propose(SIGNALS, K, rng()), seed=seed)
        kept = policy.weigh(drawn)
        assert kept.max() <= 1.5 / K
        assert policy.last_clipped.samples == (drawn.weights > 1.5 / K).sum()
        samples += policy.last_clipped.samples
        weight += policy.last_clipped.weight
    assert policy.clipped == (samples, pytest.approx(weight), 20)
    assert samples > 0


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_weights_sum_to_1_in_expectation_whatever_their_power(power: float) -> None:
    policy = Balanced(max_weight=None, weight_power=power)
    problem = policy.propose(SIGNALS, K, rng())
    pi = problem.objective.inclusion  # type: ignore[attr-defined]
    sums = []
    for seed in range(2000):
        drawn = so.solve(problem, seed=seed)
        weights, own = policy.weigh(drawn), pi[drawn.indices]
        # The weights are those of the power, but for one factor.
        assert np.allclose(weights * own**power, weights[0] * own[0] ** power, rtol=1e-12)
        sums.append(float(weights.sum()))
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - 1.0) <= 4.0 * error + 1e-12
    if power == 0.0:
        assert np.allclose(weights, 1.0 / K)


def test_a_power_leaves_out_what_is_never_drawn() -> None:
    bounds = np.where(np.arange(N) % 2 == 0, 1.0, 0.0)
    policy = Balanced(weight_power=0.0)
    drawn = so.solve(policy.propose({**SIGNALS, "upper_bound": bounds}, K, rng()), seed=0)
    assert np.allclose(policy.weigh(drawn), 0.5 / K)  # half of the batch stands for none but itself
    with pytest.raises(so.ProblemError, match=r"weight_power=0\.5 .* call propose\(\) first"):
        Balanced(weight_power=0.5).weigh(drawn)


@pytest.mark.parametrize("k", [0, 1, N])
def test_sizes(k: int) -> None:
    for name in ("balanced", "gradient-matching"):
        assert so.solve(make_policy(name).propose(SIGNALS, k, rng()), seed=0).indices.size == k


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("balanced", {"score": "losses"}, "score must be one of .*, got 'losses'. Did you mean"),
        ("balanced", {"weight_power": 1.5}, "weight_power must"),
        ("balanced", {"mix": 1.5}, "mix must be a number from 0 to 1, got 1.5"),
        ("balanced", {"mix": None}, "mix must be a number from 0 to 1, got None"),
        ("balanced", {"balance": "logits"}, "'loss', 'logit_gradients' or None, got 'logits'"),
        ("balanced", {"balance": ["loss"]}, r"or None, got \['loss'\]"),
        ("balanced", {"max_weight": 0.0}, "max_weight must be a number of at least 1, got 0.0"),
        ("gradient-matching", {"signal": "logits"}, "signal must be 'logit_gradients' or 'last_"),
        ("gradient-matching", {"weights": "positive"}, "'uniform' or 'nonnegative', got 'positive"),
        ("gradient-matching", {"total": 1}, "total must be True or False, got 1"),
        ("gradient-matching", {"looks": 0}, "looks must be an integer >= 1, got 0"),
        ("gradient-matching", {"weight": 1}, "no option 'weight'. Did you mean 'weights'"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        make_policy(name, **options)


@pytest.mark.parametrize(
    ("name", "signals", "message"),
    [
        ("balanced", {"losses": LOSSES}, "needs the signal 'upper_bound', got losses"),
        ("balanced", {"upper_bound": BOUNDS}, "needs the signal 'losses', got upper_bound"),
        ("balanced", {"upper_bound": -BOUNDS, "losses": LOSSES}, "at least 0, got -"),
        (
            "balanced",
            {"upper_bound": BOUNDS, "losses": np.where(LOSSES > 1, np.inf, LOSSES)},
            "column 0 of balance must be finite",
        ),
        (
            "balanced",
            {"upper_bound": BOUNDS, "losses": LOSSES[:9]},
            r"one row for each of the 64 candidates, got shape \(9, 1\)",
        ),
        ("gradient-matching", {"losses": LOSSES}, "needs the signal 'logit_gradients', got losses"),
        ("gradient-matching", {"logit_gradients": LOSSES}, r"vectors must have shape \(n, d\)"),
    ],
)
def test_malformed_signals(name: str, signals: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        make_policy(name).propose(signals, K, rng())


@pytest.mark.parametrize("balance", ["loss", "logit_gradients"])
def test_a_resumed_run_is_bit_identical(balance: str) -> None:
    def advance(policy: Balanced, steps: range) -> list[tuple[list[int], list[float]]]:
        drawn = []
        for step in steps:
            drawing = so.solve(policy.propose(SIGNALS, K, rng(step)), seed=(step, 1))
            drawn.append((drawing.indices.tolist(), policy.weigh(drawing).tolist()))
        return drawn

    def new() -> Balanced:
        return Balanced(mix=0.0, balance=balance, max_weight=2.0)  # type: ignore[arg-type]

    whole, first, second = new(), new(), new()
    expected = advance(whole, range(12))
    begun = advance(first, range(5))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert begun + advance(second, range(5, 12)) == expected
    assert second.clipped == whole.clipped and whole.clipped.samples > 0


def test_states_of_other_policies() -> None:
    with pytest.raises(so.OptionError, match=r"\['tau'\]: it was saved by another policy"):
        Balanced().load_state_dict({"tau": 1.0})
    assert GradientMatching().state_dict() == {}
    with pytest.raises(so.OptionError, match="has no state"):
        GradientMatching().load_state_dict({"tau": 1.0})


def test_gradient_matching_is_nearer_than_a_uniform_draw() -> None:
    problem = GradientMatching().propose(SIGNALS, K, rng())
    matched = so.solve(problem, seed=0).objective
    drawn = [so.solve(problem, "random", seed=seed).objective for seed in range(50)]
    assert matched < 0.2 * min(drawn)


def test_nonnegative_weights_sum_to_1_unless_told_otherwise() -> None:
    """Easy samples have tiny gradients, so that only the total bounds their weights."""
    gradients = np.where(np.arange(N)[:, None] < 40, 1e-6, 1.0) * GRADIENTS
    signals = {"logit_gradients": gradients}
    sums = {}
    for total in (True, False):
        policy = GradientMatching(weights="nonnegative", total=total)
        answer = so.solve(policy.propose(signals, K, rng()), seed=0)
        assert answer.status is so.Status.OPTIMAL
        assert np.allclose(answer.weights @ gradients[answer.indices], gradients.mean(axis=0))
        sums[total] = answer.weights.sum()
    assert sums[True] == pytest.approx(1.0) and sums[False] != pytest.approx(1.0, abs=0.01)
    nothing = {"logit_gradients": np.zeros((N, 3))}
    policy = GradientMatching(weights="nonnegative", total=True)
    assert so.solve(policy.propose(nothing, K, rng()), seed=0).weights.sum() == pytest.approx(1.0)


def test_gradient_matching_searches_briefly_in_few_coordinates() -> None:
    assert resolved("gradient-matching") == Swap(looks=16)
    long = {"signal": "last_layer_gradients"}
    assert resolved("gradient-matching", looks=3, **long) == Swap(looks=3)
    for options in ({"weights": "nonnegative", "total": True}, long):
        assert make_policy("gradient-matching", **options).solver == SolverChoice("auto")


def test_gradient_matching_takes_no_tiny_gradients_at_huge_weights() -> None:
    """Nine tenths of the batch are learned; chosen by the angle they have huge weights."""
    gradients = np.where(np.arange(N)[:, None] < 58, 1e-6, 1.0) * GRADIENTS
    policy = make_policy("gradient-matching", weights="nonnegative")
    solver = resolved("gradient-matching", weights="nonnegative")
    assert solver == OrthogonalMatchingPursuit(pick="product")
    problem = policy.propose({"logit_gradients": gradients}, K, rng())
    picked = so.solve(problem, solver)
    assert picked.status is so.Status.OPTIMAL
    assert picked.weights.max() < 1.0 < 1e3 < so.solve(problem, "omp").weights.max()
