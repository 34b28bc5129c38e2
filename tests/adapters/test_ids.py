"""Ids of any kind in a selector, a step and a sampler: large integers, strings and bytes."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import StatelessPolicy

torch = pytest.importorskip("torch")
from step_parts import batch, make  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import subsetopt_torch as st  # noqa: E402

KINDS = ("tensor", "int64", "list of str", "array of str", "bytes")
POLICIES = ("online-batch", "prioritized")
N = 24


def ids_of(kind: str, numbers: list[int]) -> Any:
    if kind in ("tensor", "int64"):
        large = np.array(numbers, dtype=np.int64) * 2**40 - 2**50
        return torch.from_numpy(large) if kind == "tensor" else large
    texts = [f"image_{i}.png" for i in numbers]
    if kind == "bytes":
        return [text.encode() for text in texts]
    return np.array(texts) if kind == "array of str" else texts


def reloaded(state: Any) -> Any:
    """Return a state as torch reads it from a file that it does not trust."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", POLICIES)
def test_a_selector_remembers_samples_by_any_ids(name: str, kind: str) -> None:
    def run(selector: st.BatchSelector, steps: range, kind: str | None) -> list[Any]:
        made = []
        for t in steps:
            numbers = np.random.default_rng(t).permutation(N)[:16].tolist()
            ids = torch.tensor(numbers) if kind is None else ids_of(kind, numbers)
            losses = torch.cos(torch.tensor(numbers) * 1.0) + 2.0
            picked = selector(losses, ids=ids)
            selector.observe(picked, losses=losses[picked.indices] / (t + 1))
            made.append((picked.indices.tolist(), picked.weights.tolist()))
        return made

    def taught(kind: str | None) -> st.BatchSelector:
        selector = st.BatchSelector(name, k=4, seed=0)
        ids: Any = np.arange(N) if kind is None else ids_of(kind, list(range(N)))
        selector.policy.refresh(ids, np.sin(np.arange(N) * 1.0))  # type: ignore[attr-defined]
        return selector

    whole = run(taught(None), range(12), None)
    first, second = taught(kind), taught(kind)
    assert run(first, range(5), kind) == whole[:5]
    second.load_state_dict(reloaded(first.state_dict()))
    assert run(second, range(5, 12), kind) == whole[5:]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_step_passes_any_ids_on_and_gathers_them(kind: str, accumulate: bool) -> None:
    def step_of() -> st.SelectiveStep:
        torch.manual_seed(0)
        return make(policy="prioritized", accumulate=accumulate, batch_size=16)

    def run(step: st.SelectiveStep, steps: range) -> list[float]:
        losses = []
        for t in steps:
            torch.manual_seed(t)  # of the network's dropout
            ids = ids_of(kind, [32 * t + i for i in range(32)])
            losses.append(float(step(*batch(seed=t), ids=ids).loss))
        return losses

    first, second = step_of(), step_of()
    run(first, range(3))
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(reloaded(first.optimizer.state_dict()))
    second.load_state_dict(reloaded(first.state_dict()))
    assert run(first, range(3, 7)) == pytest.approx(run(second, range(3, 7)), abs=0, nan_ok=True)
    state = second.selector.policy.state_dict()
    assert state == first.selector.policy.state_dict()
    heard = state["other_ids"] + [text.encode("latin-1") for text in state["byte_ids"]]
    known = ids_of(kind, list(range(32 * 7)))
    assert heard and not state["losses"]
    assert set(heard) <= set(known.tolist() if hasattr(known, "tolist") else known)


class Both(StatelessPolicy):
    """Reads logits, which are a matrix, and ids."""

    requires = frozenset({"logits", "ids"})
    seen: Any = None

    def propose(self, signals: Any, k: int, rng: np.random.Generator) -> so.Problem:
        self.seen = signals["ids"]
        return so.Problem(so.TopScores(signals["logits"][:, 0].numpy()), k)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_gets_ids_beside_a_matrix(kind: str) -> None:
    policy = Both()
    ids = ids_of(kind, [3, 1, 2])
    st.BatchSelector(policy, k=1)(torch.ones(3), logits=torch.eye(3), ids=ids)
    assert list(policy.seen) == list(ids)
    assert isinstance(policy.seen, torch.Tensor) == (kind in ("tensor", "int64"))


class Named(Dataset[Any]):
    """Samples that come with names, as a folder of images has them."""

    def __init__(self, names: Any) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        return float(index), self.names[index]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*POLICIES, "uniform"])
def test_a_sampler_knows_samples_by_their_ids(name: str, kind: str) -> None:
    ids = ids_of(kind, list(range(N)))
    data = Named(ids.tolist() if hasattr(ids, "tolist") else ids)
    sampler = st.SubsetBatchSampler(data, name, 6, seed=0, ids=ids)
    twin = st.SubsetBatchSampler(N, name, 6, seed=0)
    collate = None if kind != "bytes" else lambda rows: tuple(zip(*rows, strict=True))
    loader = DataLoader(data, batch_sampler=sampler, collate_fn=collate)
    for _ in range(3):
        for (x, named), positions in zip(loader, twin, strict=True):
            values = torch.as_tensor(x)
            assert values.tolist() == positions
            assert torch.equal(sampler.weights(named), twin.weights(positions))
            sampler.observe(named, values + 1.0)
            twin.observe(positions, values + 1.0)
    state = reloaded(sampler.state_dict())
    assert repr(state) == repr(twin.state_dict())  # NaN does not equal itself
    if name != "uniform":
        sampler.refresh(torch.ones(2), ids_of(kind, [4, 5]))
        with pytest.raises(so.ProblemError, match=r"no sample of this sampler's data has the id"):
            sampler.refresh(torch.ones(2), ids_of(kind, [4, 99]))
    with pytest.raises(so.ProblemError, match="no batch of this sampler that was not observed yet"):
        sampler.weights(ids_of(kind, [99, 100]))


def test_ids_of_a_sampler_that_do_not_fit() -> None:
    for ids, message in (
        (["a", "b", "a"], "the sample of id 'a' twice"),
        ([5, 7, 5], "the sample of id 5 twice"),
        (["a", "b"], "got 2 ids for 3 samples: pass one for each"),
        ([0, 1, -1], "got -1, which stands for samples without an id"),
    ):
        with pytest.raises(so.OptionError, match=message):
            st.SubsetBatchSampler(3, "uniform", 1, ids=ids)
    by_name = st.SubsetBatchSampler(3, "uniform", 1, ids=["a", "b", "c"])
    with pytest.raises(
        so.ProblemError, match="ids must be a vector of strings or bytes, got shape"
    ):
        by_name.weights([0])
    by_number = st.SubsetBatchSampler(3, "uniform", 1)
    with pytest.raises(so.ProblemError, match=r"vector of integers, .* give them to the sampler"):
        by_number.weights(["a"])


# A sampler whose policy hears nothing


@pytest.mark.parametrize("counted", [False, True])
def test_a_sampler_that_hears_no_losses_says_so_once(counted: bool) -> None:
    sampler = st.SubsetBatchSampler(80, "prioritized", 8, seed=0)

    def epochs(count: int) -> None:
        for _ in range(count):
            for ids in sampler:
                if counted:
                    sampler.observe(ids)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epochs(1)
    with pytest.warns(UserWarning, match=r"'prioritized' learns .* has heard nothing") as caught:
        epochs(5)
    assert len(caught) == 1
    assert "after every update, call sampler.observe(ids, losses)" in str(caught[0].message)


def test_one_epoch_without_an_end_says_so_too() -> None:
    sampler = st.SubsetBatchSampler(9, "online-batch", 3, seed=0, steps_per_epoch=10_000)
    with pytest.warns(UserWarning, match=r"call sampler\.observe\(ids, losses\)"):
        for _, ids in zip(range(1100), sampler, strict=False):
            assert len(ids) == 3


@pytest.mark.parametrize("how", ["observe", "refresh", "uniform"])
def test_a_sampler_that_hears_losses_or_needs_none_is_silent(how: str) -> None:
    name = "uniform" if how == "uniform" else "prioritized"
    sampler = st.SubsetBatchSampler(80, name, 8, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in range(6):
            for ids in sampler:
                if how == "observe":
                    sampler.observe(ids, torch.ones(8))
            if how == "refresh" and not epoch:
                sampler.refresh(torch.ones(80))
    assert sampler.selections == 60
