"""The command of ledgers in tiny configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app

pytest.importorskip("lmdb", reason="needs the package lmdb")


def run(folder: Path, *arguments: str) -> Any:
    arguments = ("ledger", *arguments, "--media", "dense,lmdb", "--out", str(folder))
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def test_bytes_and_times(tmp_path: Path) -> None:
    found = run(tmp_path, "--records", "20000", "--batch", "100", "--repeats", "2")
    dense, lmdb = found["tables"][0]["rows"]
    assert (dense[:2], lmdb[:2]) == (["dense", 24], ["lmdb", 32])
    assert float(dense[2]) < 30.0 and float(lmdb[2]) < 60.0
    assert [row[0] for row in found["tables"][1]["rows"]] == ["dense", "lmdb"]


def test_kills(tmp_path: Path) -> None:
    found = run(tmp_path, "--kills", "1")
    assert [row[:2] + row[3:5] for row in found["tables"][0]["rows"]] == [
        ["dense", 1, 0, 0],
        ["lmdb", 1, 0, 0],
    ]
    assert all(check["passed"] for check in found["checks"])


def test_readers(tmp_path: Path) -> None:
    found = run(tmp_path, "--readers", "1", "--seconds", "0.2")
    assert all(row[3] > 0 and row[5:] == [0, 0, 0] for row in found["tables"][0]["rows"])


def test_a_medium_that_is_none() -> None:
    with pytest.raises(Exception, match="media must be of dense, lmdb, redis, got 'sqlite'"):
        CliRunner().invoke(app, ["ledger", "--media", "sqlite"], catch_exceptions=False)
