"""`benchmarks cards` in a tiny configuration, and what its pictures rest on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.commands import cards
from benchmarks.harness import card_pictures, output

torch = pytest.importorskip("torch")
TINY = ("--epochs", "2", "--seeds", "1")
PNG = b"\x89PNG"


def run(out: Path, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(
        app, ["cards", *TINY, *arguments, "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads((out / "cards.json").read_text())
    return found


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Stand-ins for benchmarks/results and docs/methods."""
    folders = tmp_path / "results", tmp_path / "methods"
    monkeypatch.setattr(output, "RESULTS", folders[0])
    monkeypatch.setattr(cards, "METHOD_CARDS", folders[1])
    return folders


@pytest.mark.filterwarnings("ignore:adaselection with beta=0.5")
def test_every_policy_gets_its_picture(tmp_path: Path) -> None:
    accuracy, switched = run(tmp_path)["tables"]
    methods = [row[0] for row in accuracy["rows"]]
    assert methods[:3] == ["full batch", "uniform", "big-loss"]
    assert {"adaselection", "adaselection, beta=0.5", "rho-loss", "balanced"} <= set(methods)
    assert [row[0] for row in switched["rows"]] == ["importance", "importance, tau_threshold=1.8"]
    # 22 batches of 13; two methods may keep fewer.
    free = ("selective-backprop", "gradient-matching, weights=nonnegative")
    assert {row[4] for row in accuracy["rows"] if row[0] not in free} == {"2,816", "286"}
    extra = ["importance-tau", "adaselection-weights"]
    for name in cards.policies_with_plots() + extra:
        data = (tmp_path / f"{name}.png").read_bytes()
        assert data.startswith(PNG) and 5_000 < len(data) < 40_000, name


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name, "--policies", "balanced")
    first, second = ((tmp_path / name / "balanced.png").read_bytes() for name in ("a", "b"))
    assert first == second and b"date" not in first.lower()


def test_single_policies_are_put_into_the_saved_result(
    tmp_path: Path, kept: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["uniform", "coreset-1", "obtf", "importance"]
    monkeypatch.setattr(cards, "policies_with_plots", lambda: few)
    results, methods = kept
    before = run(tmp_path, "--save")["tables"]
    changed = json.loads((results / "cards.json").read_text())
    for row in changed["tables"][0]["rows"]:
        row[1] = "0.0"
    (results / "cards.json").write_text(json.dumps(changed))
    (methods / "obtf.png").unlink()
    (methods / "coreset-1.png").unlink()
    after = run(tmp_path, "--policies", "obtf", "--save")["tables"]
    assert [row[0] for row in after[0]["rows"]] == [row[0] for row in before[0]["rows"]]
    assert after[1] == before[1]
    for old, new in zip(before[0]["rows"], after[0]["rows"], strict=True):
        redone = new[0] in ("full batch", "uniform", "obtf")
        assert new == (old if redone else [old[0], "0.0", *old[2:]])
    assert "Made anew: obtf" in (results / "cards.md").read_text()
    assert (methods / "obtf.png").exists() and not (methods / "coreset-1.png").exists()


def test_a_saved_result_with_other_settings_is_not_mixed(
    tmp_path: Path, kept: tuple[Path, Path]
) -> None:
    with pytest.raises(cards.OptionError, match="holds no result with these settings"):
        cards.cards("obtf", epochs=1, seeds=1, out=tmp_path, save=True)
    assert not any(folder.exists() for folder in kept)


@pytest.mark.parametrize(
    ("name", "message"),
    [("balancd", "Did you mean 'balanced'"), ("online-batch", "no plot for 'online-batch'")],
)
def test_policies_without_a_plot(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(cards.OptionError, match=message):
        cards.cards(name, epochs=1, seeds=1, out=tmp_path, save=False)


def test_irreducible_losses_cover_the_training_set_and_are_of_a_model_that_learned() -> None:
    losses = cards.irreducible()
    assert losses.shape == (len(cards.digits().train_x),) and losses.size % 128 == 0
    assert np.isfinite(losses).all() and losses.mean() < 0.5  # log(10) without learning
    assert np.array_equal(losses, cards.irreducible())


def test_switches_are_the_changes() -> None:
    ons = SimpleNamespace(policy_curves={"on": ([3, 4, 5, 6, 7], [0.0, 1.0, 1.0, 0.0, 1.0])})
    assert cards.switches(ons) == [(4, True), (6, False), (7, True)]
    from_the_start = SimpleNamespace(policy_curves={"on": ([0, 1], [1.0, 1.0])})
    assert cards.switches(from_the_start) == [(0, True)]


def test_stretches_cover_what_is_on() -> None:
    assert card_pictures._stretches([0, 1, 1, 0, 1]) == [(1, 3), (4, 5)]
    assert card_pictures._stretches([0, 0]) == []


def test_epochs_are_grouped_with_the_last_one_whole() -> None:
    points = [SimpleNamespace(accuracy=float(epoch)) for epoch in range(46)]
    grouped = card_pictures._grouped([SimpleNamespace(curve=points)], "accuracy")
    assert grouped.shape == (1, 22, 2)  # 45 epochs after the start
    assert grouped[0, -1].tolist() == [44.0, 45.0] and grouped[0, 0].tolist() == [2.0, 3.0]


def test_the_scale_of_accuracy_can_be_undone() -> None:
    percent = np.array([0.0, 10.0, 90.0, 99.0])
    assert np.allclose(card_pictures._unstretched(card_pictures._stretched(percent)), percent)
