"""Batches of any build."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import subsetopt as so

torch = pytest.importorskip("torch")

from subsetopt_torch.batches import batch_size, call_model, first_tensor, take  # noqa: E402


class Pair(NamedTuple):
    a: Any
    b: Any


def test_take_goes_into_every_container() -> None:
    x = torch.arange(12.0).view(4, 3)
    shared, scalar = torch.ones(2, 2), torch.tensor(3.0)
    batch = {
        "x": x,
        "deep": (x[:, 0], [x, {"y": x}]),
        "pair": Pair(x, "kept"),
        "ids": ["a", "b", "c", "d"],
        "shared": shared,
        "scalar": scalar,
        "flag": True,
        "none": None,
    }
    rows = torch.tensor([3, 1])
    taken = take(batch, rows, 4)
    assert torch.equal(taken["x"], x[rows])
    assert torch.equal(taken["deep"][0], x[rows, 0])
    assert torch.equal(taken["deep"][1][1]["y"], x[rows])
    assert isinstance(taken["pair"], Pair) and torch.equal(taken["pair"].a, x[rows])
    assert taken["ids"] == ["d", "b"]
    assert taken["shared"] is shared and taken["scalar"] is scalar
    assert taken["flag"] is True and taken["none"] is None
    assert torch.equal(batch["x"], torch.arange(12.0).view(4, 3))


def test_batch_size_is_that_of_the_first_tensor_with_a_dimension() -> None:
    x = torch.zeros(5, 2)
    assert batch_size(None, {"lr": torch.tensor(0.1), "x": x}) == 5
    assert batch_size([], (torch.zeros(0, 3),)) == 0
    assert first_tensor(({"a": 1}, [x])) is x and first_tensor("text") is None
    with pytest.raises(so.ProblemError, match="no tensor with a batch dimension"):
        batch_size({"a": 1}, torch.tensor(2.0))


def test_the_model_is_called_as_the_batch_is_built() -> None:
    def model(*arguments: Any, **named: Any) -> Any:
        return arguments, named

    assert call_model(model, 3) == ((3,), {})
    assert call_model(model, (3, 4)) == call_model(model, [3, 4]) == ((3, 4), {})
    assert call_model(model, {"x": 3}) == ((), {"x": 3})
