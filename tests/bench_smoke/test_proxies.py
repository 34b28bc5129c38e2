"""`benchmarks proxy` in a tiny configuration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.commands import proxies
from subsetopt import OptionError

torch = pytest.importorskip("torch")


def test_the_command(tmp_path: Path) -> None:
    arguments = ["proxy", "--kept", "0.5,0.1", "--epochs", "2", "--proxy-epochs", "1"]
    result = CliRunner().invoke(
        app, [*arguments, "--seeds", "2", "--out", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    means, ranges = json.loads((tmp_path / "proxy.json").read_text())["tables"]
    for table in (means, ranges):
        assert table["columns"] == ["kept", *proxies.WAYS]
        assert [row[0] for row in table["rows"]] == ["50%", "10%", "100%"]
        assert table["rows"][-1][2:] == ["-"] * 3
    assert all(10.0 < float(cell) < 100.0 for row in means["rows"][:-1] for cell in row[1:])


def test_means_are_of_every_seed_and_repeat_themselves() -> None:
    first, again = (proxies.measure([0.2], 2, 1, 3) for _ in range(2))
    assert first == again
    assert set(first) == {(1.0, "all"), *((0.2, way) for way in proxies.WAYS)}
    for cell, accuracies in first.items():
        assert len(accuracies) == 3, cell
    assert len(set(first[1.0, "all"])) > 1  # full data, too, is trained with every seed


def test_ways_keep_what_they_say() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((3, 60)), np.repeat(np.arange(3), 20)
    scores[0, labels == 0] += 1.0
    kept = {name: way(scores, labels, 15, 0) for name, way in proxies.WAYS.items()}
    for name, rows in kept.items():
        assert np.unique(rows).size == 15, name
    assert set(kept["uncertain"]) == set(np.argsort(scores[0])[-15:])
    assert np.bincount(labels[kept["uncertain, class-balanced"]]).tolist() == [5, 5, 5]
    ranks = scores.argsort(axis=1).argsort(axis=1).sum(axis=0)
    by_rank = kept["uncertain, 3 proxies by rank"]
    assert ranks[by_rank].sum() == np.sort(ranks)[-15:].sum()


@pytest.mark.parametrize("kept", ["0", "1.5", "0.5,-0.1"])
def test_shares_are_checked(kept: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a share of the data must be in \(0, 1\], got"):
        proxies.proxy(kept, epochs=1, proxy_epochs=1, seeds=1, out=tmp_path, save=False)
