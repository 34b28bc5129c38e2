"""The commands ``designs`` and ``scored`` in a tiny configuration, and what they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import subsetopt as so
from benchmarks.__main__ import app
from benchmarks.commands import designs, scored
from benchmarks.rivals.cube_numpy import plain_cube
from subsetopt.solvers.base import SolveContext
from subsetopt.solvers.designs import Cube


def run(folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(
        app, [name, *arguments, "--out", str(folder)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    return {check["what"]: check["passed"] for check in found["checks"]}


def test_designs(tmp_path: Path) -> None:
    found = run(tmp_path, "designs", "--draws", "20", "--batches", "5", "--repeats", "3")
    passed = verdicts(found)
    for what in ("draws of another size", "deviation / what the landing allows"):
        assert passed[f"cube: {what}"]
    assert passed["cube: undecided at the landing, beyond p + 1"]
    names = [row[0] for row in found["tables"][3]["rows"]]
    assert names == ["random subset", "multinomial", "systematic", "cube", "cube in NumPy"]


def test_scored_resumes(tmp_path: Path) -> None:
    pytest.importorskip("ortools")
    arguments = ("--instances", "6", "--families", "uniform,integer,bimodal", "--time-limit", "5")
    passed = verdicts(run(tmp_path, "scored", *arguments))
    del passed["MIP / lagrangian, times"]
    assert all(passed.values())
    path = tmp_path / "scored.jsonl"
    before = path.read_bytes()
    # A row that was cut short is measured again, the others are not.
    path.write_bytes(before[:-9])
    run(tmp_path, "scored", *arguments)
    after = path.read_bytes()
    assert after.splitlines()[:-1] == before.splitlines()[:-1]
    assert len(after.splitlines()) == len(before.splitlines())


def test_what_is_counted_as_wrong() -> None:
    good = scored.Row(
        0, 1.0, "uniform", "independent", 64, 6, "OPTIMAL", 10.0, 10.0, 1e-3, "gurobi", "OPTIMAL",
        10.0, False, 1e-2, 1e-9,
    )  # fmt: skip
    assert good.optimum and good.gap == 0.0 and not scored._too_low([good])
    low = scored.Row(**{f: getattr(good, f) for f in good.__slots__} | {"bound": 9.9})
    assert scored._too_low([low]) == [low]
    lacking = scored.Row(**{f: getattr(good, f) for f in good.__slots__} | {"value": float("nan")})
    assert lacking.gap == float("inf")


@pytest.mark.parametrize("kind", ["mixed", "pure", "constant", "near 0 and 1"])
def test_the_landing_stays_within_its_bound(kind: str) -> None:
    design = designs.Design.make(kind, 32, 8, 3)
    off, bounds, left = designs._landed(design, 50)
    assert left <= 4
    assert (off <= bounds + 1e-9).all()
    widest = designs.landing_bound(design, np.flatnonzero(design.inclusion < 1.0))
    assert (bounds <= widest + 1e-12).all()


def test_the_flight_that_is_looked_into_is_the_solver() -> None:
    design = designs.Design.make("mixed", 32, 8, 2)
    problem = design.problem()
    assert isinstance(problem.objective, so.SamplingDesign)
    off, _, _ = designs._landed(design, 3)
    for i in range(3):
        answer = so.solve(problem, Cube(), seed=i)
        raw = Cube().solve(problem, SolveContext(entropy=i))
        assert answer.indices.size == 8
        assert raw.indices is not None and raw.weights is not None
        assert problem.objective.evaluate(raw.indices, raw.weights) == pytest.approx(off[i].max())


def test_the_textbook_cube_draws_as_prescribed() -> None:
    design = designs.Design.make("mixed", 24, 6, 2)
    assert design.balance is not None
    counts, draws = np.zeros(24), 400
    for seed in range(draws):
        chosen = plain_cube(design.balance, design.inclusion, np.random.default_rng(seed))
        assert chosen.size == 6
        counts[chosen] += 1
    pi = design.inclusion
    assert (np.abs(counts / draws - pi) <= 4.5 * np.sqrt(pi * (1 - pi) / draws)).all()
