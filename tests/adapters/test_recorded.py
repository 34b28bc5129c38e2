"""A step on recorded scores: what is looked up, scored, chosen and recorded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.ledger import Ledger

torch = pytest.importorskip("torch")
from step_parts import CROSS_ENTROPY, batch, make, network  # noqa: E402
from torch import nn  # noqa: E402

import subsetopt_torch as st  # noqa: E402

N, K = 32, 8
IDS = torch.arange(100, 100 + N)
X, Y = batch(N)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"dense:{tmp_path / 'scores'}") as opened:
        yield opened


def fill(ledger: Ledger, losses: Any, scores: Any = None, *, step: int = 0, ids: Any = IDS) -> None:
    ledger.record(np.asarray(ids), losses, scores, step=step)


def counting() -> tuple[nn.Sequential, list[int]]:
    """Return a model, and the sizes of the batches that it was called with."""
    model, sizes = network(), []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return model, sizes


def test_nothing_is_scored_where_all_is_recorded(ledger: Ledger) -> None:
    losses = np.random.default_rng(0).exponential(size=N)
    fill(ledger, losses)
    model, sizes = counting()
    result = make(model, "big-loss", recorded=ledger)(X, Y, ids=IDS)
    assert sizes == [K]
    assert result.picked.indices.tolist() == np.sort(np.argsort(losses)[-K:]).tolist()
    assert result.losses is None and result.scored_indices is None
    assert float(result.batch_loss) == pytest.approx(losses.mean(), rel=1e-6)
    assert result.recorded is not None
    assert (result.recorded.candidates, result.recorded.used, result.recorded.scored) == (N, N, 0)


@pytest.mark.parametrize(
    "policy", ["obtf", "balanced", "infobatch", "proportional-loss", "upper-bound", "adaselection"]
)
def test_choices_are_those_of_given_signals(policy: str, ledger: Ledger) -> None:
    rng = np.random.default_rng(1)
    losses, bounds = rng.exponential(size=N), rng.exponential(size=N)
    needs = so.make_policy(policy).requires
    fill(ledger, losses, bounds)
    rules = st.RecordedScores(ledger, mix=0.0, max_weight=None)
    picked = make(policy=policy, recorded=rules)(X, Y, ids=IDS).picked
    signals = {"losses": torch.tensor(losses, dtype=torch.float32)}
    if "upper_bound" in needs:
        signals["upper_bound"] = torch.tensor(bounds, dtype=torch.float32)
    selector = st.BatchSelector(policy, rate=0.25, seed=0)
    given = selector(signals.pop("losses"), **signals)
    assert torch.equal(picked.indices, given.indices)
    assert torch.allclose(picked.weights, given.weights)


def test_what_was_trained_on_is_recorded(ledger: Ledger) -> None:
    step = make(policy="balanced", recorded=ledger)
    first = step(X, Y, ids=IDS)
    assert first.recorded is not None and first.recorded.scored == N  # none had a record
    assert ledger.stats().records == N
    rows = step(X, Y, ids=IDS).picked.indices
    records = ledger.lookup(IDS.numpy())
    assert np.flatnonzero(records.steps).tolist() == rows.tolist()
    assert np.isfinite(records.scores).all()


def test_recorded_losses_and_bounds_are_those_of_the_training_forward(ledger: Ledger) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    step = make(model, "balanced", recorded=ledger)
    step(X, Y, ids=IDS)
    with torch.no_grad():
        logits = model(X)
    picked = step(X, Y, ids=IDS).picked
    rows = picked.indices
    records = ledger.lookup(IDS[rows].numpy())
    gradients = torch.softmax(logits, 1) - nn.functional.one_hot(Y, 4)
    assert np.allclose(records.losses, CROSS_ENTROPY(logits, Y)[rows], rtol=1e-5)
    assert np.allclose(records.scores, gradients.norm(dim=1)[rows], rtol=1e-5)


def test_only_what_has_no_record_is_scored(ledger: Ledger) -> None:
    losses = np.random.default_rng(2).exponential(size=N)
    known = np.arange(N) % 4 != 0
    fill(ledger, losses[known], ids=IDS[torch.from_numpy(known)])
    model, sizes = counting()
    result = make(model, "obtf", recorded=ledger)(X, Y, ids=IDS)
    assert sizes == [N // 4, K]
    assert result.scored_indices is not None and result.losses is not None
    assert result.scored_indices.tolist() == np.flatnonzero(~known).tolist()
    assert len(result.losses) == N // 4
    assert np.allclose(ledger.lookup(IDS.numpy()).found, True)


def test_old_records_are_scored_anew(ledger: Ledger) -> None:
    losses = np.full(N, 0.5)
    fill(ledger, losses, step=0)
    rules = st.RecordedScores(ledger, max_age=2)
    model, sizes = counting()
    step = make(model, "big-loss", recorded=rules)
    for _ in range(4):
        step(X, Y, ids=IDS)
    # At step 3 the records of step 0 are too old; those of the samples trained on are not.
    assert sizes[:3] == [K, K, K] and 0 < sizes[3] < N and sizes[4:] == [K]


def test_records_of_old_models_are_scored_anew(ledger: Ledger) -> None:
    fill(ledger, np.full(N, 0.5))
    rules = st.RecordedScores(ledger, max_versions=0)
    model, sizes = counting()
    step = make(model, "big-loss", recorded=rules)
    step(X, Y, ids=IDS)
    rules.model_version = 1
    step(X, Y, ids=IDS)
    assert sizes == [K, N, K]
    assert ledger.lookup(IDS.numpy()).model_versions.tolist() == [1] * N


def test_the_oldest_part_is_refreshed(ledger: Ledger) -> None:
    fill(ledger, np.ones(N), step=5)
    fill(ledger, np.ones(3), step=2, ids=[7, 8, 9])
    fill(ledger, np.ones(3), step=3, ids=[4, 5, 6])
    ids = torch.tensor([4, 5, 6, 7, 8, 9, *IDS[6:].tolist()])
    model, sizes = counting()
    step = make(model, "obtf", recorded=st.RecordedScores(ledger, refresh=0.1))
    step.selector.step = 10
    result = step(X, Y, ids=ids)
    assert sizes == [3, K]
    assert result.scored_indices is not None and result.scored_indices.tolist() == [3, 4, 5]
    assert result.recorded is not None
    assert result.recorded.mean_age == pytest.approx((3 * 7 + 26 * 5) / 29)


@pytest.mark.parametrize("policy", ["obtf", "proportional-loss", "big-loss"])
@pytest.mark.parametrize("absent", [3, K, 20])
def test_samples_without_a_record_are_taken_first(policy: str, absent: int, ledger: Ledger) -> None:
    fill(ledger, np.random.default_rng(3).exponential(size=N - absent), ids=IDS[absent:])
    model, sizes = counting()
    result = make(model, policy, recorded=st.RecordedScores(ledger, missing="take"))(X, Y, ids=IDS)
    assert sizes == [K]
    assert result.picked.indices.tolist()[: min(absent, K)] == list(range(min(absent, K)))
    assert result.picked.fallback is None


def test_random_draws_take_them_for_the_hardest(ledger: Ledger) -> None:
    rng = np.random.default_rng(4)
    bounds = rng.uniform(0.0, 0.1, size=N)
    bounds[-1] = 2.0
    fill(ledger, bounds[3:], bounds[3:], ids=IDS[3:])
    rules = st.RecordedScores(ledger, missing="take", mix=0.0)
    model, sizes = counting()
    result = make(model, "balanced", recorded=rules)(X, Y, ids=IDS)
    assert sizes == [K]
    assert {0, 1, 2, N - 1} <= set(result.picked.indices.tolist())


def test_the_mean_stands_in(ledger: Ledger) -> None:
    fill(ledger, np.ones(N - 4), ids=IDS[4:])
    model, sizes = counting()
    step = make(model, "obtf", recorded=st.RecordedScores(ledger, missing="mean"))
    result = step(X, Y, ids=IDS)
    assert sizes == [K] and float(result.batch_loss) == pytest.approx(1.0)
    empty = step(X, Y, ids=torch.arange(5000, 5000 + N))
    assert len(empty.picked) == K and empty.recorded is not None and empty.recorded.used == 0
    assert np.isnan(empty.recorded.mean_age)


def largest_weight(ledger: Ledger, start: int, **rules: Any) -> float:
    """Return the largest weight of ten steps on records that half of the samples look easy by."""
    scores = np.where(np.arange(N) % 2, 1.0, 0.15)
    now = [0]
    settings = st.RecordedScores(ledger, clock=lambda: now[0], **rules)
    step = make(policy=so.make_policy("balanced", max_weight=None), recorded=settings)
    weights = []
    for now[0] in range(start, start + 10):
        fill(ledger, np.ones(N), scores, step=now[0])
        weights.append(float(step(X, Y, ids=IDS).picked.weights.max()) * K)
    return max(weights)


def test_weights_are_capped_and_scores_mixed(ledger: Ledger) -> None:
    assert largest_weight(ledger, 0, mix=0.0, max_weight=None) == pytest.approx(0.575 / 0.15)
    assert largest_weight(ledger, 10, mix=0.0, max_weight=2.0) == pytest.approx(2.0)
    mixed = 0.575 / (0.8 * 0.15 + 0.2 * 0.575)
    assert largest_weight(ledger, 20) == pytest.approx(mixed)
    assert largest_weight(ledger, 30, mix=1.0) == pytest.approx(1.0)


def test_a_clock_of_another_kind_is_told(ledger: Ledger) -> None:
    fill(ledger, np.ones(N), step=1_700_000_000)
    step = make(policy="obtf", recorded=ledger)
    with pytest.warns(UserWarning, match="have a record of a step later than 0, which stays"):
        step(X, Y, ids=IDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(X, Y, ids=IDS)


def test_gradient_norms_come_from_scoring_alone(ledger: Ledger) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    step = make(model, "gradient-norm", recorded=ledger)
    step(X, Y, ids=IDS)
    step(X, Y, ids=IDS)
    assert (ledger.lookup(IDS.numpy()).steps == 0).all()


def test_a_policy_without_scores_leaves_records(ledger: Ledger) -> None:
    step = make(policy="uniform", recorded=ledger)
    result = step(X, Y, ids=IDS)
    assert result.recorded is None and ledger.stats().records == K


def test_gathered_samples_are_recorded(ledger: Ledger) -> None:
    step = make(policy="obtf", recorded=ledger, accumulate=True)
    fill(ledger, np.random.default_rng(0).exponential(size=N))
    for _ in range(4):
        step(X, Y, ids=IDS)
    assert (ledger.lookup(IDS.numpy()).steps == 3).any()


@pytest.mark.parametrize(
    ("policy", "signal"), [("uncertainty", "logits"), ("gradient-matching", "logit_gradients")]
)
def test_a_policy_that_no_record_can_serve_is_refused(
    policy: str, signal: str, ledger: Ledger
) -> None:
    with pytest.raises(so.OptionError, match=f"requires {signal}, and records hold losses.*obtf"):
        make(policy=policy, recorded=ledger)
    with pytest.raises(so.OptionError, match="requires gradient_norms, and records hold losses"):
        make(policy="gradient-norm", recorded=st.RecordedScores(ledger, scores="upper_bound"))


def test_misuse_is_refused(ledger: Ledger) -> None:
    with pytest.raises(so.ProblemError, match="looked up by the ids"):
        make(recorded=ledger)(X, Y)
    with pytest.raises(so.OptionError, match="must be a ledger"):
        make(recorded={})
    with pytest.raises(so.OptionError, match="update_bn='scored'"):
        make(recorded=ledger, update_bn="scored")
    for wrong in (
        {"missing": "drop"}, {"refresh": 1.5}, {"mix": -0.1}, {"max_weight": 0.5},
        {"max_age": -1}, {"max_versions": 1.5}, {"scores": "losses"}, {"model_version": -1},
    ):  # fmt: skip
        with pytest.raises(so.OptionError, match=next(iter(wrong))):
            st.RecordedScores(ledger, **wrong)  # type: ignore[arg-type]


def test_quotas_and_samples_to_take_go_together(ledger: Ledger) -> None:
    fill(ledger, np.random.default_rng(5).exponential(size=N - 2), ids=IDS[2:])
    rules = st.RecordedScores(ledger, missing="take")
    result = make(recorded=rules)(X, Y, ids=IDS, constraints={"include": [5], "exclude": [6]})
    chosen = set(result.picked.indices.tolist())
    assert {0, 1, 5} <= chosen and 6 not in chosen


def test_training_survives_a_ledger_that_fails(ledger: Ledger) -> None:
    fill(ledger, np.ones(N))
    model, sizes = counting()
    step = make(model, "big-loss", recorded=ledger)
    ledger.close()
    with pytest.warns(UserWarning) as caught:
        step(X, Y, ids=IDS)
        result = step(X, Y, ids=IDS)
    messages = [str(warning.message) for warning in caught]
    assert [message.rpartition(": open it again. ")[2] for message in messages] == [
        "Training goes on as if nothing were recorded.",
        "Training goes on, and this is not recorded.",
    ]
    assert sizes == [N, K, N, K] and result.updated
