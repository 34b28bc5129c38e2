"""`benchmarks sampling` and `benchmarks plans` in a tiny configuration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.commands.plans import POLICIES as PLANNED
from benchmarks.commands.sampling import POLICIES, _noisy, cost, train


def test_the_command(tmp_path: Path) -> None:
    arguments = ["sampling", "--sizes", "300", "--batches", "3", "--steps", "24", "--seeds", "2"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "sampling.json").read_text())
    costs, accuracy = (table["rows"] for table in found["tables"])
    assert [row[1] for row in costs] == list(POLICIES)
    assert [row[:2] for row in accuracy] == [[s, p] for s in ("0%", "20%") for p in POLICIES]
    assert (tmp_path / "sampling-digits.png").stat().st_size > 5_000


@pytest.mark.parametrize("policy", POLICIES)
def test_cost_is_measured(policy: str) -> None:
    chosen, learned = cost(500, policy, 8, 5)
    assert chosen > 0.0 and learned > 0.0


def test_training_learns_and_repeats_itself() -> None:
    pytest.importorskip("torch")
    first, again = (train("digits", None, [0.0], 13, 150, 1) for _ in range(2))
    for policy in POLICIES:
        assert np.array_equal(first[0.0, policy], again[0.0, policy])
        assert first[0.0, policy].shape == (1, 12) and first[0.0, policy][0, -1] > 0.5


def test_noise_is_the_share_asked_for() -> None:
    torch = pytest.importorskip("torch")
    labels = torch.zeros(5000, dtype=torch.int64)
    assert torch.equal(_noisy(labels, 10, 0.0, 0), labels)
    changed = float((_noisy(labels, 10, 0.5, 0) != 0).double().mean())
    assert abs(changed - 0.45) < 0.03


def test_plans_and_batches_are_timed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    arguments = ["plans", "--records", "600", "--batch", "16", "--windows", "32,64"]
    result = CliRunner().invoke(
        app, [*arguments, "--repeats", "1", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    plans, batches = (
        table["rows"] for table in json.loads((tmp_path / "plans.json").read_text())["tables"]
    )
    assert [row[0] for row in plans] == list(PLANNED)
    assert [row[:2] for row in batches] == [[p, m] for p in PLANNED for m in (32, 64)]
