"""The batch sampler with a real DataLoader: epochs, workers, feedback, resuming, misuse."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import Feedback, StatelessPolicy, make_policy

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, IterableDataset, TensorDataset  # noqa: E402

import subsetopt_torch as st  # noqa: E402

N, K = 60, 8
HAS_FORK = "fork" in multiprocessing.get_all_start_methods()
WORKERS = [
    0,
    pytest.param(
        2,
        marks=[
            pytest.mark.skipif(not HAS_FORK, reason="no fork on this platform"),
            # Python 3.12 and later warn of any fork while threads run; that is tested here.
            pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
        ],
    ),
]
Batch = tuple[list[int], list[float]]


def data() -> st.WithIds:
    return st.WithIds(TensorDataset(torch.arange(N) * 10.0, torch.arange(N) % 3))


def loader(sampler: st.SubsetBatchSampler, workers: int, **options: Any) -> DataLoader[Any]:
    context = "fork" if workers else None
    return DataLoader(
        data(),
        batch_sampler=sampler,
        num_workers=workers,
        multiprocessing_context=context,
        timeout=60 if workers else 0,
        **options,
    )


def loss_of(ids: torch.Tensor, number: int) -> torch.Tensor:
    """Return losses that change as training goes on."""
    return torch.sin(ids * 1.7 + 0.1 * number).abs() + 0.01 * ids


def train(
    sampler: st.SubsetBatchSampler, batches: Iterator[Any], steps: int | None = None
) -> list[Batch]:
    """Train on some batches, or on all that are left; return ids and weights."""
    seen: list[Batch] = []
    for x, y, ids in batches:
        assert torch.equal(x, ids * 10.0) and torch.equal(y, ids % 3)
        weights = sampler.weights(ids)
        sampler.observe(ids, loss_of(ids, len(seen)).requires_grad_())
        seen.append((ids.tolist(), weights.tolist()))
        if len(seen) == steps:
            break
    return seen


def sampler_of(policy: str, **options: Any) -> st.SubsetBatchSampler:
    return st.SubsetBatchSampler(N, policy, K, **{"seed": 4, **options})


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("policy", ["online-batch", "prioritized", "uniform"])
def test_epochs_of_a_real_loader(policy: str, workers: int) -> None:
    sampler = sampler_of(policy)
    batches = loader(sampler, workers)
    assert len(batches) == len(sampler) == 8
    epochs = [train(sampler, iter(batches)) for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [8, 8, 8]
    assert epochs[0] != epochs[1] != epochs[2]
    assert sampler.waiting == 0 and sampler.epoch == 2
    for ids, weights in (batch for epoch in epochs for batch in epoch):
        assert len(ids) == len(weights) == (4 if policy == "uniform" and len(ids) < K else K)
        assert max(weights) == pytest.approx(1 / len(ids))
    again = sampler_of(policy)
    assert [train(again, iter(loader(again, workers))) for _ in range(3)] == epochs
    other = sampler_of(policy, seed=5)
    assert train(other, iter(loader(other, workers))) != epochs[0]
    assert repr(sampler) == f"SubsetBatchSampler(60, '{policy}', 8, steps_per_epoch=8)"


@pytest.mark.skipif(not HAS_FORK, reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_stay_see_the_same_epochs() -> None:
    """With persistent workers DataLoader makes one iterator and resets it."""
    sampler, plain = sampler_of("prioritized"), sampler_of("prioritized")
    staying = loader(sampler, 2, persistent_workers=True)
    for epoch in range(3):
        assert train(sampler, iter(staying)) == train(plain, iter(loader(plain, 2)))
        assert sampler.epoch == plain.epoch == epoch


def test_an_epoch_of_uniform_is_a_pass_over_the_data() -> None:
    sampler = sampler_of("uniform")
    for _ in range(3):
        seen = [i for ids, _ in train(sampler, iter(loader(sampler, 0))) for i in ids]
        assert sorted(seen) == list(range(N))


def test_set_epoch_says_which() -> None:
    sampler = sampler_of("uniform")
    epochs = [list(sampler) for _ in range(3)]
    for e in (2, 0, 1):
        sampler.set_epoch(e)
        assert list(sampler) == epochs[e]
        assert sampler.epoch == e
    next(iter(sampler))  # a look at one batch, and then the epoch from its start
    sampler.set_epoch(1)
    assert list(sampler) == epochs[1]
    for bad in (-1, 1.0, True):
        with pytest.raises(so.OptionError, match="epoch must be a nonnegative int"):
            sampler.set_epoch(bad)  # type: ignore[arg-type]


def test_ranks_draw_batches_of_their_own() -> None:
    for policy in ("uniform", "prioritized"):
        batches = [list(sampler_of(policy, rank=rank)) for rank in (None, 0, 1)]
        assert batches[0] == batches[1] != batches[2]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("policy", ["online-batch", "prioritized", "uniform"])
@pytest.mark.parametrize("stop", [1, 5, 8])
def test_resumed_runs_are_bit_identical(policy: str, stop: int, workers: int) -> None:
    whole = sampler_of(policy, steps_per_epoch=8)
    expected = [train(whole, iter(loader(whole, workers))) for _ in range(3)]
    first = sampler_of(policy)
    assert train(first, iter(loader(first, workers))) == expected[0]
    assert train(first, iter(loader(first, workers)), stop) == expected[1][:stop]
    assert first.waiting == (min(4, 8 - stop) if workers else 0)  # 2 workers with 2 batches each
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = sampler_of(policy, seed=99)
    second.load_state_dict(torch.load(file))  # plain values: a safe load reads them
    if stop < 8:
        # The losses of this test depend on the step within the epoch.
        rest = []
        for x, _, ids in loader(second, workers):
            assert torch.equal(x, ids * 10.0)
            rest.append((ids.tolist(), second.weights(ids).tolist()))
            second.observe(ids, loss_of(ids, stop + len(rest) - 1))
        assert rest == expected[1][stop:]
    assert train(second, iter(loader(second, workers))) == expected[2]


def test_what_was_fetched_ahead_comes_again() -> None:
    sampler = sampler_of("prioritized")
    batches = iter(sampler)
    issued = [next(batches) for _ in range(5)]
    sampler.observe(issued[0], torch.ones(K))
    sampler.observe(issued[1])  # trained on, with nothing to tell
    assert sampler.issued == 5 and sampler.waiting == 3
    weights = sampler.weights(issued[3])
    state = sampler.state_dict()
    resumed = sampler_of("prioritized")
    resumed.load_state_dict(state)
    resumed.set_epoch(0)  # the loop over epochs says so, and it changes nothing
    again = iter(resumed)
    assert [next(again) for _ in range(3)] == issued[2:]
    assert torch.equal(resumed.weights(issued[3]), weights)
    assert len(list(again)) == 3
    resumed.load_state_dict(state)
    resumed.set_epoch(1)  # another epoch gives the rest of the old one up
    assert next(iter(resumed)) not in issued
    assert resumed.waiting == 1 and resumed.epoch == 1


def test_where_nothing_is_ever_observed() -> None:
    sampler = sampler_of("uniform")
    epoch = list(sampler)
    resumed = sampler_of("uniform")
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed) == list(sampler) != epoch  # that epoch is done
    batches = iter(sampler)
    part = [next(batches), next(batches)]
    resumed.load_state_dict(sampler.state_dict())
    assert list(resumed)[:2] == part  # this one starts over


def test_weights_follow_the_ids() -> None:
    sampler = sampler_of("prioritized", policy_options={"alpha": 1.0, "beta": 1.0})
    sampler.refresh(torch.arange(1.0, N + 1))
    ids = torch.tensor(next(iter(sampler)))
    weights = sampler.weights(ids)
    assert weights.dtype == torch.float32
    # Within a batch the weight falls with the loss, whose size is the id.
    assert torch.allclose(weights * (ids + 1), weights[0] * (ids[0] + 1), rtol=1e-5)
    shuffled = torch.randperm(K)
    assert torch.equal(sampler.weights(ids[shuffled]), weights[shuffled])
    assert torch.equal(sampler.weights(ids.tolist()), weights)
    sampler.observe(ids[shuffled], ids[shuffled] * 2.0)
    policy: Any = sampler.policy
    assert np.array_equal(policy.memory.of(ids.numpy()), ids.numpy() * 2.0)


def test_equal_batches_are_told_apart_by_age() -> None:
    sampler = st.SubsetBatchSampler(1, "prioritized", 1, seed=0, steps_per_epoch=3)
    steps: list[int] = []
    sampler.policy.observe = lambda f: steps.append(f.step)  # type: ignore[method-assign]
    issued = list(sampler)
    assert issued == [[0], [0], [0]] and sampler.waiting == 3
    for ids in issued:
        sampler.observe(ids, torch.ones(1))
    assert steps == [0, 1, 2] and sampler.waiting == 0


def test_ids_that_are_no_batch() -> None:
    sampler = sampler_of("prioritized")
    ids = next(iter(sampler))
    for wrong in ([*ids[1:], 59 - ids[0]], ids[1:]):
        with pytest.raises(so.ProblemError, match=r"no batch of this sampler .* has these \d ids"):
            sampler.weights(wrong)
    for wrong in (torch.ones(K), torch.ones(2, 2, dtype=torch.long), 3):
        with pytest.raises(so.ProblemError, match="ids must be a vector of integers, got shape"):
            sampler.observe(wrong, torch.ones(K))
    for losses in (torch.tensor(1.0), torch.ones(K + 1)):
        with pytest.raises(so.ProblemError, match=r"one per sample, shape \(8,\), got .*reduction"):
            sampler.observe(ids, losses)
    with pytest.raises(so.ProblemError, match="finite in single precision, got nan"):
        sampler.observe(ids, torch.full((K,), torch.nan))
    assert sampler.waiting == 1  # none of these counted
    sampler.observe(ids, torch.ones(K))
    with pytest.raises(so.ProblemError, match="observe each batch once"):
        sampler.observe(ids, torch.ones(K))


def test_hard_samples_are_drawn_in_proportion() -> None:
    options = {"alpha": 1.0, "epsilon": 1e-3}
    sampler = st.SubsetBatchSampler(
        20, "prioritized", 5, seed=1, steps_per_epoch=4000, policy_options=options
    )
    losses = torch.linspace(0.1, 3.0, 20)
    sampler.refresh(losses)
    counts = torch.zeros(20, dtype=torch.float64)
    for ids in sampler:
        counts += torch.bincount(torch.tensor(ids), minlength=20)
        sampler.observe(ids, losses[ids])
    p = (losses.double() + 1e-3) / (losses.double() + 1e-3).sum()
    draws = 4000 * 5
    assert ((counts - draws * p).abs() <= 4.5 * (draws * p * (1 - p)).sqrt()).all()
    assert counts[-1] > 10 * counts[0]


def test_a_refresh_when_the_policy_asks() -> None:
    sampler = sampler_of("online-batch", policy_options={"recompute_every": 3, "pressure": 1e6})
    asked = []
    for t, ids in enumerate(sampler):
        sampler.observe(ids, torch.zeros(K))
        if sampler.wants_refresh:
            asked.append(t)
            sampler.refresh(torch.arange(float(N)))
            best = np.argsort(-sampler.policy.probabilities(np.arange(N)))  # type: ignore[attr-defined]
            assert best[0] == N - 1
    assert asked == [2, 5]
    sampler.refresh(torch.ones(2), ids=torch.tensor([3, 4]))
    uniform = sampler_of("uniform")
    assert not uniform.wants_refresh
    with pytest.raises(so.OptionError, match="'uniform' remembers no losses"):
        uniform.refresh(torch.ones(N))
    with pytest.raises(so.ProblemError, match=r"one per id, shape \(60,\), got shape \(3,\)"):
        sampler.refresh(torch.ones(3))


class Evens(StatelessPolicy):
    """Prefers even ids; knows no other way than to state a problem, and has its own weights."""

    requires = frozenset({"ids"})
    heard: list[Feedback]

    def __init__(self) -> None:
        self.heard = []

    def propose(self, signals: Any, k: int, rng: np.random.Generator) -> so.Problem:
        keys = rng.random(signals["positions"].size) + (signals["ids"] % 2 == 0)
        return so.Problem(so.TopScores(keys), k)

    def weigh(self, solution: so.Solution) -> np.ndarray:
        return solution.indices / solution.indices.sum()

    def observe(self, feedback: Feedback) -> None:
        self.heard.append(feedback)


def test_any_policy_that_needs_ids_only() -> None:
    policy = Evens()
    sampler = st.SubsetBatchSampler(data(), policy, K, seed=0, solver="topk", steps_per_epoch=3)
    assert sampler.policy_name == "Evens"
    for _, _, ids in loader(sampler, 0):
        assert (ids % 2 == 0).all() and len(set(ids.tolist())) == K
        assert torch.allclose(sampler.weights(ids), ids / ids.sum())
        sampler.observe(ids, loss_of(ids, 0))
    assert [f.step for f in policy.heard] == [0, 1, 2]
    assert np.array_equal(policy.heard[-1].ids, ids.numpy())
    assert np.allclose(policy.heard[-1].losses, loss_of(ids, 0).numpy())
    assert np.allclose(policy.heard[-1].weights, (ids / ids.sum()).numpy())


@pytest.mark.parametrize("policy", ["big-loss", "obtf", "importance", "uncertainty"])
def test_policies_that_need_a_forward_pass_are_refused(policy: str) -> None:
    message = (
        rf"policy '{policy}' needs (losses|upper_bound|logits) of every candidate, .*only ids are "
        r"known\. Policies that choose by ids alone: uniform, online-batch, prioritized"
    )
    with pytest.raises(so.OptionError, match=message):
        sampler_of(policy)


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Stream(), "uniform", 2), {}, "Stream is an iterable data set: .*SelectiveStep"),
        (((torch.ones(3), torch.ones(3)), "uniform", 2), {}, "map-style data set .* got tuple"),
        ((3.0, "uniform", 2), {}, "map-style data set .* got float"),
        ((0, "uniform", 2), {}, "at least 1 sample to choose from, got 0"),
        ((True, "uniform", 2), {}, "at least 1 sample to choose from, got True"),
        ((9, "unifrom", 2), {}, "no policy named 'unifrom'. Did you mean 'uniform'"),
        ((9, "uniform", 0), {}, "batch_size must be an integer >= 1, got 0"),
        ((9, "uniform", 2), {"steps_per_epoch": 1.5}, "steps_per_epoch must be an integer >= 1"),
        ((9, "uniform", 2), {"steps_per_epoch": 6}, "one pass over the data, at most 5 batches"),
        ((9, "uniform", 2), {"seed": -1}, "seed must be a nonnegative int"),
        ((9, "prioritized", 2), {"policy_options": {"alfa": 1}}, "no option 'alfa'. Did you mean"),
        ((9, "uniform", 2), {"solver": "topk", "options": {"x": 1}}, "'topk'.*no option 'x'"),
    ],
)
def test_misuse(arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        st.SubsetBatchSampler(*arguments, **options)


def test_states_of_others_are_refused() -> None:
    state = sampler_of("prioritized").state_dict()
    with pytest.raises(so.OptionError, match=r"state was saved by .*'prioritized'.*'uniform'"):
        sampler_of("uniform").load_state_dict(state)
    with pytest.raises(so.OptionError, match=r"\(60, 8, 8\).* this one has .*\(60, 8, 7\)"):
        sampler_of("prioritized", steps_per_epoch=7).load_state_dict(state)
    with pytest.raises(so.OptionError, match=r"the sampler state lacks \['seed', 'waiting'\]"):
        sampler_of("prioritized").load_state_dict(
            {key: value for key, value in state.items() if key not in ("seed", "waiting")}
        )


def test_an_old_iteration_does_not_go_on() -> None:
    sampler = sampler_of("prioritized")
    old = iter(sampler)
    next(old)
    next(iter(sampler))
    with pytest.raises(so.OptionError, match="this iteration of the sampler is over"):
        next(old)


def test_batches_larger_than_the_data_are_the_data() -> None:
    sampler = st.SubsetBatchSampler(3, "uniform", 8, seed=0)
    assert list(sampler) == [[0, 1, 2]] and len(sampler) == 1
    (more,) = list(st.SubsetBatchSampler(3, "online-batch", 8, seed=0))
    assert len(more) == 3
    assert st.SubsetBatchSampler(3, "uniform", 8).seed >= 0


class Dicts(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> dict[str, int]:
        return {"x": i * 2}


def test_with_ids() -> None:
    assert len(st.WithIds(Dicts())) == 4
    assert st.WithIds(Dicts())[3] == {"x": 6, "ids": 3}
    assert st.WithIds(range(5, 9))[1] == (6, 1)
    x, y, i = data()[7]
    assert (float(x), int(y), i) == (70.0, 1, 7)
    batch = next(iter(DataLoader(st.WithIds(Dicts()), batch_size=2)))
    assert batch["ids"].tolist() == [0, 1]


@pytest.mark.parametrize("name", ["online-batch", "prioritized"])
def test_within_a_batch_too(name: str) -> None:
    """No scoring pass, and the memory fills with the losses of the training forward."""

    def step_of() -> st.SelectiveStep:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        return st.SelectiveStep(
            model,
            lambda out, y: (out[:, 0] - y) ** 2,
            torch.optim.SGD(model.parameters(), lr=0.01),
            st.BatchSelector(name, k=6, seed=3),
        )

    x, y = torch.randn(80, 2, generator=torch.Generator().manual_seed(1)), torch.arange(80) / 40
    rows = [torch.randperm(80, generator=torch.Generator().manual_seed(s))[:32] for s in range(12)]

    def run(step: st.SelectiveStep, batches: list[torch.Tensor]) -> list[list[int]]:
        trained = []
        for ids in batches:
            result = step(x[ids], y[ids], ids=ids)
            assert result.losses is None and result.updated
            assert float(result.picked.weights.max()) == pytest.approx(1 / 6)
            trained.append(ids[result.picked.indices].tolist())
        return trained

    step = step_of()
    whole = run(step, rows)
    policy: Any = step.selector.policy
    seen = sorted({i for picked in whole for i in picked})
    assert np.isfinite(policy.memory.of(np.array(seen))).all()
    assert np.isfinite(policy.memory.first(80)).sum() == len(seen)
    assert policy.step == 12
    first = step_of()
    run(first, rows[:5])
    second = step_of()
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    assert run(second, rows[5:]) == whole[5:]
    with pytest.raises(so.ProblemError, match=f"policy '{name}' needs the signal 'ids'"):
        second(x, y)


def test_what_the_policy_learns_without_workers_is_known_at_once() -> None:
    sampler = sampler_of("online-batch", policy_options={"pressure": 1e9, "replacement": False})
    seen: list[int] = []
    for _, _, ids in loader(sampler, 0):
        sampler.observe(ids, torch.zeros(len(ids)))
        seen += ids.tolist()
    # Never seen comes first: the eighth batch is the first that has to repeat anything.
    assert len(set(seen[:56])) > 50
    assert make_policy("online-batch").requires == {"ids"}
