"""Ids of any size and kind: hashes, strings and bytes, in the policies that remember by id."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import subsetopt as so
from subsetopt.policies import Feedback, make_policy
from subsetopt.policies.parts.memory import LossMemory
from subsetopt.policies.parts.sample_ids import checked_ids
from subsetopt.policies.parts.saved_state import SavedState

NAMES = ("online-batch", "prioritized")
NEAR = 1 << 22  # ids below it have places of their own in the memory's array
FEW = 64  # the same in a test of small memories
INTEGERS = st.one_of(
    st.integers(0, 40),
    st.integers(FEW - 3, FEW + 400),
    st.integers(-(2**63), 2**63 - 1).filter(lambda i: i != -1),
)
TEXTS = st.one_of(st.text(max_size=3), st.binary(max_size=3), st.sampled_from(["a", "a\0", b"a"]))
LOSSES = st.floats(-9.0, 9.0, width=32)


def events(ids: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.lists(st.tuples(ids, LOSSES), min_size=1, max_size=9), max_size=6)


def reloaded(memory: LossMemory) -> LossMemory:
    state = json.loads(json.dumps(memory.state()))
    return LossMemory.of_state(SavedState("the memory", state, state))


@pytest.mark.parametrize("ids", [INTEGERS, TEXTS], ids=["integers", "texts"])
@pytest.mark.parametrize("many", [4, 1 << 14])
@given(data=st.data())
def test_memory_is_a_dict_whatever_the_ids_are(
    ids: st.SearchStrategy[Any], many: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subsetopt.policies.parts.memory._MANY", many)
        patch.setattr("subsetopt.policies.parts.memory._NEAR", FEW)
        memory, twin = LossMemory(), {}
        for event in data.draw(events(ids)):
            told = checked_ids([i for i, _ in event])
            memory.record(told, np.array([loss for _, loss in event]))
            twin.update(event)
        asked = [*twin, *data.draw(st.lists(ids, min_size=1, max_size=5))]
        expected = np.array([twin.get(i, np.nan) for i in asked])
        for known in (memory, reloaded(memory)):
            np.testing.assert_array_equal(known.of(checked_ids(asked)), expected)
        first = memory.first(FEW + 9)  # all of these get places in the array now
        for i, loss in twin.items():
            if isinstance(i, int) and 0 <= i < first.size:
                assert first[i] == loss
        np.testing.assert_array_equal(memory.of(checked_ids(asked)), expected)


def test_the_array_holds_what_lies_densely_and_no_more() -> None:
    rng = np.random.default_rng(0)
    scattered = LossMemory()
    for _ in range(40):
        scattered.record(rng.integers(NEAR, 2**62, 1000), np.ones(1000))
    assert scattered.size == 0
    far = LossMemory()
    far.record(np.arange(NEAR, NEAR + 100_000), np.ones(100_000))  # at once, as refresh does
    assert NEAR + 100_000 <= far.size <= NEAR + 16 * 100_000
    one_by_one, order = LossMemory(), NEAR + rng.permutation(100_000)
    for some in order.reshape(-1, 100):
        one_by_one.record(some, some * 0.5)
    assert NEAR + 100_000 <= one_by_one.size <= NEAR + 16 * 100_000
    np.testing.assert_array_equal(one_by_one.of(order), order * 0.5)


def ids_of(kind: str, numbers: np.ndarray) -> Any:
    """Return ids of a kind that stand for some numbers."""
    if kind == "int64":
        return (numbers + 1) * np.int64(-(2**55) + 12345)
    texts = [f"shard-{i % 3}/{i}" for i in numbers.tolist()]
    if kind == "list of str":
        return texts
    if kind == "str":
        return np.array(texts)
    return np.array([text.encode() for text in texts], dtype=object)


@pytest.mark.parametrize("kind", ["int64", "list of str", "str", "bytes"])
@pytest.mark.parametrize("name", NAMES)
def test_any_ids_are_as_good_as_numbers_and_a_resume_is_bit_identical(name: str, kind: str) -> None:
    """Losses that differ leave no ties, so that the ids themselves cannot matter."""

    def run(policy: Any, steps: range, kind: str | None) -> list[Any]:
        made = []
        for t in steps:
            rng = np.random.default_rng(t)
            numbers = rng.choice(90, 30, replace=False)
            ids = numbers if kind is None else ids_of(kind, numbers)
            solution = so.solve(policy.propose({"ids": ids}, 6, rng), seed=t).require()
            made.append((solution.indices.tolist(), policy.weigh(solution).tolist()))
            picked = numbers[solution.indices]
            known = picked if kind is None else ids_of(kind, picked)
            losses = np.sin(picked * (t + 1.0))
            policy.observe(Feedback(t, solution.indices, None, losses, ids=known))
        return made

    def taught(kind: str | None) -> Any:
        policy: Any = make_policy(name, steps=20)
        everyone = np.arange(90)
        ids = everyone if kind is None else ids_of(kind, everyone)
        policy.refresh(ids, np.cos(everyone * 1.0))
        return policy

    whole = run(taught(None), range(16), None)
    first = taught(kind)
    assert run(first, range(7), kind) == whole[:7]
    second: Any = make_policy(name, steps=20)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.state_dict() == first.state_dict()
    assert run(second, range(7, 16), kind) == whole[7:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("other_ids", [2.5], "every entry of other_ids must be a 64-bit integer or a string"),
        ("other_ids", [-1], "every entry of other_ids must be a 64-bit integer or a string"),
        ("other_ids", [2**63], "every entry of other_ids must be a 64-bit integer or a string"),
        ("other_ids", ["a", "a"], "other_losses must be a list of 2"),
        ("byte_ids", [7], "byte_ids must be a list of strings"),
        ("byte_ids", ["\u1234"], "byte_ids must be bytes decoded by Latin-1"),
        ("other_losses", [np.inf], "every entry of other_losses must be a finite number"),
    ],
)
def test_a_malformed_state_is_refused_whole(
    name: str, entry: str, value: Any, message: str
) -> None:
    policy: Any = make_policy(name)
    policy.refresh(["a"], np.ones(1))
    before = policy.state_dict()
    with pytest.raises(so.OptionError, match=message):
        policy.load_state_dict({**before, entry: value})
    assert policy.state_dict() == before
    twice = {**before, "other_ids": ["a", "a"], "other_losses": [1.0, 2.0]}
    with pytest.raises(so.OptionError, match="other_ids must be ids that are distinct"):
        policy.load_state_dict(twice)


@settings(max_examples=30)
@given(st.lists(TEXTS, min_size=1, max_size=8, unique=True))
def test_equal_losses_of_texts_have_an_order_that_is_kept(texts: list[Any]) -> None:
    policy: Any = make_policy("online-batch", pressure=8.0)
    p = policy.probabilities(texts)
    assert p.sum() == pytest.approx(1.0) and len(set(p.tolist())) == len(texts)
    np.testing.assert_array_equal(policy.probabilities(texts), p)
