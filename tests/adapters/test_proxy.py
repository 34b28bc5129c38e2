"""train_proxy and irreducible_losses: the same training loop, written out plainly as a twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.policies import uncertainty_scores

torch = pytest.importorskip("torch")

import subsetopt_torch as st  # noqa: E402

nn = torch.nn


def blobs(n: int = 90, seed: int = 0, noise: float = 0.6) -> tuple[Any, Any]:
    """Return three clusters in the plane."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.array([[0.0, 2.0], [2.0, 0.0], [-2.0, -2.0]])[y] + noise * rng.normal(size=(n, 2))
    return torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)


def network(seed: int = 0, dropout: float = 0.0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


class Pairs(torch.utils.data.Dataset):
    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.x[index], self.y[index]


def plain_loop(
    model: Any, x: Any, y: Any, epochs: int, lr: float, size: int, seed: int
) -> list[float]:
    """Train as anybody would; return the mean loss of every epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(epochs):
        order, total = torch.randperm(len(x), generator=generator), 0.0
        for start in range(0, len(x), size):
            rows = order[start : start + size]
            losses = nn.functional.cross_entropy(model(x[rows]), y[rows], reduction="none")
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            total += float(losses.detach().double().sum())
        means.append(total / len(x))
    return means


def test_is_the_plain_loop_to_the_last_bit() -> None:
    x, y = blobs()
    twin, model = network(), network()
    means = plain_loop(twin, x, y, epochs=3, lr=0.05, size=16, seed=4)
    proxy = st.train_proxy(
        model, (x, y), epochs=3, lr=0.05, batch_size=16, seed=4, keep_logits=True
    )
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    np.testing.assert_allclose(proxy.training_losses, means, rtol=1e-12)
    with torch.no_grad():
        logits = twin(x)
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
    np.testing.assert_allclose(proxy.losses, losses.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(proxy.logits, logits.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(proxy.scores, uncertainty_scores(proxy.logits), rtol=1e-9)
    assert (proxy.epochs, proxy.score) == (3, "entropy")
    assert proxy.scores.dtype == proxy.losses.dtype == np.float64 and proxy.seconds > 0.0


@pytest.mark.parametrize("score", ["confidence", "margin", "entropy", "loss"])
def test_scores(score: Any) -> None:
    x, y = blobs()
    proxy = st.train_proxy(network(), (x, y), epochs=1, lr=0.05, score=score, keep_logits=True)
    expected = proxy.losses if score == "loss" else uncertainty_scores(proxy.logits, score)
    np.testing.assert_allclose(proxy.scores, expected, rtol=1e-9)
    assert proxy.score == score
    without = st.train_proxy(network(), (x, y), epochs=1, lr=0.05, score=score)
    assert without.logits is None and np.array_equal(without.scores, proxy.scores)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_gives_what_its_tensors_give(workers: int) -> None:
    x, y = blobs(50)
    of_tensors = st.train_proxy(network(), (x, y), epochs=2, lr=0.05, batch_size=16)
    of_data = st.train_proxy(
        network(), Pairs(x, y), epochs=2, lr=0.05, batch_size=16, workers=workers
    )
    assert np.array_equal(of_data.scores, of_tensors.scores)
    assert of_data.training_losses == of_tensors.training_losses


def test_the_seed_decides_and_global_streams_stay() -> None:
    data = blobs()
    torch.manual_seed(123)
    before = torch.get_rng_state()

    def run(seed: int) -> Any:
        return st.train_proxy(network(dropout=0.5), data, epochs=2, lr=0.05, seed=seed)

    first, again, other = run(0), run(0), run(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert np.array_equal(first.scores, run(0).scores)
    assert np.array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)


def test_epochs_may_end_early_and_be_none() -> None:
    data, seen = blobs(), []

    def on_epoch(epoch: int, loss: float) -> bool:
        seen.append((epoch, loss))
        return epoch == 2

    early, short = network(), network()
    proxy = st.train_proxy(early, data, epochs=50, lr=0.05, on_epoch=on_epoch)
    expected = st.train_proxy(short, data, epochs=2, lr=0.05)
    assert proxy.epochs == 2
    assert seen == list(enumerate(proxy.training_losses, 1))
    assert np.array_equal(proxy.scores, expected.scores)
    as_it_is = st.train_proxy(early, data, epochs=0)
    assert as_it_is.epochs == 0 and np.array_equal(as_it_is.scores, proxy.scores)


def test_an_optimizer_of_ones_own() -> None:
    data, mine, theirs = blobs(), network(), network()
    optimizer = torch.optim.SGD(mine.parameters(), lr=0.05, momentum=0.9)
    proxy = st.train_proxy(mine, data, epochs=2, optimizer=optimizer)
    assert np.array_equal(proxy.scores, st.train_proxy(theirs, data, epochs=2, lr=0.05).scores)


def test_scoring_leaves_modes_and_statistics_alone() -> None:
    x, y = blobs(33)  # 33 = 2 * 16 + 1: BatchNorm refuses a batch of one
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    st.train_proxy(model, (x, y), epochs=1, lr=0.05, batch_size=16)
    assert all(module.training for module in model.modules())
    assert int(model[1].num_batches_tracked) == 2


def test_inputs_may_be_dicts_and_outputs_may_have_names() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, points: Any) -> Any:
            return {"hidden": points, "logits": self.inner(points)}

    x, y = blobs()

    def loss_fn(outputs: Any, targets: Any) -> Any:
        return nn.functional.cross_entropy(outputs["logits"], targets, reduction="none")

    proxy = st.train_proxy(Named(), ({"points": x}, y), epochs=2, lr=0.05, loss_fn=loss_fn)
    plain = st.train_proxy(network(), (x, y), epochs=2, lr=0.05)
    assert np.array_equal(proxy.scores, plain.scores)


def test_one_logit() -> None:
    x, y = blobs()
    model = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    loss_fn = nn.BCEWithLogitsLoss(reduction="none")
    proxy = st.train_proxy(model, (x, (y > 0).float()), epochs=2, lr=0.05, loss_fn=loss_fn)
    with torch.no_grad():
        p = torch.sigmoid(model(x).double())
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    np.testing.assert_allclose(proxy.scores, entropy.numpy(), rtol=1e-5)


def test_unsure_samples_lie_between_the_clusters() -> None:
    x, y = blobs(300, noise=0.8)
    proxy = st.train_proxy(network(), (x, y), epochs=20, lr=0.05, batch_size=32)
    centers = np.array([[0.0, 2.0], [2.0, 0.0], [-2.0, -2.0]])
    distances = np.sort(np.linalg.norm(x.numpy()[:, None] - centers, axis=2), axis=1)
    between = distances[:, 1] - distances[:, 0]  # small between two centers
    unsure = np.argsort(-proxy.scores)[:60]
    assert between[unsure].mean() < 0.5 * between.mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1, "lr": 0.1}, "epochs must be an integer >= 0, got -1"),
        ({"epochs": 1.5, "lr": 0.1}, "epochs must be an integer >= 0, got 1.5"),
        ({"epochs": 1, "lr": 0.1, "batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"epochs": 1, "lr": 0.1, "seed": -3}, "seed must be an integer >= 0, got -3"),
        ({"epochs": 1}, "pass lr .* or optimizer, one of them; got lr=None, optimizer=NoneType"),
        ({"epochs": 1, "lr": 0.0}, "lr must be a positive number, got 0.0"),
        ({"epochs": 1, "lr": "0.1"}, "lr must be a positive number, got '0.1'"),
        ({"epochs": 1, "lr": 0.1, "score": "entrpy"}, "got 'entrpy'. Did you mean 'entropy'"),
    ],
)
def test_refuses_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        st.train_proxy(network(), blobs(), **options)


def test_refuses_lr_and_optimizer() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(so.OptionError, match=r"one of them; got lr=0.1, optimizer=Adam"):
        st.train_proxy(model, blobs(), epochs=1, lr=0.1, optimizer=optimizer)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x, y: (x, y[:5]), "x holds 90 samples and y 5; pass one target per sample"),
        (lambda x, y: (x, y, y), r"a pair \(x, y\), got a tuple of 3"),
        (lambda x, y: (x[:0], y[:0]), "holds no sample"),
        (lambda x, y: iter(Pairs(x, y)), r"map-style data set .*, got \w+: samples are named"),
        (lambda x, y: Pairs(y, y).x, "pairs .input, target., got batches of Tensor"),
    ],
)
def test_refuses_data(data: Any, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        st.train_proxy(network(), data(*blobs()), epochs=1, lr=0.1)


def test_says_what_went_wrong() -> None:
    x, y = blobs()
    with pytest.raises(
        so.ProblemError, match=r"training loss is (nan|inf) in epoch \d: .*diverged"
    ):
        st.train_proxy(network(), (1e20 * x, y), epochs=5, lr=1e20)
    with pytest.raises(so.ProblemError, match="reduction='none'"):
        st.train_proxy(network(), (x, y), epochs=1, lr=0.1, loss_fn=nn.CrossEntropyLoss())
    images = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (3, 2)))

    def loss_fn(outputs: Any, targets: Any) -> Any:
        return outputs.flatten(1).square().mean(1)

    with pytest.raises(so.ProblemError, match=r"logits must have shape .* got \(90, 3, 2\)"):
        st.train_proxy(images, (x, y), epochs=1, lr=0.1, loss_fn=loss_fn)
    proxy = st.train_proxy(images, (x, y), epochs=1, lr=0.1, loss_fn=loss_fn, score="loss")
    assert proxy.scores.shape == (90,)


def test_irreducible_losses_are_those_of_the_model() -> None:
    holdout, (x, y) = blobs(60, seed=1), blobs(40, seed=2)
    model, twin = network(), network()
    irreducible = st.irreducible_losses(
        model, holdout, (x, y), epochs=3, lr=0.05, batch_size=16, keep="last", seed=4
    )
    plain_loop(twin, *holdout, epochs=3, lr=0.05, size=16, seed=4)
    with torch.no_grad():
        losses = nn.functional.cross_entropy(twin(x), y, reduction="none")
    assert irreducible.shape == (40,) and irreducible.dtype == np.float64
    np.testing.assert_allclose(irreducible, losses.numpy(), rtol=1e-5, atol=1e-7)


def test_the_best_epoch_is_kept() -> None:
    # Few held-out samples with wrong labels among them: the longer the training, the worse.
    x, y = blobs(24, seed=1)
    holdout, data = (x, torch.where(torch.arange(24) % 4 == 0, (y + 1) % 3, y)), blobs(60, seed=2)
    options: dict[str, Any] = {"lr": 0.1, "batch_size": 8}
    last = [
        st.irreducible_losses(network(), holdout, data, epochs=e, keep="last", **options).mean()
        for e in range(1, 31)
    ]
    best = st.irreducible_losses(network(), holdout, data, epochs=30, **options)
    assert best.mean() == min(last) < last[-1]
    assert 0 < int(np.argmin(last)) < 29


def test_irreducible_losses_feed_rho_loss() -> None:
    x, y = blobs(200)
    noisy = y.clone()
    noisy[:20] = (y[:20] + 1) % 3
    holdout = blobs(200, seed=5)
    known = st.irreducible_losses(network(1), holdout, (x, noisy), epochs=10, lr=0.05)
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    chosen = {}
    for policy in ("big-loss", "rho-loss"):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options = {"irreducible": known} if policy == "rho-loss" else {}
        selector = st.BatchSelector(policy, k=20, seed=0, policy_options=options)
        step = st.SelectiveStep(model, loss_fn, optimizer, selector)
        for _ in range(30):
            result = step(x, noisy, ids=torch.arange(200))
        chosen[policy] = int((result.picked.indices < 20).sum())
    assert chosen["rho-loss"] < chosen["big-loss"]


def test_irreducible_losses_refuse() -> None:
    data = blobs()
    with pytest.raises(so.OptionError, match="keep must be one of 'best', 'last', got 'first'"):
        st.irreducible_losses(network(), data, data, epochs=1, lr=0.1, keep="first")
    zero = st.irreducible_losses(network(), data, data, epochs=0)
    assert zero.shape == (90,)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_cuda_device() -> None:
    data = blobs()
    torch.cuda.manual_seed(5)
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    model = network(dropout=0.5)
    proxy = st.train_proxy(model, data, epochs=2, lr=0.05, device="cuda")
    after = torch.cuda.get_rng_state(), torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert next(model.parameters()).device.type == "cuda"
    again = st.train_proxy(network(dropout=0.5), data, epochs=2, lr=0.05, device="cuda")
    np.testing.assert_allclose(again.scores, proxy.scores, rtol=1e-4, atol=1e-6)
    plain = st.train_proxy(network(), data, epochs=2, lr=0.05, device="cuda")
    on_host = st.train_proxy(network(), data, epochs=2, lr=0.05)
    np.testing.assert_allclose(plain.scores, on_host.scores, rtol=1e-3, atol=1e-5)
