"""Batches of any build."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as draws

import subsetopt as so

torch = pytest.importorskip("torch")

from subsetopt_torch.model.batches import (  # noqa: E402
    batch_size,
    call_model,
    concatenate,
    first_tensor,
    per_sample,
    take,
    take_rows,
)


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


def test_arrays_are_indexed_as_tensors_are() -> None:
    rows = torch.tensor([2, 0])
    taken = take({"x": np.arange(6).reshape(3, 2), "scale": np.float64(2.0)}, rows, 3)
    assert taken["x"].tolist() == [[4, 5], [0, 1]] and taken["scale"] == 2.0


def test_a_named_tuple_as_long_as_the_batch_is_no_list_of_samples() -> None:
    pair = Pair(3.0, "kept")
    assert per_sample(pair, 2) == [False, False]
    assert take(pair, torch.tensor([1]), 2) == pair


@given(draws.lists(draws.integers(0, 5), min_size=1, max_size=6), draws.integers(1, 4))
def test_taken_apart_and_put_together_again(cuts: list[int], width: int) -> None:
    n = sum(cuts) + 1
    x = torch.arange(float(n * width)).view(n, width)
    whole = {
        "x": x,
        "pair": Pair(x[:, 0], (x.numpy()[:, :1], [f"{i}" for i in range(n)])),
        "shared": torch.ones(n + 1, 2),
        "none": None,
    }
    rows = per_sample(whole, n)
    assert rows == {"x": True, "pair": [True, [True, True]], "shared": False, "none": False}
    parts = [take_rows(whole, part, rows) for part in torch.arange(n).split([*cuts, 1])]
    again = concatenate(parts, rows)
    assert torch.equal(again["x"], x) and torch.equal(again["pair"].a, x[:, 0])
    assert isinstance(again["pair"], Pair)
    assert again["pair"].b[0].tolist() == x[:, :1].tolist()
    assert again["pair"].b[1] == whole["pair"].b[1]
    assert again["shared"] is whole["shared"] and again["none"] is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.ones(3), False),
        (torch.tensor(1.0), 1.0, False),
        (np.ones(2), np.ones(2), True),
        (np.ones(2), np.zeros(2), False),
        ("a", "a", True),
        (1, 2, False),
        (None, None, True),
    ],
)
def test_what_is_shared_must_be_equal(one: Any, other: Any, same: bool) -> None:
    if same:
        assert concatenate([one, other], False) is one
    else:
        with pytest.raises(so.ProblemError, match="give it one row per sample"):
            concatenate([one, other], False)
