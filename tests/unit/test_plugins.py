"""Solvers and policies that other packages offer through entry points."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt import cli, registry
from subsetopt.policies import registry as policies

MODULE = """
import numpy as np, subsetopt as so
class First:
    def solve(self, problem, context):
        return so.RawResult(np.arange(problem.k))
class Some(so.make_policy("uniform").__class__):
    pass
SOLVER = so.SolverSpec("first", First, ("MeanMatching",), summary="the first k")
SEVERAL = [so.SolverSpec("second", First, ("MeanMatching",)), SOLVER]
POLICY = so.PolicySpec("some", Some, summary="k at random")
TAKEN = so.SolverSpec("swap", First, ("MeanMatching",))
so.list_solvers()
"""


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Offer entries (group, name, value), as a package that is installed would."""
    (tmp_path / "offering_package.py").write_text(MODULE)
    (tmp_path / "ending_package.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    entries: list[EntryPoint] = []

    def listed(*, group: str) -> list[EntryPoint]:
        return [entry for entry in entries if entry.group == group]

    monkeypatch.setattr(importlib.metadata, "entry_points", listed)
    for plugins in (registry.plugins, policies.plugins):
        monkeypatch.setattr(plugins, "_loaded", False)
        monkeypatch.setattr(plugins, "broken", [])

    def offer(group: str, name: str, value: str) -> None:
        entries.append(EntryPoint(name, value, f"subsetopt.{group}"))

    yield offer
    for name in ("first", "second"):
        registry.unregister_solver(name)
    policies.unregister_policy("some")


def test_solvers_of_other_packages_are_listed_and_solve(offered: Any) -> None:
    offered("solvers", "mine", "offering_package:SEVERAL")
    offered("solvers", "again", "offering_package:SOLVER")  # the same row twice is one row
    names = [row.name for row in so.list_solvers()]
    assert names.count("first") == names.count("second") == 1
    assert {"first", "second"} <= set(so.available_solvers())


def test_an_unknown_name_looks_among_the_entries(offered: Any) -> None:
    offered("solvers", "mine", "offering_package:SOLVER")
    assert so.select([1.0, 2.0, 4.0], 2, solver="first").indices.tolist() == [0, 1]


def test_a_policy_of_another_package_is_made_by_name(offered: Any) -> None:
    offered("policies", "mine", "offering_package:POLICY")
    problem = so.make_policy("some").propose({"losses": np.ones(5)}, 2, np.random.default_rng(0))
    assert problem.k == 2
    assert "some" in [row.name for row in so.list_policies()]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no_such_package:SOLVER", "No module named 'no_such_package'"),
        ("offering_package:NO_SUCH", "has no attribute 'NO_SUCH'"),
        ("offering_package:First", "it is no SolverSpec but <class"),
        ("offering_package:TAKEN", "a solver named 'swap' is registered already"),
        ("ending_package", "SystemExit: 3"),
    ],
)
def test_a_broken_entry_is_told_in_one_line_and_harms_no_other(
    offered: Any, value: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    offered("solvers", "broken", value)
    offered("solvers", "mine", "offering_package:SOLVER")
    with pytest.warns(RuntimeWarning, match="the entry 'broken'") as told:
        names = [row.name for row in so.list_solvers()]
    assert "first" in names and len(told) == 1
    line = str(told[0].message)
    assert why in line and "\n" not in line
    assert [row.name for row in so.list_solvers()] == names  # told once
    with pytest.raises(SystemExit) as ended:
        cli.main(["solvers", "--json"])
    captured = capsys.readouterr()
    assert ended.value.code == 0
    assert captured.err.count("\n") == 1 and line in captured.err
    assert "first" in [row["name"] for row in json.loads(captured.out)]
