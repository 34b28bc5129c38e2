"""The scoring pass leaves no trace."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import subsetopt_torch as st  # noqa: E402


class Noisy(nn.Module):
    """Draws random numbers in every mode, and counts its forwards in training in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        return x + 1e-3 * torch.rand_like(x)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.Dropout(0.5),
        Noisy(),
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4)),
        nn.Sequential(nn.BatchNorm1d(4, momentum=None), nn.Identity()),
    )


def snapshot(net: nn.Module) -> tuple[dict[str, torch.Tensor], list[bool], torch.Tensor]:
    state = {name: value.clone() for name, value in net.state_dict().items()}
    return state, [m.training for m in net.modules()], torch.get_rng_state()


def assert_untouched(net: nn.Module, before: tuple) -> None:
    state, modes, stream = snapshot(net)
    assert all(torch.equal(state[name], before[0][name]) for name in before[0])
    assert modes == before[1]
    assert torch.equal(stream, before[2])


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("frozen", [(), (1,), (1, 2, 5), (0, 1, 2, 3, 4, 5)])
def test_everything_is_as_it_was(mode: str, frozen: tuple[int, ...]) -> None:
    net = model().train()
    for number in frozen:
        net[number].eval()
    net(torch.randn(16, 6))
    before = snapshot(net)
    with st.scoring_pass(net, mode):
        out = net(torch.randn(16, 6))
        assert not out.requires_grad
        inside = [m.training for m in net.modules()]
    assert inside == (before[1] if mode == "train" else [False] * len(inside))
    assert_untouched(net, before)
    assert torch.is_grad_enabled() and torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_also_when_the_forward_raises(mode: str) -> None:
    net = model()
    net[2].eval()
    before = snapshot(net)
    with pytest.raises(RuntimeError, match="in the middle"), st.scoring_pass(net, mode):
        net(torch.randn(16, 6))
        raise RuntimeError("in the middle")
    assert_untouched(net, before)
    assert torch.is_grad_enabled()


def test_train_mode_uses_batch_statistics() -> None:
    net = nn.BatchNorm1d(3).train()
    x = torch.randn(50, 3) * 4 + 2
    with st.scoring_pass(net, "train"):
        assert net(x).mean().abs() < 1e-5
    with st.scoring_pass(net, "eval"):
        assert net(x).mean().abs() > 1


def test_eval_mode_does_not_call_overridden_train() -> None:
    class Merging(nn.Linear):
        calls = 0

        def train(self, mode: bool = True) -> Merging:
            self.calls += 1
            return super().train(mode)

    net = Merging(2, 2)
    with st.scoring_pass(net):
        assert not net.training
    assert net.training and net.calls == 0


def test_update_norm_updates_once_and_nothing_else() -> None:
    for mode in ("eval", "train"):
        net, twin = model().train(), model().train()
        net[5].eval()
        before = snapshot(net)
        x = torch.randn(32, 6)
        stream = torch.get_rng_state()
        with st.scoring_pass(net, mode, update_norm=True):
            net(x)
        assert torch.equal(torch.get_rng_state(), stream)
        twin(x)
        torch.testing.assert_close(net[1].running_mean, twin[1].running_mean)
        torch.testing.assert_close(net[1].running_var, twin[1].running_var)
        assert net[1].num_batches_tracked == 1
        changed = {
            name for name, v in net.state_dict().items() if not torch.equal(v, before[0][name])
        }
        assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
        assert [m.training for m in net.modules()] == before[1]


def test_autocast_does_not_remember_weights_without_gradients() -> None:
    net = nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with st.scoring_pass(net):
            net(torch.randn(3, 4))
        net(torch.randn(3, 4)).float().sum().backward()
    assert net.weight.grad is not None


def test_an_unknown_mode() -> None:
    with pytest.raises(so.OptionError, match=r"'eval', 'train', got 'evil'. Did you mean 'eval'"):
        with st.scoring_pass(model(), "evil"):
            pass


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_random_stream_of_the_device() -> None:
    net = model().cuda()
    before, stream = snapshot(net), torch.cuda.get_rng_state()
    with st.scoring_pass(net, "train"):
        net(torch.randn(16, 6, device="cuda"))
    assert_untouched(net, before)
    assert torch.equal(torch.cuda.get_rng_state(), stream)


class Watcher(nn.Module):
    """Writes into its buffers in every mode, in all the ways that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("queue", torch.zeros(0))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("table", torch.arange(3.0).expand(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.data += 1
        self.queue.resize_(len(x)).copy_(x.detach()[:, 0])
        self.last = x.detach()[0]
        return x + self.table[0]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_every_buffer_is_put_back(mode: Any) -> None:
    net = nn.Sequential(Watcher(), nn.BatchNorm1d(3))
    tensors = dict(net.named_buffers())
    before = {name: buffer.clone() for name, buffer in tensors.items()}
    with st.scoring_pass(net, mode):
        net(torch.randn(5, 3))
        assert net[0].seen == 1 and len(net[0].queue) == 5
    for name, buffer in net.named_buffers():
        assert buffer is tensors[name] and torch.equal(buffer, before[name])


class NormedLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, outputs: Any, targets: Any) -> torch.Tensor:
        return nn.functional.cross_entropy(self.norm(outputs), targets, reduction="none")

    def of(self, outputs: Any, targets: Any, *, times: float = 1.0) -> torch.Tensor:
        return times * self(outputs, targets)


@pytest.mark.parametrize("build", ["module", "method", "partial"])
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_loss_that_is_a_module_is_left_as_it_was(build: str, mode: Any) -> None:
    loss = NormedLoss()
    loss_fn = {"module": loss, "method": loss.of, "partial": partial(loss.of, times=2.0)}[build]
    outputs, targets = torch.randn(8, 4), torch.zeros(8, dtype=torch.long)
    before = copy.deepcopy(loss.state_dict())
    with st.scoring_pass(nn.Identity(), mode, loss_fn=loss_fn):
        assert loss.norm.training is (mode == "train")
        loss_fn(outputs, targets)
    assert loss.training and loss.norm.training
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    model = nn.Linear(6, 4)
    step = st.SelectiveStep(
        model,
        loss_fn,
        torch.optim.SGD(model.parameters(), lr=0.1),
        st.BatchSelector("obtf", rate=0.25, seed=0),
        scoring_mode=mode,
    )
    assert step(torch.randn(8, 6), targets).updated
    assert loss.norm.num_batches_tracked == 1 and loss.norm.training
