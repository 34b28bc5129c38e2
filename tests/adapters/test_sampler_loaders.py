"""SubsetBatchSampler under loaders that save their own state or count epochs of their own."""

from __future__ import annotations

from typing import Any

import pytest

import subsetopt as so

torch = pytest.importorskip("torch")
from stateful_loader import StatefulLoader  # noqa: E402

import subsetopt_torch as st  # noqa: E402

N, K = 60, 6


def sampler_of(policy: str = "prioritized") -> st.SubsetBatchSampler:
    return st.SubsetBatchSampler(N, policy, K, seed=0)


def loss_of(ids: list[int]) -> Any:
    return torch.tensor([(i * 37 % 11) / 11 + 0.1 for i in ids])


@pytest.mark.parametrize("policy", ["prioritized", "online-batch", "uniform"])
@pytest.mark.parametrize("ahead", [0, 4])
@pytest.mark.parametrize("stop", [1, 6, 9, 10])
def test_what_a_loader_has_delivered_does_not_come_again(
    policy: str, ahead: int, stop: int
) -> None:
    first = StatefulLoader(sampler_of(policy), ahead)
    delivered = []
    for batch in first:
        first.sampler.observe(batch, loss_of(batch))
        delivered.append(batch)
        if len(delivered) == stop:
            break
    again = StatefulLoader(sampler_of(policy), ahead, first.state)
    if stop == 10:  # the epoch is over: the next one is a whole one
        assert again.sampler.epoch == 0
        assert len(list(again)) == 10 and again.sampler.epoch == 1
        return
    rest = []
    for batch in again:
        again.sampler.observe(batch, loss_of(batch))
        rest.append(batch)
    assert len(rest) == 10 - stop and again.sampler.waiting == 0
    assert not any(batch in delivered for batch in rest)
    if policy == "uniform":
        assert sorted(i for batch in [*delivered, *rest] for i in batch) == list(range(N))


def test_the_state_of_the_sampler_alone_has_what_was_not_observed() -> None:
    sampler = sampler_of()
    batches = iter(sampler)
    issued = [next(batches) for _ in range(5)]
    sampler.observe(issued[0], loss_of(issued[0]))
    resumed = sampler_of()
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed)[:4] == issued[1:]


def test_an_iterator_state_that_lacks_its_entry() -> None:
    with pytest.raises(so.OptionError, match="iterator state lacks"):
        iter(sampler_of()).load_state_dict({})


def epochs_of(sampler: st.SubsetBatchSampler, count: int) -> list[list[list[int]]]:
    """Return the batches of some epochs, each observed before the next one is asked for."""
    epochs: list[list[list[int]]] = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        epochs.append([])
        for batch in sampler:
            sampler.observe(batch, loss_of(batch))
            epochs[-1].append(batch)
    return epochs


@pytest.mark.parametrize("over", [False, True])
def test_a_loader_that_counts_from_zero_again_goes_on(over: bool) -> None:
    run, epochs = sampler_of(), epochs_of(sampler_of(), 5)
    for epoch in range(3):
        run.set_epoch(epoch)
        for t, batch in enumerate(run):
            run.observe(batch, loss_of(batch))
            if epoch == 2 and t == 3 and not over:
                break
    resumed = sampler_of()
    resumed.load_state_dict(run.state_dict())
    assert epochs_of(resumed, 2) == ([epochs[3], epochs[4]] if over else [epochs[2][4:], epochs[3]])
    assert resumed.epoch == (4 if over else 3)


def test_numbers_of_epochs_that_go_on_are_taken_as_they_are() -> None:
    run = sampler_of("uniform")
    for epoch in range(2):
        run.set_epoch(epoch)
        batches = list(run)
    for batch in batches[:4]:
        run.observe(batch)
    resumed = sampler_of("uniform")
    resumed.load_state_dict(run.state_dict())
    resumed.set_epoch(1)
    assert list(resumed) == batches[4:]
    resumed.set_epoch(0)
    twin = sampler_of("uniform")
    assert list(resumed) == list(twin) and resumed.epoch == 0
