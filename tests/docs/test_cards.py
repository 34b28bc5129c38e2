"""Every method card has its picture, and says of it what the saved results say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from subsetopt.policies import list_policies

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "docs" / "methods"
RESULTS = ROOT / "benchmarks" / "results"
POLICIES = [spec.name for spec in list_policies() if isinstance(spec.target, str)]
# These share the plot of `benchmarks sampling`.
SAMPLED = ("online-batch", "prioritized")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")


def tables(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["tables"]
    return found


def card(policy: str) -> str:
    return " ".join((CARDS / f"{policy}.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("policy", POLICIES)
def test_every_card_has_its_picture(policy: str) -> None:
    images = {path: alt for alt, path in _IMAGE.findall(card(policy))}
    wanted = ["sampling-digits.png" if policy in SAMPLED else f"{policy}.png"]
    wanted += {
        "importance": ["importance-tau.png"], "adaselection": ["adaselection-weights.png"],
    }.get(policy, [])  # fmt: skip
    assert set(wanted) <= set(images)
    for path, alt in images.items():
        data = (CARDS / path).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) < 100_000, path
        assert len(alt) > 40, f"{path} needs a text that says what it shows"


def test_every_picture_is_shown() -> None:
    shown = {path for policy in POLICIES for _, path in _IMAGE.findall(card(policy))}
    assert {path.name for path in CARDS.iterdir() if path.suffix != ".md"} == shown


@pytest.mark.parametrize("policy", [name for name in POLICIES if name not in SAMPLED])
def test_accuracies_are_those_of_the_saved_runs(policy: str) -> None:
    rows = {row[0]: row for row in tables("cards")[0]["rows"]}
    wanted = [label for label in rows if label.partition(",")[0] == policy]
    assert wanted
    for label in {"full batch", "uniform", *wanted}:
        assert f"{rows[label][3]}%" in card(policy), label


def test_the_switches_of_importance_are_those_of_the_saved_runs() -> None:
    rows = tables("cards")[1]["rows"]
    assert {row[1] for row in rows} == {0, 1, 2}
    told = [row for row in rows if row[0] == "importance" or row[1] == 0]
    steps = [step for row in told for step in re.findall(r"\d+", row[2])]
    assert len(steps) > 6
    for step in steps:
        assert re.search(rf"\b{step}\b", card("importance")), step


def test_the_table_of_proxies_is_that_of_the_saved_runs() -> None:
    page = (ROOT / "docs" / "proxy.md").read_text(encoding="utf-8")
    *rows, everything = tables("proxy")[0]["rows"]
    for row in rows:
        assert "| " + " | ".join(row) + " |" in page
    assert f"they have {everything[1]}." in " ".join(page.split())
