"""Policies: the problems they state, and the table they stand in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_runs import resolved
from processes import modules_loaded_by

import subsetopt as so
from subsetopt import policies
from subsetopt.policies import (
    Policy,
    PolicySpec,
    SelectionState,
    StatelessPolicy,
    list_policies,
    make_policy,
    register_policy,
)
from subsetopt.policies.registry import unregister_policy

# Policies that read losses or nothing and remember nothing; tests/contract/ tests all policies.
LOSS_POLICIES = (
    "uniform",
    "big-loss",
    "small-loss",
    "proportional-loss",
    "adaboost",
    "coreset-1",
    "coreset-2",
    "obtf",
)
LOSSES = np.random.default_rng(77).exponential(size=40)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def chosen(name: str, losses: np.ndarray, k: int, seed: int = 0, **options: object) -> np.ndarray:
    problem = make_policy(name, **options).propose({"losses": losses}, k, rng(seed))
    return so.solve(problem, seed=seed).require().indices


@pytest.fixture
def registered() -> Iterator[list[str]]:
    names: list[str] = []
    yield names
    for name in names:
        unregister_policy(name)


@pytest.mark.parametrize("name", LOSS_POLICIES)
def test_has_no_state(name: str) -> None:
    policy = make_policy(name)
    assert policy.state_dict() == {}
    policy.load_state_dict({})
    with pytest.raises(so.OptionError, match=r"has no state, but the state .*'tau'"):
        policy.load_state_dict({"tau": 1.0})
    assert policy.needs_scoring(SelectionState(0, 40, 4)) is (name != "uniform")


@pytest.mark.parametrize("name", LOSS_POLICIES)
@pytest.mark.parametrize("k", [0, 1, 7, 40])
def test_chooses_k(name: str, k: int) -> None:
    assert chosen(name, LOSSES, k).size == k


@pytest.mark.parametrize("name", LOSS_POLICIES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8"])
def test_takes_any_real_dtype(name: str, dtype: str) -> None:
    assert chosen(name, (LOSSES * 5).astype(dtype), 5).size == 5


@pytest.mark.parametrize("name", LOSS_POLICIES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_torch_tensors_give_the_same_problem(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.as_tensor(LOSSES).to(getattr(torch, dtype)).requires_grad_()
    arrays = tensor.detach().double().numpy()
    policy = make_policy(name)
    of_tensor = policy.propose({"losses": tensor}, 7, rng())
    of_array = policy.propose({"losses": arrays}, 7, rng())
    values = [problem.objective.values for problem in (of_tensor, of_array)]  # type: ignore[attr-defined]
    np.testing.assert_allclose(*values, rtol=1e-12)


def test_big_and_small_loss() -> None:
    order = np.argsort(LOSSES)
    assert np.array_equal(chosen("big-loss", LOSSES, 5), np.sort(order[-5:]))
    assert np.array_equal(chosen("small-loss", LOSSES, 5), np.sort(order[:5]))
    assert np.array_equal(chosen("small-loss", np.array([0, 7, 3], dtype=np.uint8), 1), [0])


def test_obtf_is_mean_matching_with_its_cardinality() -> None:
    problem = make_policy("obtf", cardinality="at_most").propose({"losses": LOSSES}, 5, rng())
    assert isinstance(problem.objective, so.MeanMatching)
    assert (problem.k, problem.cardinality) == (5, "at_most")
    solution = so.solve(problem, seed=0)
    assert solution.objective <= 0.05 * LOSSES.mean()


def test_uniform_reads_no_losses() -> None:
    policy = make_policy("uniform")
    assert policy.requires == frozenset()
    problem = policy.propose({"positions": np.arange(9)}, 2, rng())
    assert problem.n == 9
    with pytest.raises(so.ProblemError, match="number of candidates is unknown"):
        policy.propose({}, 2, rng())


def test_uniform_is_uniform() -> None:
    counts = np.zeros(6)
    generator = rng(1)
    policy = make_policy("uniform")
    for _ in range(3000):
        counts[np.argsort(scores(policy, np.ones(6), generator))[-2:]] += 1
    # Each is chosen with probability 1/3; five standard deviations are 129.
    assert np.abs(counts - 1000).max() < 130


def scores(policy: Policy, losses: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    objective = policy.propose({"losses": losses}, 1, generator).objective
    assert isinstance(objective, so.TopScores)
    return objective.scores


def test_proportional_loss_draws_in_the_order_of_successive_draws() -> None:
    weights = np.array([1.0, 2.0, 3.0, 6.0])
    p = weights / weights.sum()
    generator, policy, draws = rng(2), make_policy("proportional-loss"), 6_000
    firsts, pairs = np.zeros(4), np.zeros((4, 4))
    for _ in range(draws):
        first, second = np.argsort(-scores(policy, weights, generator))[:2]
        firsts[first] += 1
        pairs[first, second] += 1
    spread = 5 * np.sqrt(draws * p * (1 - p))
    assert (np.abs(firsts - draws * p) < spread).all()
    for i, j in itertools.permutations(range(4), 2):
        expected = p[i] * p[j] / (1 - p[i])
        assert abs(pairs[i, j] - draws * expected) < 5 * np.sqrt(draws * expected)


@given(
    zeros=st.integers(0, 6),
    positive=st.lists(st.sampled_from([5e-324, 1e-30, 1.0, 1e300]), max_size=6),
    seed=st.integers(0, 2**32),
)
def test_proportional_loss_takes_zeros_last(zeros: int, positive: list[float], seed: int) -> None:
    losses = np.array([0.0] * zeros + positive)
    problem = make_policy("proportional-loss").propose({"losses": losses}, 0, rng(seed))
    keys = problem.objective.scores  # type: ignore[attr-defined]
    assert np.isfinite(keys).all()
    if zeros and positive:
        assert keys[:zeros].max() < keys[zeros:].min()


def test_proportional_loss_and_negative_losses() -> None:
    losses = np.array([1.0, -2.0, 3.0])
    with pytest.raises(so.ProblemError, match=r"got -2 at position 1\. .*negative='shift'"):
        chosen("proportional-loss", losses, 1)
    firsts = [
        int(chosen("proportional-loss", losses, 1, s, negative="shift")[0]) for s in range(60)
    ]
    assert 1 not in firsts and {0, 2} <= set(firsts)


@pytest.mark.parametrize("name", [name for name in LOSS_POLICIES if name != "uniform"])
def test_missing_and_not_finite_signals(name: str) -> None:
    with pytest.raises(so.ProblemError, match=r"needs the signal 'losses', got ids; pass losses="):
        make_policy(name).propose({"ids": np.arange(3)}, 1, rng())
    with pytest.raises(so.ProblemError, match="finite"):
        make_policy(name).propose({"losses": np.array([1.0, np.nan])}, 1, rng())


def test_unknown_names_and_options() -> None:
    with pytest.raises(so.OptionError, match=r"no policy named 'obft'\. Did you mean 'obtf'\?"):
        make_policy("obft")
    with pytest.raises(so.OptionError, match=r"no option 'cardinalty'\. Did you mean 'cardinality"):
        make_policy("obtf", cardinalty="exact")
    with pytest.raises(so.OptionError, match=r"no option 'beta'\. It has none\."):
        make_policy("uniform", beta=1)
    with pytest.raises(so.OptionError, match="'exact' or 'at_most', got 'some'"):
        make_policy("obtf", cardinality="some")
    with pytest.raises(so.OptionError, match="'raise' or 'shift', got 'no'"):
        make_policy("proportional-loss", negative="no")
    with pytest.raises(so.OptionError, match="no policy named 3"):
        make_policy(3)  # type: ignore[arg-type]


class Remembering(StatelessPolicy):
    def __init__(self, decay: float = 0.5, **rest: float) -> None:
        self.decay, self.rest = decay, rest

    def propose(self, signals: policies.Signals, k: int, rng: np.random.Generator) -> so.Problem:
        return so.Problem(so.TopScores(rng.random(policies.candidate_count(signals))), k)


def test_register(registered: list[str]) -> None:
    register_policy(PolicySpec("remembering", Remembering, summary="for this test"))
    registered.append("remembering")
    assert "remembering" in [row.name for row in list_policies()]
    made = make_policy("remembering", decay=0.1, anything=2.0)
    assert isinstance(made, Remembering) and made.rest == {"anything": 2.0}
    with pytest.raises(so.OptionError, match="'remembering' is registered already"):
        register_policy(PolicySpec("remembering", Remembering))
    with pytest.raises(so.OptionError, match="'obtf' is registered already"):
        register_policy(PolicySpec("obtf", Remembering))
    with pytest.raises(so.OptionError, match="takes a PolicySpec, got type"):
        register_policy(Remembering)  # type: ignore[arg-type]
    with pytest.raises(so.OptionError, match="built in"):
        unregister_policy("obtf")


@pytest.mark.parametrize("target", ["subsetopt.policies.obtf:Nothing", "no_such_module:Policy"])
def test_a_target_that_is_not_there(target: str, registered: list[str]) -> None:
    register_policy(PolicySpec("astray", target))
    registered.append("astray")
    with pytest.raises(so.OptionError, match=r"target .* of policy 'astray' cannot be imported"):
        make_policy("astray")


def test_import_loads_numpy_only() -> None:
    loaded = modules_loaded_by(
        "import subsetopt.policies as p;"
        "given = {'rho-loss': {'irreducible': {0: 0.5}}};"
        "[p.make_policy(r.name, **given.get(r.name, {})) for r in p.list_policies()]"
    )
    assert not loaded & {"torch", "numba", "array_api_compat", "gurobipy"}


def test_obtf_asks_for_the_calmest_of_several_matches() -> None:
    from subsetopt.instances import losses as family
    from subsetopt.solvers.swap import Swap

    assert resolved("obtf") == Swap(start="random", choices=8)
    assert resolved("obtf", choices=1) == Swap(start="random", choices=1)
    with pytest.raises(so.OptionError, match="choices must be an integer >= 1, got 0"):
        make_policy("obtf", choices=0)
    squares = {}
    for choices in (1, 8):
        total = 0.0
        for seed in range(20):
            values = family("lognormal", 128, 13, seed).astype(float)
            picked = so.select(values, 13, solver=Swap(start="random", choices=choices), seed=seed)
            total += float((values[picked.indices] ** 2).sum())
        squares[choices] = total
    assert squares[8] < squares[1]
