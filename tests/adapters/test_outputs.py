"""Outputs of any build: their logits are found, replaced, and their gradients made."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from signal_parts import LOSSES, Taking, autograd
from step_parts import CROSS_ENTROPY, batch, make

import subsetopt as so

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from subsetopt_torch.model.outputs import find_logits, with_logits  # noqa: E402

Pair = namedtuple("Pair", ["hidden", "logits"])


@dataclass
class Record:
    hidden: Any
    logits: Any


@dataclass(frozen=True)
class Frozen:
    hidden: Any
    logits: Any
    extra: dict[str, int] = field(default_factory=dict)


class ModelOutput(OrderedDict):  # as transformers has it: items and attributes are the same
    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


BUILDS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]] = {
    "tensor": (lambda h, z: z, lambda o: o),
    "tuple": (lambda h, z: (z, h), lambda o: o[0]),
    "list": (lambda h, z: [z, h], lambda o: o[0]),
    "nested": (lambda h, z: ({"z": z}, [h]), lambda o: o[0]["z"]),
    "dict": (lambda h, z: {"hidden": h, "logits": z}, lambda o: o["logits"]),
    "namedtuple": (Pair, lambda o: o.logits),
    "namespace": (lambda h, z: SimpleNamespace(hidden=h, logits=z), lambda o: o.logits),
    "dataclass": (Record, lambda o: o.logits),
    "frozen dataclass": (Frozen, lambda o: o.logits),
    "model output": (lambda h, z: ModelOutput(hidden=h, logits=z), lambda o: o["logits"]),
}


class Building(nn.Module):
    def __init__(self, build: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.body, self.head, self.build = nn.Linear(6, 5), nn.Linear(5, 4), build

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.body(x)
        return self.build(hidden, self.head(hidden))


@pytest.mark.parametrize("name", BUILDS)
def test_outputs_of_any_build(name: str) -> None:
    build, read = BUILDS[name]

    def loss_fn(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        return CROSS_ENTROPY(read(outputs), targets) ** 2

    x, y = batch()
    model = Building(build)
    logits = read(model(x)).detach()
    everything = ("logit_gradients", "last_layer_gradients", "features")
    policy = Taking("losses", *everything, learns_from=("upper_bound",))
    make(model, policy, loss_fn=loss_fn, last_batch="pad", batch_size=40)(x, y)
    expected = autograd(LOSSES["any other"], logits, y)
    (seen,) = policy.seen
    torch.testing.assert_close(seen["logit_gradients"], expected)
    assert seen["last_layer_gradients"].shape == (32, 4 * 5 + 4)
    bounds = policy.feedback[0].signals["upper_bound"]
    torch.testing.assert_close(bounds, expected[:8].norm(dim=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", BUILDS)
def test_replacing_logits_leaves_the_outputs(name: str) -> None:
    build, read = BUILDS[name]
    logits, others = torch.zeros(3, 2), torch.ones(3, 2)
    outputs = build(torch.zeros(3, 5), logits)
    rebuilt = with_logits(outputs, logits, others)
    assert type(rebuilt) is type(outputs)
    assert read(rebuilt) is others and find_logits(rebuilt, 3) is others
    assert read(outputs) is logits and find_logits(outputs, 3) is logits
    assert find_logits(outputs, 4) is None


class Sealed:
    __slots__ = ("_logits",)

    def __init__(self, hidden: Any, logits: Any) -> None:
        self._logits = logits

    @property
    def logits(self) -> Any:
        return self._logits


@pytest.mark.parametrize(
    ("model", "loss_fn", "message"),
    [
        (
            Building(Sealed),
            lambda o, y: CROSS_ENTROPY(o.logits, y),
            "logits can be replaced, and those of a Sealed cannot",
        ),
        (
            Building(lambda h, z: "nothing"),
            lambda o, y: y.float(),
            "need outputs with a tensor of 32 rows: .*; got a str without",
        ),
        (
            Building(lambda h, z: (h, z)),
            lambda o, y: y.float(),
            "loss does not depend on what was taken for the logits",
        ),
        (
            Building(lambda h, z: (h, z)),
            lambda o, y: torch.ones(len(y), requires_grad=True),
            "loss does not depend on",
        ),
        (
            Building(lambda h, z: z.argmax(1)),
            lambda o, y: (o - y).abs().float(),
            r"logits must be real numbers to have gradients, got torch.int64",
        ),
    ],
)
def test_gradients_that_cannot_be_had(model: Any, loss_fn: Any, message: str) -> None:
    step = make(model, Taking("upper_bound"), loss_fn=loss_fn)
    with pytest.raises(so.ProblemError, match=message):
        step(*batch())


def test_a_reduced_loss_is_refused_as_ever() -> None:
    for loss_fn in (nn.CrossEntropyLoss(), lambda o, y: CROSS_ENTROPY(o, y).mean()):
        step = make(policy=Taking("upper_bound"), loss_fn=loss_fn)
        with pytest.raises(so.ProblemError, match="one number for the whole batch"):
            step(*batch())
