"""What holds for every registered policy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from policy_runs import every_signal, make, selection, training

import subsetopt as so
from subsetopt.policies import Policy, ScoredPolicy, SelectionState, list_policies, make_policy
from subsetopt.policies.base import FORWARD_SIGNALS

NAMES = [row.name for row in list_policies()]
SCORED = [name for name in NAMES if isinstance(make(name), ScoredPolicy)]
N, K = 48, 12

# Options under which a short run reaches every part of a policy.
EAGER = {"importance": {"tau_threshold": 1.02, "momentum": 0.3}}


def row_of(name: str) -> Any:
    (row,) = (row for row in list_policies() if row.name == name)
    return row


def arrays(problem: so.Problem) -> dict[str, np.ndarray]:
    """Return everything numerical that a problem's objective is made of."""
    names = ("values", "inclusion", "balance", "vectors", "target")
    found = {name: getattr(problem.objective, name, None) for name in names}
    return {name: np.asarray(value) for name, value in found.items() if value is not None}


def test_the_table_is_the_contract() -> None:
    order = """
        uniform big-loss small-loss proportional-loss selective-backprop gradient-norm upper-bound
        adaboost coreset-1 coreset-2 obtf adaselection importance rho-loss online-batch prioritized
        infobatch gradient-matching balanced uncertainty
    """.split()
    assert [name for name in NAMES if name in order] == [name for name in order if name in NAMES]
    assert set(SCORED) <= set(NAMES) and "obtf" not in SCORED


@pytest.mark.parametrize("name", NAMES)
def test_satisfies_the_protocol(name: str) -> None:
    policy, row = make(name), row_of(name)
    assert isinstance(policy, Policy)
    assert policy.requires == frozenset(row.requires)
    assert row.summary
    assert policy.requires <= set(every_signal(1))
    needs = policy.needs_scoring(SelectionState(0, N, K))
    assert isinstance(needs, bool)
    assert not needs or policy.requires & FORWARD_SIGNALS


@pytest.mark.parametrize("name", NAMES)
def test_refuses_unknown_options_and_foreign_states(name: str) -> None:
    with pytest.raises(so.OptionError, match=f"policy '{name}' has no option 'nonsense'"):
        make_policy(name, nonsense=1)
    with pytest.raises(so.OptionError, match="state"):
        make(name).load_state_dict({"foreign": 1})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [0, K, N])
def test_chooses_at_most_k_from_n(name: str, k: int) -> None:
    signals = every_signal(N)
    indices, weights = selection(make(name), signals, k, seed=0)
    assert indices.shape == weights.shape
    assert ((indices >= 0) & (indices < N)).all()
    assert np.isfinite(weights).all() and (weights >= 0.0).all()
    if name != "selective-backprop":  # it keeps a random number
        assert indices.size <= k
        assert indices.size or not k


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("k", [0, 1, 7, N])
def test_scored_policies_choose_the_largest_scores(name: str, k: int) -> None:
    policy, signals = make(name), every_signal(N)
    scores = np.asarray(policy.scores(signals, k, np.random.default_rng(5)))  # type: ignore[attr-defined]
    assert scores.shape == (N,)
    problem = policy.propose(signals, k, np.random.default_rng(5))
    indices = so.solve(problem).require().indices
    assert np.array_equal(indices, np.sort(np.argsort(-scores, kind="stable")[:k]))


@pytest.mark.parametrize("name", NAMES)
def test_same_generator_same_choice_and_inputs_unchanged(name: str) -> None:
    signals = every_signal(N)
    first, again = (selection(make(name), signals, K, seed=3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(np.array_equal(signals[s], every_signal(N)[s]) for s in signals)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tensors_give_the_same_problem_as_arrays(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    signals = {
        signal: value.astype(dtype) if value.dtype.kind == "f" else value
        for signal, value in every_signal(N).items()
    }
    tensors = {signal: torch.as_tensor(value) for signal, value in signals.items()}
    problems = [
        make(name).propose(given, K, np.random.default_rng(4)) for given in (signals, tensors)
    ]
    of_array, of_tensor = map(arrays, problems)
    assert problems[0].k == problems[1].k and of_array.keys() == of_tensor.keys()
    assert of_array
    for part, values in of_array.items():
        rtol, scale = (1e-9 if dtype == "float64" else 1e-4), np.abs(values).max(initial=0.0)
        np.testing.assert_allclose(of_tensor[part], values, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("name", NAMES)
def test_names_the_signal_that_is_missing(name: str) -> None:
    policy, signals = make(name), every_signal(N)
    if policy.requires & FORWARD_SIGNALS and not policy.needs_scoring(SelectionState(0, N, K)):
        # It makes no scoring pass until it has learned something, so it does without.
        known = {s: value for s, value in signals.items() if s not in FORWARD_SIGNALS}
        assert policy.propose(known, K, np.random.default_rng(0)).k == K
        return
    for missing in sorted(policy.requires):
        given = {signal: value for signal, value in signals.items() if signal != missing}
        with pytest.raises(so.ProblemError, match=f"needs the signal '{missing}'"):
            make(name).propose(given, K, np.random.default_rng(0))


@pytest.mark.parametrize("name", [name for name in SCORED if make(name).requires])
def test_scored_policies_refuse_what_is_not_finite(name: str) -> None:
    signals = every_signal(N)
    for signal in sorted(make(name).requires - {"ids"}):
        spoiled = signals[signal].copy()
        spoiled[5] = np.nan
        with pytest.raises(so.ProblemError, match=r"finite.* 5\b"):
            make(name).propose({**signals, signal: spoiled}, K, np.random.default_rng(0))


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_goes_on_bit_identically(name: str) -> None:
    torch = pytest.importorskip("torch")
    policy = make(name, **EAGER.get(name, {}))
    list(training(policy, range(5)))
    file = io.BytesIO()
    torch.save(policy.state_dict(), file)
    straight = list(training(policy, range(5, 11)))
    file.seek(0)
    resumed = make(name, **EAGER.get(name, {}))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for mine, theirs in zip(training(resumed, range(5, 11)), straight, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_state_is_a_copy(name: str) -> None:
    """Selections made after the state was taken do not change it."""
    policy = make(name, **EAGER.get(name, {}))
    list(training(policy, range(3)))
    state = policy.state_dict()
    text = repr(state)
    list(training(policy, range(3, 6)))
    assert repr(state) == text
