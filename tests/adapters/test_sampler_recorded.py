"""Choosing before loading by what a ledger has recorded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.ledger import Ledger
from subsetopt.policies import StatelessPolicy

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, Dataset  # noqa: E402

import subsetopt_torch as st  # noqa: E402

N, K = 60, 8
RNG = np.random.default_rng(3)
LOSSES = RNG.exponential(size=N).astype(np.float32)
SCORES = (LOSSES * np.exp(0.3 * RNG.normal(size=N))).astype(np.float32)
EXACT = {"mix": 0.0, "max_weight": None}
# The built-in policies that can choose by ids, losses and one score.
LIVING = [
    spec.name
    for spec in so.list_policies()
    if isinstance(spec.target, str) and not {"logits", "logit_gradients"} & set(spec.requires)
]
SCORED = ("balanced", "importance", "upper-bound")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"dense:{tmp_path / 'scores'}") as opened:
        yield opened


@pytest.fixture
def full(ledger: Ledger) -> Ledger:
    ledger.record(np.arange(N), LOSSES, SCORES, step=0)
    return ledger


def sampler_of(policy: Any, ledger: Any, **options: Any) -> st.SubsetBatchSampler:
    return st.SubsetBatchSampler(N, policy, K, **{"ledger": ledger, "seed": 4, **options})


def told(policy: Any, ids: Any) -> tuple[Any, ...]:
    """Return what is observed of a batch: losses, and scores where the policy reads them."""
    scored = policy in SCORED
    return (LOSSES[ids], SCORES[ids]) if scored else (LOSSES[ids],)


def epoch_of(sampler: st.SubsetBatchSampler, policy: str) -> list[tuple[list[int], Any]]:
    seen = []
    for ids in sampler:
        seen.append((ids, sampler.weights(ids).double().numpy()))
        sampler.observe(ids, *told(policy, ids))
    return seen


class Counting(Dataset):
    """Counts how often each sample is read."""

    def __init__(self) -> None:
        self.reads = np.zeros(N, dtype=int)

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> int:
        self.reads[i] += 1
        return i


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("balanced", {"plan": "epoch", "rate": 0.3}),
        ("obtf", {"plan": "epoch", "rate": 0.3}),
        ("infobatch", {"plan": "epoch"}),
        ("big-loss", {"candidates": 20}),
        ("proportional-loss", {"steps_per_epoch": 2}),
    ],
)
def test_samples_that_are_not_chosen_are_never_read(
    policy: str, options: dict[str, Any], full: Ledger
) -> None:
    data = Counting()
    sampler = st.SubsetBatchSampler(data, policy, K, ledger=full, seed=1, **options)
    chosen: list[int] = []
    for ids in DataLoader(data, batch_sampler=sampler):
        chosen += ids.tolist()
        sampler.observe(ids, *told(policy, ids))
    assert np.array_equal(np.bincount(chosen, minlength=N), data.reads)
    assert 0 < np.count_nonzero(data.reads) < N


@pytest.mark.parametrize("form", [{"plan": "epoch", "rate": 0.3}, {"candidates": 20}, {}])
@pytest.mark.parametrize("policy", LIVING)
def test_every_policy_that_lives_on_records(
    policy: str, form: dict[str, Any], ledger: Ledger
) -> None:
    options = {"irreducible": np.zeros(N)} if policy == "rho-loss" else {}
    sampler = sampler_of(policy, ledger, policy_options=options, **form)
    scored = bool(
        set(so.make_policy(policy, **options).requires) & {"upper_bound", "gradient_norms"}
    )
    for _ in range(3):
        for ids in sampler:
            assert 1 <= len(ids) <= N and np.isfinite(sampler.weights(ids).numpy()).all()
            sampler.observe(ids, LOSSES[ids], SCORES[ids] if scored else None)
            state = sampler.state_dict()
    again = sampler_of(policy, ledger, policy_options=options, **form)
    again.load_state_dict(state)
    assert list(again) == list(sampler)


@pytest.mark.parametrize("policy", ["balanced", "obtf", "infobatch", "big-loss", "upper-bound"])
def test_the_first_epoch_without_records_is_a_whole_pass(policy: str, ledger: Ledger) -> None:
    sampler = sampler_of(policy, ledger, plan="epoch", rate=0.3)
    assert len(sampler) == 8
    first = epoch_of(sampler, policy)
    assert sorted(i for ids, _ in first for i in ids) == list(range(N))
    # The mean over the batches of the weighted loss is the mean loss.
    means = [weights @ LOSSES[ids].astype(float) for ids, weights in first]
    assert np.mean(means) == pytest.approx(LOSSES.mean(), rel=1e-6)
    found = ledger.lookup(np.arange(N))
    assert found.found.all() and np.array_equal(found.losses, LOSSES)
    assert np.array_equal(found.scores, SCORES, equal_nan=True) == (policy in SCORED)
    assert len(sampler) == 3
    second = epoch_of(sampler, policy)
    assert sum(len(ids) for ids, _ in second) == 18 and len(second) == 3


@pytest.mark.parametrize("policy", ["balanced", "infobatch", "importance"])
def test_plans_are_unbiased(policy: str, full: Ledger) -> None:
    options = {"presample": None} if policy == "importance" else {}
    options |= {"max_weight": None} if policy == "balanced" else {}
    made = so.make_policy(policy, **options)
    if policy == "importance":
        made.tau = 100.0  # on
    other = np.cos(np.arange(N)) + 2.0  # what nothing is balanced on
    estimates = []
    for seed in range(400):
        rules = st.RecordedScores(full, **EXACT)
        sampler = sampler_of(made, rules, plan="epoch", rate=0.4, seed=seed)
        batches = [(ids, sampler.weights(ids).double().numpy()) for ids in sampler]
        estimates.append(
            [np.mean([w @ v[ids] for ids, w in batches]) for v in (LOSSES.astype(float), other)]
        )
    errors = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    truth = [LOSSES.astype(float).mean(), other.mean()]
    assert (np.abs(np.mean(estimates, axis=0) - truth) <= 4.5 * errors + 1e-6).all()


def test_samples_without_a_record_count_for_themselves(ledger: Ledger) -> None:
    known = np.arange(0, N, 2)
    ledger.record(known, LOSSES[known], SCORES[known], step=0)
    estimates = []
    for seed in range(300):
        rules = st.RecordedScores(ledger, **EXACT)
        policy = so.make_policy("balanced", max_weight=None)
        sampler = sampler_of(policy, rules, plan="epoch", rate=0.4, seed=seed)
        batches = [(ids, sampler.weights(ids).double().numpy()) for ids in sampler]
        chosen = [i for ids, _ in batches for i in ids]
        assert set(range(1, N, 2)) <= set(chosen) and len(chosen) == 30 + 12
        estimates.append(np.mean([w @ LOSSES[ids].astype(float) for ids, w in batches]))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - LOSSES.mean()) <= 4.5 * error + 1e-6


def test_the_plan_of_obtf_matches_the_mean(full: Ledger) -> None:
    sampler = sampler_of("obtf", full, plan="epoch", rate=0.4)
    chosen = [i for ids in sampler for i in ids]
    assert len(chosen) == len(set(chosen)) == 24
    assert LOSSES[chosen].astype(float).mean() == pytest.approx(LOSSES.mean(), rel=1e-3)


def test_infobatch_keeps_what_it_says(full: Ledger) -> None:
    sampler = sampler_of("infobatch", full, plan="epoch")
    low = LOSSES < LOSSES.mean(dtype=float)
    batches = [(ids, sampler.weights(ids).double().numpy()) for ids in sampler]
    chosen = np.array([i for ids, _ in batches for i in ids])
    weights = np.concatenate([w for _, w in batches])
    assert np.count_nonzero(~low[chosen]) == np.count_nonzero(~low)
    assert np.count_nonzero(low[chosen]) == np.count_nonzero(low) // 2
    # What is below the mean weighs twice as much, up to the rounding of their number.
    ratio = weights[low[chosen]].mean() / weights[~low[chosen]].mean()
    assert ratio == pytest.approx(np.count_nonzero(low) / (np.count_nonzero(low) // 2), rel=1e-6)


@pytest.mark.parametrize("policy", ["big-loss", "balanced", "infobatch", "obtf"])
def test_windows_are_parts_of_one_pass(policy: str, full: Ledger) -> None:
    sampler = sampler_of(policy, full, candidates=20)
    assert len(sampler) == 3
    chosen = [i for ids, _ in epoch_of(sampler, policy) for i in ids]
    assert len(chosen) == len(set(chosen)) == 3 * K
    if policy == "big-loss":
        # The largest 8 of 20 at random: the largest of all is among them.
        assert int(LOSSES.argmax()) in chosen and int(LOSSES.argmin()) not in chosen
    again = sampler_of(policy, full, candidates=20)
    assert [i for ids in again for i in ids] == chosen


def test_a_smaller_window_gives_a_smaller_batch(full: Ledger) -> None:
    sampler = sampler_of("big-loss", full, candidates=25)
    sizes = [len(ids) for ids, _ in epoch_of(sampler, "big-loss")]
    assert sizes == [8, 8, 3]


def test_in_windows_without_records_these_come_first(ledger: Ledger) -> None:
    known = np.arange(N) % 3 != 0
    ledger.record(np.flatnonzero(known), LOSSES[known], step=0)
    sampler = sampler_of("big-loss", ledger, candidates=20)
    for ids in sampler:
        weights = sampler.weights(ids)
        assert torch.allclose(weights, torch.full((K,), 1 / K))
        assert np.count_nonzero(~known[ids]) >= 4
    fresh = sampler_of("big-loss", ledger, candidates=20, seed=5)
    chosen = np.array(next(iter(fresh)))
    late = chosen[known[chosen]]
    assert late.size == 0 or LOSSES[late].min() > np.median(LOSSES)


def test_means_for_what_is_not_recorded(ledger: Ledger) -> None:
    known = np.arange(0, N, 2)
    ledger.record(known, LOSSES[known], step=0)
    rules = st.RecordedScores(ledger, missing="mean")
    chosen = [i for ids in sampler_of("big-loss", rules, plan="epoch", rate=0.1) for i in ids]
    assert sorted(chosen) == sorted(known[np.argsort(LOSSES[known])[-6:]])
    # Where no record can be used, all are alike.
    empty = st.RecordedScores(ledger, missing="mean", max_versions=0, model_version=9)
    sampler = sampler_of("obtf", empty, plan="epoch", rate=0.2)
    assert len({i for ids in sampler for i in ids}) == 12


def test_old_records_and_the_oldest_ones_come_in_again(ledger: Ledger) -> None:
    ledger.record(np.arange(N), LOSSES, step=np.arange(N))
    aged = st.RecordedScores(ledger, max_age=20)
    sampler = sampler_of("big-loss", aged, plan="epoch", rate=0.1)
    chosen = {i for ids in sampler for i in ids}
    # The first selection is step 60, one after the latest record.
    assert set(range(40)) <= chosen and len(chosen) == 40 + 2
    refreshed = st.RecordedScores(ledger, refresh=0.25)
    chosen = {i for ids in sampler_of("big-loss", refreshed, plan="epoch", rate=0.1) for i in ids}
    assert set(range(15)) <= chosen and len(chosen) == 15 + 5


def test_a_run_on_an_old_ledger_goes_on_counting(ledger: Ledger) -> None:
    ledger.record(np.arange(N), LOSSES, step=1000)
    sampler = sampler_of("big-loss", ledger, plan="epoch", rate=0.1)
    ids = next(iter(sampler))
    sampler.observe(ids, np.ones(len(ids)))
    found = ledger.lookup(ids)
    assert (found.losses == 1.0).all() and (found.steps == 1001).all()
    clocked = st.RecordedScores(ledger, clock=lambda: 5000)
    sampler = sampler_of("big-loss", clocked, plan="epoch", rate=0.1)
    ids = next(iter(sampler))
    sampler.observe(ids, np.ones(len(ids)))
    assert (ledger.lookup(ids).steps == 5000).all()


def test_hard_samples_by_stale_scores_are_mixed_and_capped(full: Ledger) -> None:
    spread = np.where(np.arange(N) == 0, 1e-6, SCORES).astype(np.float32)
    full.record(np.arange(N), LOSSES, spread, step=1)
    rules = st.RecordedScores(full, max_weight=2.0)
    for seed in range(30):
        policy = so.make_policy("balanced", max_weight=None)
        sampler = sampler_of(policy, rules, plan="epoch", rate=0.4, seed=seed)
        batches = list(sampler)
        weights = np.concatenate([sampler.weights(ids).double().numpy() for ids in batches])
        assert weights.max() <= 2.0 / 24 * len(batches) * (1 + 1e-6)


def test_a_ledger_alone_has_weights_of_at_most_twice_the_uniform_one(ledger: Ledger) -> None:
    ledger.record(np.arange(N), LOSSES, np.where(np.arange(N) % 2 == 0, 1.0, 1e-9), step=0)
    largest = []
    for recorded in (ledger, st.RecordedScores(ledger)):
        sampler = sampler_of("balanced", recorded, plan="epoch", rate=0.4)
        batches = list(sampler)
        weights = np.concatenate([sampler.weights(ids).double().numpy() for ids in batches])
        largest.append(weights.max() * 24 / len(batches))
    assert largest == pytest.approx([2.0, 5.0], rel=1e-5)


@pytest.mark.parametrize("policy", ["balanced", "prioritized", "uniform"])
def test_annealing_ends_with_whole_passes(policy: str, ledger: Ledger) -> None:
    rules = {} if policy == "prioritized" else {"ledger": ledger}
    if policy == "balanced":
        rules |= {"plan": "epoch", "rate": 0.3}
    sampler = st.SubsetBatchSampler(
        N,
        policy,
        K,
        seed=0,
        full_after=0.6,
        epochs=4,
        **rules,  # type: ignore[arg-type]
    )
    epochs = [epoch_of(sampler, policy) for _ in range(4)]
    passes = [sorted(i for ids, _ in e for i in ids) == list(range(N)) for e in epochs]
    assert passes[3] and passes[2] == (policy == "uniform")
    for ids, weights in epochs[3]:
        assert np.allclose(weights, 1 / len(ids))


def test_samples_have_the_ids_of_the_ledger(tmp_path: Path) -> None:
    names = [f"image {i}" for i in range(12)]
    with Ledger.open(f"lmdb:{tmp_path / 'names'}") as ledger:
        ledger.record(names, np.arange(12.0), step=0)
        sampler = st.SubsetBatchSampler(
            12, "big-loss", 3, ledger=ledger, plan="epoch", rate=0.25, ids=names, seed=0
        )
        batches = list(sampler)
        assert sorted(i for ids in batches for i in ids) == [9, 10, 11]
        sampler.observe([names[i] for i in batches[0]], np.full(3, 7.0))
        assert (ledger.lookup(names[9:]).losses == 7.0).all()


def test_records_of_others_are_taken_up_when_asked(full: Ledger) -> None:
    rare = sampler_of("big-loss", full, plan="epoch", rate=0.05)
    often = sampler_of("big-loss", full, plan="epoch", rate=0.05, reread="epoch")
    full.record([7, 8, 9], [50.0, 60.0, 70.0], step=10)
    assert {i for ids in often for i in ids} == {7, 8, 9}
    assert {i for ids in rare for i in ids} == set(np.argsort(LOSSES)[-3:].tolist())


def test_a_policy_with_a_memory_knows_what_is_recorded(full: Ledger) -> None:
    sampler = sampler_of("prioritized", full)
    assert np.allclose(sampler.policy.memory.of(np.arange(N)), LOSSES)  # type: ignore[attr-defined]
    assert len(next(iter(sampler))) == K


def test_refresh_records(ledger: Ledger) -> None:
    sampler = sampler_of("balanced", ledger, plan="epoch", rate=0.3)
    sampler.refresh(LOSSES, scores=SCORES)
    assert np.array_equal(ledger.lookup(np.arange(N)).scores, SCORES)
    assert len(sampler) == 3
    sampler.refresh([1.0, 2.0], ids=[3, 4], scores=[0.5, 0.5])
    assert ledger.lookup([3, 4]).losses.tolist() == [1.0, 2.0]
    with pytest.raises(so.ProblemError, match="upper_bound is recorded besides the losses"):
        sampler.refresh(LOSSES)
    with pytest.raises(so.ProblemError, match="no sample of this sampler's data has the id 99"):
        sampler.refresh([1.0], ids=[99], scores=[1.0])


def test_a_ledger_that_is_only_read(full: Ledger) -> None:
    with Ledger.open(full.url, readonly=True) as readonly:
        sampler = sampler_of("big-loss", readonly, plan="epoch", rate=0.2)
        first = epoch_of(sampler, "big-loss")
        ids = first[0][0]
        again = next(iter(sampler))
        sampler.observe(again, np.zeros(len(again)))
        assert np.array_equal(readonly.lookup(ids).losses, LOSSES[ids])
        # The sampler itself knows better.
        assert not set(again) & {i for batch in list(sampler)[:1] for i in batch}


def test_a_ledger_that_fails_does_not_end_training(full: Ledger) -> None:
    sampler = sampler_of("big-loss", full, candidates=20)
    batches = iter(sampler)
    full.close()
    ids = next(batches)
    with pytest.warns(UserWarning, match="is closed.*what it learns is not in the ledger"):
        sampler.observe(ids, np.ones(K))
    ids = next(batches)
    sampler.observe(ids, np.ones(K))  # told once


def test_batches_that_are_never_observed_are_told_of(full: Ledger) -> None:
    sampler = sampler_of("big-loss", full, plan="epoch", rate=0.5)
    for _ in range(5):
        list(sampler)
    with pytest.warns(UserWarning, match=r"20 batches were never observed, .*call observe\(ids"):
        list(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(sampler)


def test_what_is_reported_is_checked(full: Ledger) -> None:
    sampler = sampler_of("balanced", full, candidates=20)
    ids = next(iter(sampler))
    with pytest.raises(so.ProblemError, match=r"upper_bound is recorded .*pass scores=, shape"):
        sampler.observe(ids, np.ones(K))
    for bad in (np.full(K, np.nan), np.full(K, 1e300)):
        with pytest.raises(so.ProblemError, match=r"losses must be finite .* at position 0; call"):
            sampler.observe(ids, bad, np.ones(K))
    with pytest.raises(so.ProblemError, match=r"scores must be one per sample, shape \(8,\)"):
        sampler.observe(ids, np.ones(K), np.ones(3))
    assert sampler.waiting == 1 and np.array_equal(full.lookup(ids).losses, LOSSES[ids])
    sampler.observe(ids)  # counts, and records nothing
    assert sampler.waiting == 0
    plain = sampler_of("big-loss", full, candidates=20)
    ids = next(iter(plain))
    with pytest.raises(so.OptionError, match="'big-loss' reads no recorded scores here: leave"):
        plain.observe(ids, np.ones(K), np.ones(K))
    bare = st.SubsetBatchSampler(N, "uniform", K, seed=0)
    with pytest.raises(so.OptionError, match="reads no recorded scores here"):
        bare.observe(next(iter(bare)), np.ones(K), np.ones(K))


class NeedsTargets(StatelessPolicy):
    requires = frozenset({"losses", "targets"})

    def propose(self, signals: Any, k: int, rng: np.random.Generator) -> so.Problem:
        raise AssertionError("a policy that is refused is never asked")


@pytest.mark.parametrize(
    ("policy", "options", "message"),
    [
        ("obtf", {"ledger": None}, r"By what a ledger has recorded \(ledger=\): .*obtf.*balanced"),
        ("uncertainty", {}, "requires logits, and records hold losses .*can live on these: .*obtf"),
        (NeedsTargets(), {}, "needs targets of every candidate, .*ids and records are known"),
        ("obtf", {"ledger": "x"}, "ledger must be a ledger, .*got str"),
        ("obtf", {"plan": "week"}, "plan must be 'batch' or 'epoch', got 'week'"),
        ("obtf", {"plan": "epoch"}, "plan='epoch' with the policy 'obtf' needs rate"),
        ("obtf", {"plan": "epoch", "rate": 0}, "rate must be above 0, got 0"),
        ("obtf", {"plan": "epoch", "rate": 2}, "rate must be a number from 0 to 1, got 2"),
        ("obtf", {"plan": "epoch", "rate": 0.5, "steps_per_epoch": 3}, "steps_per_epoch=3 out"),
        ("obtf", {"candidates": 4}, "candidates must be an integer >= 8, got 4"),
        ("obtf", {"candidates": 20, "rate": 0.5}, "leaves no room for rate=0.5: pass one"),
        ("obtf", {"candidates": 20, "plan": "epoch"}, "leaves no room for plan='epoch'"),
        ("obtf", {"candidates": 20, "steps_per_epoch": 4}, "at most 3 windows of 20 of 60 samples"),
        ("obtf", {"reread": "step"}, "reread must be"),
        ("uniform", {"ledger": None, "rate": 0.5}, "rate=0.5 is for choosing by what is recorded"),
        ("uniform", {"ledger": None, "plan": "epoch"}, "plan='epoch' is for choosing by what is"),
        ("uniform", {"ledger": None, "candidates": 9}, "candidates=9 is for choosing by what is"),
        ("uniform", {"ledger": None, "reread": "epoch"}, "reread='epoch' is for choosing by"),
        ("obtf", {"full_after": 0.5}, "whose length is epochs: pass both or neither"),
        ("obtf", {"rank": 1}, "process 1 shares its epochs with others: pass world_size"),
        ("obtf", {"rank": 2, "world_size": 2}, "rank must be from 0 to world_size - 1, got rank=2"),
        ("obtf", {"world_size": 0}, "world_size must be an integer >= 1, got 0"),
    ],
)
def test_misuse(policy: Any, options: dict[str, Any], message: str, full: Ledger) -> None:
    with pytest.raises(so.OptionError, match=message):
        sampler_of(policy, **{"ledger": full, **options})


def test_representation(full: Ledger) -> None:
    planned = sampler_of("obtf", full, plan="epoch", rate=0.5)
    assert repr(planned) == "SubsetBatchSampler(60, 'obtf', 8, plan='epoch')"
    windows = sampler_of("obtf", full, candidates=20)
    assert repr(windows) == "SubsetBatchSampler(60, 'obtf', 8, steps_per_epoch=3)"
    assert len(sampler_of("obtf", full, rate=0.5)) == 4
    assert len(sampler_of("uniform", full, rate=0.5)) == 4
