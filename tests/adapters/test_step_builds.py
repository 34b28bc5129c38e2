"""SelectiveStep: batches and models of any build."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from step_parts import CROSS_ENTROPY, batch, make

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, features: torch.Tensor, scale: torch.Tensor, note: Any = None) -> Any:
        assert note is None or len(note) == len(features)
        return {"logits": self.linear(features) * scale[:, None]}, None


def of_parts(outputs: Any, targets: Any) -> torch.Tensor:
    return CROSS_ENTROPY(outputs[0]["logits"], targets["label"])


@pytest.mark.parametrize("build", ["dict", "tuple"])
@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_nested_batches_and_outputs(build: str, rate: float) -> None:
    x, y = batch()
    note = [str(i) for i in range(32)]
    inputs: Any = {"features": x, "scale": x[:, 0], "note": note}
    if build == "tuple":
        inputs = tuple(inputs.values())
    model = Keywords()
    twin = copy.deepcopy(model)
    result = make(model, loss_fn=of_parts, selector={"rate": rate})(inputs, {"label": y})
    rows = result.picked.indices
    losses = of_parts(twin(x[rows], x[rows, 0]), {"label": y[rows]})
    torch.testing.assert_close(result.loss, (losses * result.picked.weights).sum().detach())


def test_targets_may_be_part_of_the_outputs() -> None:
    def model_loss(outputs: torch.Tensor, targets: None) -> torch.Tensor:
        return outputs.square().sum(1)

    assert make(loss_fn=model_loss)(batch()[0], None).updated
