"""Samplers on records that are interrupted, killed, shared by processes, or prepared by others."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.ledger import Ledger

torch = pytest.importorskip("torch")
from stateful_loader import StatefulLoader  # noqa: E402
from torch import distributed  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import subsetopt_torch as st  # noqa: E402

N, K = 60, 4
HAS_FORK = "fork" in multiprocessing.get_all_start_methods()
FORKS = [
    pytest.mark.skipif(not HAS_FORK, reason="no fork on this platform"),
    # Python 3.12 and later warn of any fork while threads run; that is tested here.
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
WORKERS = [0, pytest.param(2, marks=FORKS)]
FORMS = {
    "balanced plan": ("balanced", {"plan": "epoch", "rate": 0.3}),
    "obtf plan": ("obtf", {"plan": "epoch", "rate": 0.3}),
    "infobatch plan": ("infobatch", {"plan": "epoch"}),
    "big-loss windows": ("big-loss", {"candidates": 12}),
    "balanced windows": ("balanced", {"candidates": 12}),
    "importance plan": ("importance", {"plan": "epoch", "rate": 0.5}),
    "adaselection": ("adaselection", {"rate": 0.3}),
    "annealed": ("infobatch", {"plan": "epoch", "full_after": 0.5, "epochs": 4}),
}
Batch = tuple[list[int], list[float]]


def sampler_of(form: str, ledger: Any, **options: Any) -> st.SubsetBatchSampler:
    policy, rules = FORMS[form]
    return st.SubsetBatchSampler(N, policy, K, ledger=ledger, **{"seed": 4, **rules, **options})


def told(form: str, ids: Any, number: int) -> tuple[Any, ...]:
    """Return losses, and scores where they are read, that change as training goes on."""
    losses = np.abs(np.sin(np.asarray(ids) * 1.7 + 0.1 * number)) + 0.01
    scored = FORMS[form][0] in ("balanced", "importance")
    return (losses, losses**0.5) if scored else (losses,)


def train(sampler: st.SubsetBatchSampler, form: str, batches: Any, stop: int = -1) -> list[Batch]:
    """Train on some batches, or on all that are left."""
    seen: list[Batch] = []
    for ids in batches:
        ids = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        seen.append((ids, sampler.weights(ids).tolist()))
        # Losses depend on the number of the batch in the epoch.
        sampler.observe(ids, *told(form, ids, sampler.issued - sampler.waiting))
        if len(seen) == stop:
            break
    return seen


def reread(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def new_ledger(folder: Path, name: str) -> Ledger:
    return Ledger.open(f"dense:{folder / name}", capacity=N)


def loader(sampler: st.SubsetBatchSampler, workers: int) -> DataLoader[Any]:
    context = "fork" if workers else None
    return DataLoader(
        range(N),  # type: ignore[arg-type]
        batch_sampler=sampler,
        num_workers=workers,
        multiprocessing_context=context,
        timeout=60 if workers else 0,
    )


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("form", ["balanced plan", "infobatch plan", "big-loss windows"])
def test_resumed_runs_with_workers_are_bit_identical(
    form: str, workers: int, tmp_path: Path
) -> None:
    with new_ledger(tmp_path, "whole") as ledger:
        whole = sampler_of(form, ledger)
        expected = [train(whole, form, loader(whole, workers)) for _ in range(3)]
    with new_ledger(tmp_path, "parts") as ledger:
        first = sampler_of(form, ledger)
        assert train(first, form, loader(first, workers)) == expected[0]
        assert train(first, form, iter(loader(first, workers)), 2) == expected[1][:2]
        state = reread(first.state_dict())
        train(first, form, loader(first, workers))  # what comes after the state is not seen
        second = sampler_of(form, ledger, seed=99)
        second.load_state_dict(state)
        assert len(second) == len(expected[1])
        assert train(second, form, loader(second, workers)) == expected[1][2:]
        assert train(second, form, loader(second, workers)) == expected[2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stop", [1, 3])
def test_resumed_runs_are_bit_identical(form: str, stop: int, tmp_path: Path) -> None:
    with new_ledger(tmp_path, "whole") as ledger:
        whole = sampler_of(form, ledger)
        expected = [train(whole, form, whole) for _ in range(4)]
    with new_ledger(tmp_path, "parts") as ledger:
        sampler = sampler_of(form, ledger)
        assert train(sampler, form, sampler) == expected[0]
        for epoch in (1, 2, 3):
            assert train(sampler, form, iter(sampler), stop) == expected[epoch][:stop]
            resumed = sampler_of(form, ledger, seed=99)
            resumed.load_state_dict(reread(sampler.state_dict()))
            assert train(resumed, form, resumed) == expected[epoch][stop:]
            sampler = resumed


def run_in_child(
    folder: Path, form: str, batches: int, every: int, report: Callable[[], object]
) -> None:
    """Train from the last checkpoint to the end; a report after every batch."""
    with new_ledger(folder, "ledger") as ledger:
        sampler = sampler_of(form, ledger)
        done: list[Batch] = []

        def save() -> None:
            file = folder / "checkpoint.new"
            torch.save({"sampler": sampler.state_dict(), "done": done}, file)
            file.replace(folder / "checkpoint")

        if (folder / "checkpoint").exists():
            saved = torch.load(folder / "checkpoint", weights_only=True)
            sampler.load_state_dict(saved["sampler"])
            done = saved["done"]
        else:
            save()  # before anything is recorded, which a run from the start would choose by
        while len(done) < batches:
            for ids in sampler:
                done.append((ids, sampler.weights(ids).tolist()))
                sampler.observe(ids, *told(form, ids, len(done)))
                if len(done) % every == 0:
                    save()
                report()
                if len(done) == batches:
                    break
        (folder / "done.new").write_text(json.dumps(done))
        (folder / "done.new").replace(folder / "done")


def killed_run(folder: Path, form: str, batches: int, every: int, kills: int, seed: int) -> int:
    """Kill a run again and again, and then let it end; return the number of kills."""
    rng = np.random.default_rng(seed)
    killed = 0
    while not (folder / "done").exists():
        steps = int(rng.integers(0, 9)) if killed < kills else 10**9
        killed += killed_once(partial(run_in_child, folder, form, batches, every), steps)
    return killed


def killed_once(run: Callable[[Callable[[], object]], None], steps: int) -> bool:
    """Kill a run after some reports, at whatever it does by then; return whether it still ran."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # The child only ever leaves through os._exit.
        try:
            os.close(reading)
            run(lambda: os.write(writing, b"."))
        finally:
            os._exit(0)
    os.close(writing)
    heard = 0
    while heard < steps and os.read(reading, 1):
        heard += 1
    if heard == steps:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return heard == steps


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("form", ["balanced plan", "infobatch plan", "big-loss windows"])
def test_killed_runs_choose_what_one_that_was_not_killed_does(form: str, tmp_path: Path) -> None:
    seed = int(np.random.default_rng().integers(1 << 32))
    batches, every = 40, 3
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    run_in_child(tmp_path / "whole", form, batches, every, lambda: None)
    kills = killed_run(tmp_path / "killed", form, batches, every, 6, seed)
    expected, got = (json.loads((tmp_path / n / "done").read_text()) for n in ("whole", "killed"))
    assert kills >= 3 and len(expected) == batches
    assert got == expected, f"seed {seed}"


def test_processes_share_one_plan(tmp_path: Path) -> None:
    for form in ("balanced plan", "balanced windows", "annealed"):
        shares, lengths = [], set()
        for rank in range(3):
            with new_ledger(tmp_path, f"{form} {rank}") as ledger:
                losses = told(form, np.arange(N), 0)
                ledger.record(np.arange(N), *losses, step=0)
                sampler = sampler_of(form, ledger, rank=rank, world_size=3)
                lengths.add(len(sampler))
                shares.append([(ids, sampler.weights(ids).numpy()) for ids in sampler])
                lengths.add(len(shares[-1]))
        assert len(lengths) == 1
        ids = [i for share in shares for batch, _ in share for i in batch]
        assert len(ids) == len(set(ids))
        with new_ledger(tmp_path, f"{form} alone") as ledger:
            ledger.record(np.arange(N), *losses, step=0)
            alone = sampler_of(form, ledger)
            batches = [(batch, alone.weights(batch).numpy()) for batch in alone]
        if "plan" in FORMS[form][1]:
            assert set(ids) == {i for batch, _ in batches for i in batch}
            parts = [batch for share in shares for batch in share]
            means = [np.mean([w @ losses[0][b] for b, w in some]) for some in (parts, batches)]
            assert means[0] == pytest.approx(means[1], rel=1e-5)


def test_a_state_of_another_process_is_refused(tmp_path: Path) -> None:
    with new_ledger(tmp_path, "ledger") as ledger:
        first = sampler_of("obtf plan", ledger, rank=0, world_size=2)
        next(iter(first))
        second = sampler_of("obtf plan", ledger, rank=1, world_size=2)
        with pytest.raises(
            so.OptionError, match=r"share of process 0 of 2 .* process 1 of 2: save"
        ):
            second.load_state_dict(first.state_dict())
        other = sampler_of("infobatch plan", ledger)
        with pytest.raises(so.OptionError, match="saved by a sampler with policy"):
            other.load_state_dict(first.state_dict())
        windows = sampler_of("big-loss windows", ledger)
        drawn = sampler_of("big-loss windows", ledger, candidates=None, steps_per_epoch=5)
        with pytest.raises(
            so.OptionError, match="chooses by 'windows', this one chooses by 'batch'"
        ):
            drawn.load_state_dict(windows.state_dict())


def test_too_few_samples_for_all_processes(tmp_path: Path) -> None:
    with new_ledger(tmp_path, "ledger") as ledger:
        ledger.record(np.arange(N), np.ones(N), step=0)
        sampler = sampler_of("obtf plan", ledger, rate=0.03, rank=0, world_size=4)
        with pytest.raises(so.ProblemError, match="2 samples cannot be shared by 4 processes"):
            next(iter(sampler))


@pytest.mark.parametrize(
    ("n", "ranks"),
    [
        (n, ranks)
        for ranks in (1, 2, 3)
        for n in (0, 1, 5, 8, 9, 13, 16, 17, 24, 25)
        if n == 0 or n >= ranks  # fewer samples than processes are refused
    ],
)
def test_every_process_has_as_many_batches(n: int, ranks: int) -> None:
    from subsetopt_torch.loading.plans import Plan

    order = np.arange(n)
    plans = [Plan.of_pass(order, 4, (rank, ranks)) for rank in range(ranks)]
    assert len({len(plan) for plan in plans}) == 1
    parts = [plan.part(t) for plan in plans for t in range(len(plan))]
    assert sorted(i for ids, _ in parts for i in ids.tolist()) == order.tolist()
    assert all(1 <= ids.size <= 4 for ids, _ in parts)
    assert len(plans[0]) == -(-n // (4 * ranks))


def of_two_processes(folder: Path, rank: int) -> Any:
    """Train as one of two processes of a group; return what it was handed out, epoch by epoch."""
    if sys.platform == "linux":  # other interfaces may not be reachable where tests run
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    try:
        with new_ledger(folder, f"ledger {rank}") as ledger:
            sampler = sampler_of("balanced plan", ledger)
            epochs = [train(sampler, "balanced plan", sampler) for _ in range(3)]
            recorded = sampler.state_dict()["records"]["base"]["losses"].tolist()
    finally:
        distributed.destroy_process_group()
    return [epochs, recorded]


@pytest.mark.skipif(not HAS_FORK or not distributed.is_gloo_available(), reason="no fork or gloo")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_processes_of_a_group_tell_each_other_what_they_recorded(tmp_path: Path) -> None:
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:  # The child only ever leaves through os._exit.
            try:
                told_of = of_two_processes(tmp_path, rank)
                (tmp_path / f"answer {rank}").write_text(json.dumps(told_of))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    answers = [json.loads((tmp_path / f"answer {rank}").read_text()) for rank in range(2)]
    for t, size in enumerate((N, 18, 18)):
        ids = [i for epochs, _ in answers for batch, _ in epochs[t] for i in batch]
        assert len(ids) == len(set(ids)) == size
        assert len(answers[0][0][t]) == len(answers[1][0][t])
    assert answers[0][1] == answers[1][1] and np.isfinite(answers[0][1]).all()


@pytest.mark.parametrize("form", ["infobatch plan", "big-loss windows"])
@pytest.mark.parametrize("ahead", [0, 2])
def test_loaders_that_save_their_own_state_go_on(form: str, ahead: int, tmp_path: Path) -> None:
    with new_ledger(tmp_path, "ledger") as ledger:
        sampler = sampler_of(form, ledger)
        train(sampler, form, sampler)
        first = StatefulLoader(sampler, ahead)
        length = len(sampler)
        delivered = train(sampler, form, first, 2)
        again = sampler_of(form, ledger)
        rest = train(again, form, StatefulLoader(again, ahead, first.state))
        assert len(delivered) + len(rest) == length
        ids = [i for batch, _ in [*delivered, *rest] for i in batch]
        assert len(ids) == len(set(ids))


@pytest.mark.filterwarnings("ignore:.*set_vital.*:UserWarning")  # torchdata calls it
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("form", ["infobatch plan", "balanced plan"])
def test_under_the_stateful_loader_of_torchdata(form: str, workers: int, tmp_path: Path) -> None:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    data = st.WithIds(TensorDataset(torch.randn(N, 2)))

    def make(ledger: Ledger) -> tuple[st.SubsetBatchSampler, Any]:
        sampler = sampler_of(form, ledger)
        return sampler, module.StatefulDataLoader(data, batch_sampler=sampler, num_workers=workers)

    with new_ledger(tmp_path, "ledger") as ledger:
        sampler, loader = make(ledger)
        train(sampler, form, (ids for _, ids in loader))
        length = len(sampler)
        delivered = []
        for _, ids in loader:
            delivered += train(sampler, form, [ids])
            if len(delivered) == 2:
                state = reread(loader.state_dict())
                break
        sampler, loader = make(ledger)
        loader.load_state_dict(state)
        rest = train(sampler, form, (ids for _, ids in loader))
        assert len(rest) == length - 2
        ids = [i for batch, _ in [*delivered, *rest] for i in batch]
        assert len(ids) == len(set(ids))


def test_a_loader_prepared_by_accelerate(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    data = st.WithIds(TensorDataset(torch.randn(N, 2)))
    form = "balanced plan"

    def prepared(ledger: Ledger) -> tuple[st.SubsetBatchSampler, Any]:
        sampler = sampler_of(form, ledger)
        return sampler, accelerator.prepare(DataLoader(data, batch_sampler=sampler))

    with new_ledger(tmp_path, "whole") as ledger:
        sampler, batches = prepared(ledger)
        expected = [train(sampler, form, (ids for _, ids in batches)) for _ in range(2)]
        assert len(batches) == len(sampler) == len(expected[1])
    with new_ledger(tmp_path, "parts") as ledger:
        first, batches = prepared(ledger)
        train(first, form, (ids for _, ids in batches))
        train(first, form, (ids for _, ids in batches), 2)
        second, batches = prepared(ledger)
        second.load_state_dict(first.state_dict())
        assert train(second, form, (ids for _, ids in batches)) == expected[1][2:]
