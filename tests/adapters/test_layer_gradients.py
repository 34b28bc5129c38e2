"""Gradient norms by layers: closed forms, shared layers, and what no closed form is known of."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs
from selector_parts import DEVICES
from step_parts import CROSS_ENTROPY

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402

import subsetopt_torch as st  # noqa: E402
from subsetopt_torch.signals import layer_gradients, sample_gradients  # noqa: E402

BY_LAYERS, BY_VMAP, BY_SAMPLES = range(3)


def norms_by_loop(model: nn.Module, loss_fn: Any, x: Any, y: Any) -> Any:
    """Return the norms of one backward pass per sample: the slow twin."""
    model = copy.deepcopy(model).eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    norms = []
    for i in range(len(x)):
        loss = loss_fn(model(x[i : i + 1]), y[i : i + 1]).sum()
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        norms.append(torch.cat([g.flatten().double() for g in found if g is not None]).norm())
    return torch.stack(norms)


def way_of(model: nn.Module) -> int:
    """Return which way was chosen for a model."""
    return sample_gradients._choices[model][-1].at


def checked(model: nn.Module, x: Any, y: Any = None, way: int = BY_LAYERS) -> None:
    """Check norms in float64 and float32, and the way they were made."""
    y = torch.arange(len(x), device=x.device) % 3 if y is None else y
    for dtype, tolerance in (
        (torch.float64, 1e-9),
        (torch.float32, 2e-4),
    ):  # a saturated softmax loses digits
        own = copy.deepcopy(model).to(dtype)
        seen = x.to(dtype) if x.is_floating_point() else x
        wide = copy.deepcopy(own).double()
        expected = norms_by_loop(
            wide, CROSS_ENTROPY, x.double() if seen is not x or x.is_floating_point() else x, y
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if way == BY_SAMPLES else "error")
            norms = st.gradient_norms(own, CROSS_ENTROPY, seen, y)
        assert way_of(own) == way, sample_gradients._choices[own][-1].reasons
        assert norms.dtype == dtype
        torch.testing.assert_close(norms.double(), expected, rtol=tolerance, atol=1e-9)


def ended(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))


def prepared(model: nn.Module, x: Any) -> nn.Module:
    """Return a model with weights of all kinds, and running statistics of its own."""
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(x)
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "linear, no bias": (lambda: nn.Linear(6, 4, bias=False), (6,)),
    "linear at positions": (lambda: nn.Linear(6, 4), (5, 6)),
    "linear at a grid": (lambda: nn.Linear(6, 4), (2, 3, 6)),
    "linear, wide, at two positions": (lambda: nn.Linear(64, 48), (2, 64)),
    "conv1d": (lambda: nn.Conv1d(3, 5, 3), (3, 9)),
    "conv1d, stride, dilation": (lambda: nn.Conv1d(4, 6, 3, 2, 1, 2, groups=2), (4, 12)),
    "conv1d, same": (lambda: nn.Conv1d(3, 5, 4, padding="same", dilation=2), (3, 9)),
    "conv1d, valid": (lambda: nn.Conv1d(3, 5, 4, padding="valid", bias=False), (3, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    "conv2d, stride past the end": (lambda: nn.Conv2d(3, 4, (3, 2), (2, 3)), (3, 8, 9)),
    "conv2d, depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 6, 6)),
    "conv2d, reflected": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 6, 6)),
    "conv2d, circular": (
        lambda: nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="circular"), (3, 6, 6),
    ),
    "conv2d of few positions": (lambda: nn.Conv2d(16, 24, 3, stride=2), (16, 5, 6)),
    "conv2d of few positions, groups": (
        lambda: nn.Conv2d(32, 32, (3, 2), 2, 1, (1, 2), groups=2), (32, 4, 3),
    ),
    "conv2d of a whole image": (lambda: nn.Conv2d(3, 4, 4, groups=1), (3, 4, 4)),
    "conv1d of few positions, reflected": (
        lambda: nn.Conv1d(24, 32, 3, 2, 1, padding_mode="reflect"), (24, 5),
    ),
    "conv3d of few positions": (lambda: nn.Conv3d(8, 32, 2, 2), (8, 2, 4, 2)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2, padding=1, stride=2, groups=2), (2, 4, 4, 4)),
    "layer norm": (lambda: nn.LayerNorm(6), (6,)),
    "layer norm at positions": (lambda: nn.LayerNorm(6), (4, 6)),
    "layer norm of two dimensions": (lambda: nn.LayerNorm((4, 6)), (4, 6)),
    "layer norm, no bias": (lambda: nn.LayerNorm(6, bias=False), (4, 6)),
    "layer norm, no scale": (
        lambda: nn.Sequential(nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 4)), (6,),
    ),
    "rms norm": (lambda: nn.RMSNorm(6, eps=1e-6), (4, 6)),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 5, 5)),
    "group norm of vectors": (lambda: nn.GroupNorm(2, 4), (4,)),
    "batch norm": (lambda: nn.BatchNorm1d(6), (6,)),
    "batch norm of sequences": (lambda: nn.BatchNorm1d(6), (6, 4)),
    "batch norm of images": (lambda: nn.BatchNorm2d(3), (3, 4, 4)),
    "batch norm of volumes": (lambda: nn.BatchNorm3d(3), (3, 2, 2, 2)),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), (3, 4, 4)),
    "instance norm, running": (
        lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True), (3, 7),
    ),
    # Without a closed form: a backward pass through the layer for each sample.
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 2), (3, 4, 4)),
    "prelu": (lambda: nn.PReLU(4), (4, 5)),
    "bilinear": (lambda: Twice(nn.Bilinear(6, 6, 4)), (6,)),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(6, 4)), (6,)),
    "weight norm, no bias": (
        lambda: parametrizations.weight_norm(nn.Linear(6, 4, bias=False)), (6,),
    ),
    "attention": (lambda: Attending(nn.MultiheadAttention(6, 2, batch_first=True)), (4, 6)),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True), (4, 6),
    ),
    "gru": (lambda: First(nn.GRU(6, 5, batch_first=True)), (4, 6)),
    "lstm": (lambda: First(nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)), (4, 6)),
    "rnn": (lambda: First(nn.RNN(6, 5, batch_first=True)), (4, 6)),
}  # fmt: skip


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x, x.flip(-1))


class First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


class Attending(First):
    def forward(self, x: Any) -> Any:
        return self.layer(x, x, value=x, need_weights=False)[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_the_norms_of_single_backward_passes(name: str, device: str) -> None:
    torch.manual_seed(1)
    make, shape = LAYERS[name]
    x = torch.randn(7, *shape, device=device)
    model = prepared(ended(make(), nn.Tanh()).to(device), x)
    if name.startswith("instance norm, running"):
        model.eval()
    checked(model, x)


class Tokens(nn.Module):
    """A model of tokens, with whatever shares its embedding."""

    def __init__(self, head: Any = None, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6, **options)
        self.between = nn.Linear(6, 6)
        self.head = nn.Linear(6, 9, bias=False)
        if head == "tied":
            self.head.weight = self.embedding.weight

    def forward(self, x: Any) -> Any:
        found = torch.tanh(self.between(self.embedding(x)))
        return self.head(found).mean(1)[:, :3]


@pytest.mark.parametrize(
    "options",
    [{}, {"padding_idx": 0}, {"head": "tied"}, {"head": "tied", "padding_idx": 0},
     {"scale_grad_by_freq": True}],
)  # fmt: skip
def test_embeddings(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    checked(Tokens(**options), torch.randint(0, 9, (8, 5)))


class Shared(nn.Module):
    """A layer under two names, called twice, beside others."""

    def __init__(self, layer: nn.Module, inner: Any = None) -> None:
        super().__init__()
        self.layer = layer
        self.inner = Holding(layer)
        self.last = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        return self.last(torch.tanh(self.layer(torch.tanh(self.inner(x)))))


class Holding(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)


class Scaled(nn.Module):
    """A layer with a parameter of its own, of a kind that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(6))
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.scale + x


@pytest.mark.parametrize("shape", [(6,), (4, 6), (20, 6)])
@pytest.mark.parametrize("make", [lambda: nn.Linear(6, 6), lambda: nn.LayerNorm(6), Scaled])
def test_a_layer_under_two_names_keeps_its_parameters(make: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Shared(make())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    x = torch.randn(8, *shape)
    if len(shape) > 1:
        model.last = nn.Sequential(nn.Linear(6, 3), nn.Flatten(), nn.Linear(3 * shape[0], 3))
        parameters = dict(model.named_parameters(remove_duplicate=False))
    checked(model, x)
    st.gradient_norms(model, CROSS_ENTROPY, x, torch.zeros(8, dtype=torch.long))
    after = dict(model.named_parameters(remove_duplicate=False))
    assert after.keys() == parameters.keys()
    assert all(after[name] is parameter for name, parameter in parameters.items())
    assert all(isinstance(parameter, nn.Parameter) for parameter in after.values())


class Free(nn.Module):
    """The model itself has a parameter, so that only the whole of it can be taken."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 1, 6))
        self.layer = layer or nn.Linear(6, 6)
        self.other = self.layer
        self.last = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        rows = torch.cat((self.start.expand(len(x), -1, -1), x), 1)
        return self.last(self.other(torch.tanh(self.layer(rows))).mean(1))


def test_a_model_with_parameters_of_its_own() -> None:
    torch.manual_seed(0)
    model = Free()
    checked(model, torch.randn(8, 4, 6), way=BY_VMAP)
    assert isinstance(model.layer.weight, nn.Parameter)


class TimeFirst(nn.Module):
    """Works on (positions, samples, width) within: rows are not those of samples in order."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.last(torch.tanh(self.first(x.transpose(0, 1)))).mean(0)


class Positions(nn.Module):
    """Adds what all samples share: an embedding of positions has no rows of samples."""

    leading: tuple[int, ...] = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.places, self.last = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        at = torch.arange(x.shape[1], device=x.device).reshape(*self.leading, -1)
        return self.last(torch.tanh(x + self.places(at))).mean(1)


class BarePositions(Positions):
    leading = ()


class Functional(nn.Module):
    """Uses the weight of a layer that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Any) -> Any:
        return self.last(torch.tanh(x @ self.first.weight.T))


@pytest.mark.parametrize("positions", [1, 3, 4, 8, 16])
@pytest.mark.parametrize("make", [TimeFirst, Positions, BarePositions])
@pytest.mark.filterwarnings("ignore:the gradient norms of")
def test_rows_that_are_not_those_of_samples_are_noticed(make: Any, positions: int) -> None:
    torch.manual_seed(0)
    model, x, y = make(), torch.randn(8, positions, 6), torch.arange(8) % 3
    norms = st.gradient_norms(model, CROSS_ENTROPY, x, y)
    torch.testing.assert_close(
        norms.double(), norms_by_loop(model, CROSS_ENTROPY, x, y), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("make", [Positions, BarePositions])
def test_embeddings_of_positions_have_a_closed_form(make: Any) -> None:
    checked(make(), torch.randn(8, 5, 6))


def test_weights_that_are_used_without_their_layer() -> None:
    checked(Functional(), torch.randn(8, 6), way=BY_VMAP)


def test_in_place_activations() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 8))
    checked(nn.Sequential(layers, nn.ReLU(inplace=True), nn.Linear(8, 3)), torch.randn(9, 6))


def test_hooks_of_others() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    model[0].register_forward_hook(lambda module, args, output: 2.0 * output)
    model[2].register_forward_pre_hook(lambda module, args: (args[0] + 1.0,))
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    norms = st.gradient_norms(model, CROSS_ENTROPY, x, y)
    assert way_of(model) == BY_LAYERS
    torch.testing.assert_close(
        norms.double(), norms_by_loop(model, CROSS_ENTROPY, x, y), rtol=1e-5, atol=0.0
    )


class Branching(nn.Module):
    """Takes branches on values, which torch.func.vmap does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.layer = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        return self.layer(x * self.weight) * (2.0 if float(x.detach().abs().max()) > 0.0 else 1.0)


def test_single_backward_passes_are_the_last_resort_and_say_so() -> None:
    torch.manual_seed(0)
    model, x, y = Branching(), torch.randn(8, 6), torch.arange(8) % 3
    said = r"take a backward pass for each sample, since .*The policy 'upper-bound' costs far less"
    with pytest.warns(UserWarning, match=said):
        norms = st.gradient_norms(model, CROSS_ENTROPY, x, y)
    st.gradient_norms(model, CROSS_ENTROPY, x, y)  # once per model: warnings are errors here
    expected = norms_by_loop(model, CROSS_ENTROPY, x, y)
    torch.testing.assert_close(norms.double(), expected, rtol=1e-5, atol=0.0)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_models() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    expected = st.gradient_norms(model, CROSS_ENTROPY, x, y)
    norms = st.gradient_norms(torch.jit.script(model), CROSS_ENTROPY, x, y)
    torch.testing.assert_close(norms, expected)


def test_a_loss_that_mixes_samples_is_taken_of_single_samples() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(6, 3), torch.randn(8, 6), torch.arange(8) % 3

    def loss_fn(outputs: Any, targets: Any) -> Any:
        return CROSS_ENTROPY(outputs, targets) + outputs.mean() ** 2

    norms = st.gradient_norms(model, loss_fn, x, y)
    torch.testing.assert_close(
        norms.double(), norms_by_loop(model, loss_fn, x, y), rtol=1e-5, atol=0.0
    )
    assert way_of(model) == BY_VMAP


def test_a_model_that_fails_on_a_single_sample() -> None:
    class Pairs(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x.reshape(2, -1, 6).flatten(0, 1))

    message = "Pairs fails on a single sample .* Use the policy 'upper-bound'"
    with pytest.raises(so.ProblemError, match=message):
        st.gradient_norms(
            Pairs(6, 3), CROSS_ENTROPY, torch.randn(8, 6), torch.zeros(8, dtype=torch.long)
        )


def test_parameters_in_shards_are_refused() -> None:
    class FullyShardedDataParallel(nn.Linear):
        """Named as torch names its own."""

    with pytest.raises(so.ProblemError, match=r"are sharded over processes .* 'upper-bound'"):
        st.gradient_norms(
            FullyShardedDataParallel(6, 3),
            CROSS_ENTROPY,
            torch.randn(8, 6),
            torch.zeros(8, dtype=torch.long),
        )


def test_data_parallel_is_taken_for_what_is_in_it() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Linear(6, 3), torch.randn(8, 6), torch.arange(8) % 3
    norms = st.gradient_norms(nn.DataParallel(model), CROSS_ENTROPY, x, y)
    torch.testing.assert_close(norms, st.gradient_norms(model, CROSS_ENTROPY, x, y))


def test_samples_whose_loss_is_not_finite_leave_the_others_alone() -> None:
    torch.manual_seed(0)
    model = ended(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU())
    x, y = torch.randn(9, 2, 6), torch.arange(9) % 3
    model(x)
    expected = st.gradient_norms(model, CROSS_ENTROPY, x, y)
    x[[0, 5]] = torch.nan
    norms = st.gradient_norms(model, CROSS_ENTROPY, x, y)
    good = torch.tensor([1, 2, 3, 4, 6, 7, 8])
    torch.testing.assert_close(norms[good], expected[good])
    assert norms[[0, 5]].isnan().all()


def test_frozen_parts_take_no_part() -> None:
    torch.manual_seed(0)
    model = ended(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh())
    x = torch.randn(8, 2, 6)
    model(x)
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    checked(model, x)


def test_gradients_too_small_for_single_squares() -> None:
    model, x, y = nn.Linear(6, 3), 1e-30 * torch.ones(8, 6), torch.arange(8) % 3

    def loss_fn(outputs: Any, targets: Any) -> Any:
        return 1e-3 * outputs[:, 0]

    model.bias.requires_grad_(False)
    norms = st.gradient_norms(model, loss_fn, x, y)
    torch.testing.assert_close(norms, torch.full((8,), 6**0.5 * 1e-33), rtol=1e-5, atol=0.0)


@settings(max_examples=40, deadline=None)
@given(
    dims=hs.integers(1, 3), groups=hs.integers(1, 3), kernel=hs.integers(1, 3),
    stride=hs.integers(1, 3), padding=hs.integers(0, 2), dilation=hs.integers(1, 2),
    each=hs.integers(1, 2), size=hs.integers(5, 7), bias=hs.booleans(), seed=hs.integers(0, 99),
)  # fmt: skip
def test_convolutions_of_any_geometry(
    dims: int, groups: int, kernel: int, stride: int, padding: int, dilation: int, each: int,
    size: int, bias: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    layer = kind(
        groups * each, 2 * groups, kernel, stride, padding, dilation, groups, bias
    ).double()
    x = torch.randn(4, groups * each, *[size] * dims, dtype=torch.float64)
    y = layer(x)
    g = torch.randn_like(y)
    wanted = frozenset(name for name, _ in layer.named_parameters())
    found = layer_gradients.rule_of(layer)(layer, x, g, 4, wanted)  # type: ignore[misc]
    for i in range(4):
        out = layer(x[i : i + 1])
        expected = torch.autograd.grad(out, list(layer.parameters()), g[i : i + 1])
        for (name, _), value in zip(layer.named_parameters(), expected, strict=True):
            torch.testing.assert_close(found[name][i], value)
    squares = layer_gradients.convolution_squares(layer, x, g)
    if squares is not None:
        torch.testing.assert_close(squares, layer_gradients.squared_norms(found["weight"]))
