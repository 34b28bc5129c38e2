"""Options of policies as the command line has them."""

from __future__ import annotations

from typing import Any

import pytest

import subsetopt as so
from subsetopt_torch.experiment.policy_options import parse_policy_options


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ('["big-loss", "uniform"]', ["big-loss", "uniform"]),
        ("at_most", "at_most"),
        ("", ""),
        ("a=b:c", "a=b:c"),
        ('"3"', "3"),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse_policy_options([f"name={text}"], ["obtf"]) == {"obtf": {"name": value}}
    assert parse_policy_options([f"b:name={text}"], ["a", "b"]) == {"b": {"name": value}}


def test_several() -> None:
    texts = ["a:x=1", "b:x=2", "a:y=3"]
    assert parse_policy_options(texts, ["a", "b", "c"]) == {"a": {"x": 1, "y": 3}, "b": {"x": 2}}
    assert parse_policy_options([], ["a"]) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["choices"], "must be policy:name=value, got 'choices'"),
        (["=3"], "must be policy:name=value, got '=3'"),
        (["obtf:=3"], "must be policy:name=value"),
        ([":choices=3"], "must be policy:name=value"),
        (["choices=3"], "does not say which policy .*obtf, big-loss.*write obtf:choices=3"),
        (["obft:choices=3"], "is for 'obft', which is not compared.*Did you mean 'obtf'"),
        (["obtf:a=1", "obtf:a=2"], "the option 'a' of the policy 'obtf' is given twice"),
    ],
)
def test_mistakes(texts: list[str], message: str) -> None:
    with pytest.raises(so.OptionError, match=message):
        parse_policy_options(texts, ["obtf", "big-loss"])
