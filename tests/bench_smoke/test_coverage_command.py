"""The coverage command in a tiny configuration, with the other libraries where they are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import subsetopt as so
from benchmarks.__main__ import app
from benchmarks.commands import coverage
from benchmarks.rivals import peers


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    command = ["coverage", "--n", "120", "--k", "6", "--repeats", "1", "--centers", "90",
               "--out", str(folder), *arguments]  # fmt: skip
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads((folder / "coverage.json").read_text())
    return found


def test_a_peer_that_is_missing_is_a_row_and_no_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "missing", lambda package: "not installed")
    found = run(tmp_path, "--large", "150")
    assert len(found["tables"]) == 2 * 2 + 2
    rows = {row[0]: row for row in found["tables"][0]["rows"]}
    assert rows["submodlib, LazyGreedy"][-1] == "not installed"
    assert rows["greedy"][3] == rows["lazy-greedy"][3]
    assert len(found["checks"]) == 2 * 2 + 1 + 2
    assert all(check["passed"] for check in found["checks"])
    assert [row[1] for row in found["tables"][-1]["rows"]] == 2 * [
        "lazy-greedy",
        "stochastic-greedy",
    ]
    assert {row[-1] for row in found["tables"][-1]["rows"]} == {"completed"}


def test_why_a_package_cannot_be_used() -> None:
    assert peers.missing("json") is None
    assert peers.missing("no_such_package") == "not installed"


@pytest.mark.parametrize("package", ["apricot", "submodlib"])
def test_a_peer_chooses_as_well(package: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(package, reason=f"{package}, of the extra 'peers', is not installed")
    features = coverage.cloud(150, 10, 2.0)
    similarity = peers.cosines(features)
    own = so.solve(so.Problem(so.FacilityLocation(similarity=similarity), 8), "lazy-greedy")
    for matrix, ways in ((similarity, peers.OF_SIMILARITIES), (features, peers.OF_FEATURES)):
        for peer in (p for p in ways if p.package == package):
            chosen = peer.choose(matrix, 8)
            assert np.unique(chosen).size == 8
            worth = similarity[:, chosen].max(axis=1).sum()
            assert worth == pytest.approx(own.objective, rel=1e-6 if peer.same else 0.05)
