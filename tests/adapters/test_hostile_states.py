"""States that torch.load reads without trusting them, and malformed ones: all or nothing."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_parts import CROSS_ENTROPY, batch, network

import subsetopt as so
from subsetopt.policies import Feedback, ScoredPolicy, StatelessPolicy, make_policy

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402

POLICIES = [spec.name for spec in so.list_policies() if isinstance(spec.target, str)]
OPTIONS: dict[str, dict[str, Any]] = {"rho-loss": {"irreducible": np.zeros(200)}}
REMEMBERING = ("online-batch", "prioritized")
# What an entry is replaced by: other types, other ranges, other lengths.
VALUES: tuple[Any, ...] = (
    None, "x", b"123", True, -1, 1.5, 2**70, float("nan"), float("inf"), [], {}, [None], ["x", 1.0],
    [[1, 2, 3]], {"x": 1}, np.zeros(3), torch.zeros(2), object(),
)  # fmt: skip


def selector_of(name: str, **options: Any) -> st.BatchSelector:
    policy = make_policy(name, **OPTIONS.get(name, {}))
    return st.BatchSelector(policy, rate=0.25, seed=1, **options)


def used_selector(name: str) -> st.BatchSelector:
    selector = selector_of(name)
    step_of(selector)(*batch(), ids=torch.arange(32))
    return selector


def step_of(selector: st.BatchSelector, **options: Any) -> st.SelectiveStep:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return st.SelectiveStep(model, CROSS_ENTROPY, optimizer, selector, **options)


def used_step(name: str) -> st.SelectiveStep:
    step = step_of(selector_of(name), accumulate=True, batch_size=32)
    for t in range(2):
        step(*batch(seed=t), ids=np.arange(32))
    return step


def used_sampler(name: str) -> st.SubsetBatchSampler:
    sampler = st.SubsetBatchSampler(30, name, 10, seed=0)
    batches = iter(sampler)
    next(batches)
    sampler.observe(next(batches), torch.rand(10))
    return sampler


def mutations(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield a place in a state, and what to put there; of long lists, the first entries."""
    for value in VALUES if path else ():
        yield path, value
    if isinstance(state, dict):
        yield path, {name: value for name, value in list(state.items())[1:]}
        for name in state:
            yield from mutations(state[name], (*path, name))
    elif isinstance(state, (list, tuple)):
        for i in range(min(2, len(state))):
            yield from mutations(state[i], (*path, i))


def put(state: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a state with another value at a place."""
    if not path:
        return value
    first, *rest = path
    if isinstance(state, dict):
        return {**state, first: put(state[first], tuple(rest), value)}
    entries = list(state)
    entries[first] = put(entries[first], tuple(rest), value)
    return type(state)(entries)


def attacked(make: Callable[[], Any], use: Callable[[Any], object], state: Any) -> None:
    """Load every mutation: it is refused by an OptionError and nothing changes, or it works."""
    subject = make()
    before = repr(subject.state_dict())
    for path, value in mutations(state):
        try:
            subject.load_state_dict(put(state, path, value))
        except so.OptionError:
            assert repr(subject.state_dict()) == before, (path, value)
        else:
            try:
                use(subject)
            except so.SubsetOptError:
                pass
            subject = make()


@pytest.mark.parametrize("name", POLICIES)
def test_a_malformed_state_of_a_selector_is_refused_whole(name: str) -> None:
    x, y = batch()
    state = used_selector(name).state_dict()

    def use(selector: st.BatchSelector) -> None:
        step_of(selector)(x, y, ids=torch.arange(32))

    attacked(lambda: selector_of(name), use, state)


@pytest.mark.parametrize("name", ["adaselection", "prioritized", "uniform"])
def test_a_malformed_state_of_a_step_is_refused_whole(name: str) -> None:
    state = used_step(name).state_dict()
    assert state["gathered"]

    def make() -> st.SelectiveStep:
        return step_of(selector_of(name), accumulate=True, batch_size=32)

    attacked(make, lambda step: step(*batch(), ids=np.arange(32)), state)


@pytest.mark.parametrize("name", ["online-batch", "prioritized", "uniform"])
def test_a_malformed_state_of_a_sampler_is_refused_whole(name: str) -> None:
    state = used_sampler(name).state_dict()
    attacked(lambda: st.SubsetBatchSampler(30, name, 10, seed=0), list, state)


RECORDED = {
    "plan": ("infobatch", {"plan": "epoch"}),
    "windows": ("big-loss", {"candidates": 15}),
    "draws": ("balanced", {}),
    "pass": ("infobatch", {"plan": "epoch", "full_after": 0.0, "epochs": 3}),
}


def used_on_records(form: str, ledger: Any) -> st.SubsetBatchSampler:
    """Return a sampler in the middle of an epoch, with a batch that was not observed yet."""
    name, options = RECORDED[form]
    sampler = st.SubsetBatchSampler(30, name, 5, seed=0, ledger=ledger, **options)
    for ids in sampler:
        scores = (np.ones(len(ids)),) if name == "balanced" else ()
        if sampler.issued < 3:
            sampler.observe(ids, np.arange(1.0, 1.0 + len(ids)), *scores)
        elif sampler.issued == 3 or len(sampler) < 3:
            return sampler
    return sampler


@pytest.mark.parametrize("form", RECORDED)
def test_a_malformed_state_of_a_sampler_on_records_is_refused_whole(
    form: str, tmp_path: Path
) -> None:
    with so.ledger.Ledger.open(f"dense:{tmp_path / 'ledger'}") as ledger:
        state = copy.deepcopy(used_on_records(form, ledger).state_dict())
        name, options = RECORDED[form]

        def make() -> st.SubsetBatchSampler:
            return st.SubsetBatchSampler(30, name, 5, seed=0, ledger=ledger, **options)

        attacked(make, lambda sampler: [next(iter(sampler)) for _ in range(2)], state)
        again = make()
        again.load_state_dict(reread(state))
        assert repr(again.state_dict()) == repr(state)


@pytest.mark.parametrize(
    ("entry", "name", "value", "message"),
    [
        ("plan", "ids", torch.arange(3), "ends must be where batches of 1 to 5 samples end"),
        (
            "plan",
            "ids",
            torch.zeros(3),
            "ids must be a tensor of one dimension and dtype torch.int",
        ),
        ("plan", "place", [2, 2], "place must be the number of a process and how many there are"),
        ("plan", "weights", torch.full((30,), torch.nan, dtype=torch.float64), "a finite number"),
        ("records", "changed", torch.tensor([4, 4]), "changed must be ascending positions"),
        ("records", "first_step", -1, "first_step must be an integer"),
        ("records", "base", {}, "the records of a sampler holds .* the state to load"),
    ],
)
def test_messages_say_what_a_plan_must_be(
    entry: str, name: str, value: Any, message: str, tmp_path: Path
) -> None:
    with so.ledger.Ledger.open(f"dense:{tmp_path / 'ledger'}") as ledger:
        sampler = used_on_records("plan", ledger)
        state = sampler.state_dict()
        with pytest.raises(so.OptionError, match=message):
            sampler.load_state_dict({**state, entry: {**state[entry], name: value}})


@pytest.mark.parametrize("name", POLICIES)
def test_states_are_read_without_trust(name: str) -> None:
    for selector in (selector_of(name), used_selector(name)):
        again = selector_of(name)
        again.load_state_dict(reread(selector.state_dict()))
        assert repr(again.state_dict()) == repr(selector.state_dict())


@pytest.mark.parametrize("name", POLICIES)
def test_gathered_samples_are_read_without_trust(name: str) -> None:
    steps = [used_step(name), used_step(name)]
    steps[1].load_state_dict(reread(steps[0].state_dict()))
    assert repr(steps[1].state_dict()) == repr(steps[0].state_dict())
    for step in steps:
        step(*batch(seed=5), ids=np.arange(32))


@pytest.mark.parametrize("name", [*REMEMBERING, "uniform"])
def test_states_of_samplers_are_read_without_trust(name: str) -> None:
    fresh = st.SubsetBatchSampler(30, name, 10, seed=0)
    for sampler in (fresh, used_sampler(name)):
        again = st.SubsetBatchSampler(30, name, 10, seed=0)
        again.load_state_dict(reread(sampler.state_dict()))
        assert repr(again.state_dict()) == repr(sampler.state_dict())


def reread(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    found = torch.load(buffer, weights_only=True)
    assert plain(found), found
    return found


def plain(part: Any) -> bool:
    """Whether a state holds plain numbers, words and tensors alone, as the oldest torch reads."""
    if isinstance(part, dict):
        return all(isinstance(name, str) and plain(value) for name, value in part.items())
    if isinstance(part, (list, tuple)):
        return type(part) in (list, tuple) and all(map(plain, part))
    return part is None or type(part) in (bool, int, float, str) or isinstance(part, torch.Tensor)


class Careless(StatelessPolicy):
    """A policy of somebody else, which loads one entry after the other."""

    def __init__(self) -> None:
        self.a, self.b = 1, 2

    def propose(self, signals: Any, k: int, rng: Any) -> so.Problem:
        return so.Problem(so.TopScores(rng.random(len(signals["positions"]))), k)

    def state_dict(self) -> dict[str, Any]:
        return {"a": self.a, "b": self.b}

    def load_state_dict(self, state: Any) -> None:
        self.a = int(state["a"])
        self.b = int(state["b"])


def test_a_careless_policy_of_somebody_else_is_put_back() -> None:
    selector = st.BatchSelector(Careless(), k=2, seed=3)
    state = copy.deepcopy(selector.state_dict())
    state["policy"] = {"a": 7, "b": "x"}
    state["step"] = 9
    with pytest.raises(so.OptionError, match="state of policy 'Careless' is malformed: ValueError"):
        selector.load_state_dict(state)
    assert selector.state_dict() == {**state, "policy": {"a": 1, "b": 2}, "step": 0}


def test_candidates_are_loaded_all_or_none() -> None:
    class Counting(Careless, ScoredPolicy):
        def scores(self, signals: Any, k: int, rng: Any) -> Any:
            return signals["losses"]

        def propose(self, signals: Any, k: int, rng: Any) -> so.Problem:
            return ScoredPolicy.propose(self, signals, k, rng)

    policy = make_policy("adaselection", candidates=[Counting(), Counting()])
    state = copy.deepcopy(policy.state_dict())
    state["candidates"] = [{"a": 5, "b": 6}, {"a": 7, "b": "x"}]
    before = copy.deepcopy(policy.state_dict())
    with pytest.raises(so.OptionError, match="state of adaselection is malformed: ValueError"):
        policy.load_state_dict(state)
    assert policy.state_dict() == before
    policy.observe(Feedback(0, None, None, None))


@pytest.mark.parametrize(
    ("name", "entry", "value", "message"),
    [
        ("importance", "tau", -1.0, "of importance is malformed: tau must be a finite number of"),
        ("importance", "history", [(1, 2)], "every row of history must be 3 entries"),
        ("importance", "history", [("x", 1.0, True)], "must be integer and number and flag, got"),
        ("importance", "on", 3, "on must be True or False, got 3"),
        ("selective-backprop", "recent", "x", "recent must be a list, got 'x'"),
        ("selective-backprop", "recent", ["x"], "recent must be a list of numbers"),
        ("selective-backprop", "recent", [float("inf")], "every entry of recent must be a finite"),
        ("adaselection", "t", None, "t must be an integer >= 0, got None"),
        ("adaselection", "log_weights", [0.0, 0.0, 0.0], "logarithms of weights that sum to 1"),
        ("adaselection", "method_losses", [1.0], "method_losses must be a list of 3"),
        ("online-batch", "refreshed", 5, "refreshed must be an integer from 0 to 1, got 5"),
        ("online-batch", "salt", 2**32, "salt must be an integer from 0 to 4294967295"),
        ("prioritized", "largest_priority", 0.5, "largest_priority must be a finite number of at"),
        ("prioritized", "losses", [1e300], "every entry of losses must be a finite number"),
    ],
)
def test_messages_say_what_an_entry_must_be(
    name: str, entry: str, value: Any, message: str
) -> None:
    policy = used_selector(name).policy
    with pytest.raises(so.OptionError, match=message):
        policy.load_state_dict({**policy.state_dict(), entry: value})


@pytest.mark.parametrize("state", [None, 3, "x", []])
@pytest.mark.parametrize("name", POLICIES)
def test_a_state_is_a_dict(name: str, state: Any) -> None:
    policy = make_policy(name, **OPTIONS.get(name, {}))
    with pytest.raises(so.OptionError, match="is a dict, got"):
        policy.load_state_dict(state)
    for subject in (selector_of(name), step_of(selector_of(name))):
        with pytest.raises(so.OptionError, match=r"state (of the selector )?is a dict, got"):
            subject.load_state_dict(state)
