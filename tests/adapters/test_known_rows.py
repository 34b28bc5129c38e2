"""Which parts of a batch have one row per sample: kept from the first batch, refused in doubt."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from signal_parts import Taking
from step_parts import CROSS_ENTROPY, batch, make

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, random_split  # noqa: E402

import subsetopt_torch as st  # noqa: E402
from subsetopt_torch.model.batches import batch_size, per_sample, take  # noqa: E402
from subsetopt_torch.model.known_rows import KnownRows  # noqa: E402


def weighted(outputs: Any, targets: Any) -> Any:
    return F.cross_entropy(outputs, targets[0], targets[1], reduction="none")


@pytest.mark.parametrize("policy", ["obtf", "uniform", "upper-bound"])
@pytest.mark.parametrize("k", [1, 3])
def test_what_the_first_batch_shows_holds_for_a_batch_of_as_many_samples_as_classes(
    policy: str, k: int
) -> None:
    weights, model = torch.arange(1.0, 5.0), nn.Linear(6, 4)
    step = make(model, policy, loss_fn=weighted, selector={"k": k})
    for n in (32, 4, 8, 4):
        twin = copy.deepcopy(model)
        x, y = batch(n, seed=n)
        result = step(x, (y, weights))
        rows = result.picked.indices
        losses = weighted(twin(x[rows]), (y[rows], weights))
        torch.testing.assert_close(result.loss, (losses * result.picked.weights).sum().detach())


@pytest.mark.parametrize("policy", ["obtf", "uniform"])
@pytest.mark.parametrize("seen_in", ["targets", "outputs"])
def test_a_first_batch_that_can_be_read_in_two_ways_is_refused(policy: str, seen_in: str) -> None:
    x, y = batch(4)
    model = nn.Linear(6, 4)
    before = model.weight.detach().clone()
    loss_fn = weighted
    targets: Any = y
    if seen_in == "targets":
        targets = F.one_hot(y, 4).float()

        def loss_fn(outputs: Any, both: Any) -> Any:
            return (F.cross_entropy(outputs, both[0], reduction="none") * both[1].sum()).abs()

    step = make(model, policy, loss_fn=loss_fn, selector={"k": 2})
    for _ in range(2):
        with pytest.raises(so.ProblemError, match=r"4 samples, which is also .* of shape \(4,\)"):
            step(x, (targets, torch.arange(1.0, 5.0)))
    assert torch.equal(model.weight, before)


def test_parts_like_the_first_are_not_in_doubt() -> None:
    known = KnownRows()
    tokens = {"input_ids": torch.ones(8, 8).long(), "attention_mask": torch.ones(8, 8).long()}
    assert known.of(tokens, torch.ones(8), 8) == [{"input_ids": True, "attention_mask": True}, True]
    images = (torch.zeros(32, 3, 32, 32), torch.zeros(32))
    assert KnownRows().of(images, torch.zeros(32), 32) == [[True, True], True]
    with pytest.raises(so.ProblemError, match=r"part of shape \(8, 8\) and dtype torch.bool"):
        KnownRows().of((tokens["input_ids"], torch.ones(8, 8).bool()), torch.ones(8), 8)


def test_rows_that_get_lost_are_refused() -> None:
    step = make(loss_fn=lambda o, t: CROSS_ENTROPY(o, t[0]) + 0 * t[1].sum())
    x, y = batch(16)
    step(x, (y, torch.ones(16)))
    with pytest.raises(so.ProblemError, match=r"is \(16,\) for 32 samples now"):
        step(*batch(32)[:1], (batch(32)[1], torch.ones(16)))


def test_a_batch_of_another_build_begins_anew() -> None:
    known = KnownRows()
    assert known.of(torch.ones(5, 2), torch.ones(5), 5) == [True, True]
    assert known.of((torch.ones(4, 2), "note"), torch.ones(4), 4) == [[True, False], True]


class OfList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, images: Any) -> torch.Tensor:
        return self.linear(torch.stack([image.mean((1, 2)) for image in images]))


@pytest.mark.parametrize("build", ["list", "tuple in a tuple"])
@pytest.mark.parametrize("policy", ["obtf", "uniform", "upper-bound"])
def test_lists_of_samples_are_cut_and_given_to_the_model_whole(build: str, policy: str) -> None:
    images = [torch.randn(3, 8 + i, 8) for i in range(6)]
    inputs: Any = images if build == "list" else (tuple(images),)
    model = OfList()
    twin, y = copy.deepcopy(model), torch.randint(0, 4, (6,))
    for keywords in ({"accumulate": True, "batch_size": 2}, {}):
        step = make(copy.deepcopy(model), policy, selector={"k": 2}, **keywords)
        result = step(inputs, y)
        rows = result.picked.indices
        losses = CROSS_ENTROPY(twin([images[i] for i in rows]), y[rows])
        torch.testing.assert_close(result.loss, (losses * result.picked.weights).sum().detach())


@pytest.mark.parametrize("boxes", [[3, 2, 2, 2, 2, 2], [6, 2, 2, 2, 2, 2], [2] * 6, [6] * 6])
def test_detection_has_one_dict_per_sample(boxes: list[int]) -> None:
    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 4)

        def forward(self, images: Any, targets: Any) -> torch.Tensor:
            assert len(images) == len(targets)
            points = self.linear(torch.stack([image.mean((1, 2)) for image in images]))
            pairs = zip(points, targets, strict=True)
            return torch.stack([(t["boxes"] - p).square().mean() for p, t in pairs])

    images = [torch.randn(3, 8 + i, 8) for i in range(6)]
    targets = [{"boxes": torch.randn(j, 4), "labels": torch.ones(j)} for j in boxes]
    assert batch_size(targets, (images, targets)) == 6
    if boxes == [6] * 6:
        assert per_sample(targets, 6) != [True] * 6  # may also be six parts of six rows each
        return
    step = make(Detector(), loss_fn=lambda o, t: o, selector={"k": 2})
    result = step((images, targets), targets)
    assert result.updated and len(result.picked) == 2


def test_lists_of_parts_are_still_parts() -> None:
    x, y = batch()
    model = nn.Bilinear(6, 6, 4)
    step = make(model, selector={"k": 8})
    assert step([x, x], y).updated
    assert batch_size([y, torch.ones(4)], [x, torch.ones(4, 2)]) == 32
    assert per_sample([x[:2], x[:2]], 2) == [True, True]


@dataclass
class Graphs:
    x: Any


def test_objects_that_cannot_be_cut_are_refused() -> None:
    class OfGraphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, graphs: Any) -> Any:
            return self.linear(graphs.x)

    x, y = batch()
    with pytest.raises(so.ProblemError, match="a Graphs, have no part with one row for each"):
        make(OfGraphs())(Graphs(x), y)
    assert make(OfGraphs(), selector={"rate": 1.0})(Graphs(x), y).updated


def test_inputs_of_another_length_are_refused() -> None:
    with pytest.raises(so.ProblemError, match=r"tensors of shapes \[\(20, 6\)\], have no part"):
        make()(torch.randn(20, 6), batch()[1])


@pytest.mark.parametrize("targets", ["of samples", "of steps"])
def test_sequences_first_are_refused(targets: str) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x)[0][-1]

    x, (_, y) = torch.randn(7, 32, 6), batch()
    if targets == "of samples":
        with pytest.raises(so.ProblemError, match=r"32 samples, and the inputs have shape \(7, 32"):
            make(Last())(x, y)
    else:
        loss = lambda o, t: CROSS_ENTROPY(o, t[-1])  # noqa: E731
        with pytest.raises(so.ProblemError, match="Samples must be along dimension 0"):
            make(Last(), loss_fn=loss)(x, y.expand(7, 32))


def test_one_column_against_a_vector_gets_a_hint_that_is_right() -> None:
    def squares(outputs: Any, targets: Any) -> Any:
        return (outputs - targets) ** 2

    x, _ = batch()
    with pytest.raises(so.ProblemError, match=r"all pairs .* outputs.squeeze\(1\)"):
        make(nn.Linear(6, 1), loss_fn=squares)(x, torch.randn(32))
    with pytest.raises(so.ProblemError, match=r"all pairs .* outputs.squeeze\(1\)"):
        st.BatchSelector(k=2)(torch.rand(8, 8))
    with pytest.raises(so.ProblemError, match=r"flatten\(1\).mean\(1\)"):
        st.BatchSelector(k=2)(torch.rand(8, 4))


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_channels_stay_last(rate: float) -> None:
    seen: list[bool] = []
    images = torch.randn(16, 3, 8, 8).to(memory_format=torch.channels_last)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 4))
    model.register_forward_pre_hook(
        lambda m, a: seen.append(a[0].is_contiguous(memory_format=torch.channels_last))
    )
    make(model, selector={"rate": rate})(images, torch.zeros(16, dtype=torch.long))
    assert seen and all(seen)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_rows_are_taken() -> None:
    dense = torch.randn(6, 4) * (torch.rand(6, 4) > 0.5)
    rows = torch.tensor([4, 1])
    for build in (dense.to_sparse_coo(), dense.to_sparse_csr()):
        taken = take(build, rows, 6)
        assert taken.layout is build.layout and torch.equal(taken.to_dense(), dense[rows])


def test_a_batch_of_its_own_kind_is_indexed_and_given_whole() -> None:
    class Own(dict):  # as a TensorDict: a mapping that is indexed as a whole
        batch_dims, device = 1, None

        @property
        def batch_size(self) -> Any:
            return torch.Size([len(self["x"])])

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, str):
                return super().__getitem__(key)
            return Own({name: value[key] for name, value in self.items()})

    class OfOwn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 4)

        def forward(self, own: Any) -> Any:
            return self.linear(own["x"])

    x, y = batch()
    assert len(make(OfOwn())(Own(x=x), y).picked) == 8


def test_as_many_ids_as_samples() -> None:
    with pytest.raises(so.ProblemError, match="got 5 ids for 32 samples"):
        make()(*batch(), ids=torch.arange(5))


@pytest.mark.parametrize("kind", ["large", "strings", "array of strings"])
def test_ids_of_any_kind_where_a_policy_looks_them_up(kind: str) -> None:
    names: Any = [2**40 + i if kind == "large" else f"sample {i}" for i in range(32)]
    policy = so.make_policy("rho-loss", irreducible={name: 0.5 for name in names})
    ids = np.array(names) if kind == "array of strings" else names
    step = make(policy=policy, accumulate=True, batch_size=16)
    assert not step(*batch(), ids=ids).updated and step(*batch(), ids=ids).updated
    told = Taking("losses")
    make(policy=told)(*batch(), ids=ids)
    assert list(told.feedback[0].ids) == names[:8]


# Ids of a part of a data set


def test_the_sampler_knows_the_ids_of_a_part() -> None:
    whole = TensorDataset(torch.arange(100.0))
    part = random_split(st.WithIds(whole), [80, 20], torch.Generator().manual_seed(0))[0]
    inner = Subset(part, range(10, 50))
    for data in (part, inner):
        sampler = st.SubsetBatchSampler(data, "online-batch", 10, seed=0)
        twin = st.SubsetBatchSampler(len(data), "online-batch", 10, seed=0)
        for (x, ids), positions in zip(DataLoader(data, batch_sampler=sampler), twin, strict=True):
            assert torch.equal(x.long(), ids)
            assert torch.equal(sampler.weights(ids), twin.weights(positions))
            sampler.observe(ids, x)
            twin.observe(positions, x)
            with pytest.raises(so.ProblemError, match="no batch of this sampler"):
                sampler.weights(torch.full((10,), 999))
        sampler.refresh(torch.ones(10), ids)


def test_a_part_that_holds_a_sample_twice_is_refused() -> None:
    data = Subset(st.WithIds(TensorDataset(torch.zeros(5))), [1, 3, 3])
    with pytest.raises(so.OptionError, match="id 3 twice"):
        st.SubsetBatchSampler(data, "uniform", 2)


def test_with_ids_fetches_as_the_data_set_does() -> None:
    class Batched(Dataset[Any]):
        targets, calls = [7] * 8, 0

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("one at a time")

        def __getitems__(self, indices: list[int]) -> list[Any]:
            self.calls += 1
            return [{"x": torch.tensor(i)} for i in indices]

    data = st.WithIds(Batched())
    batches = list(DataLoader(data, batch_size=4))
    assert data.calls == 2 and data.targets == [7] * 8
    assert torch.equal(batches[1]["ids"], batches[1]["x"])
    with pytest.raises(AttributeError):
        data.nonsense  # noqa: B018
    assert len(pickle.loads(pickle.dumps(st.WithIds([1, 2])))) == 2
    assert copy.copy(st.WithIds([1, 2]))[1] == (2, 1)
