"""Every command in a tiny configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app, main
from benchmarks.harness import output
from benchmarks.harness.store import read_rows


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    assert found["machine"]["versions"]["numpy"] and found["machine"]["cores"] >= 1
    text = (folder / f"{name}.md").read_text()
    assert "Machine:" in text and "Settings:" in text and "## Claims" in text
    return found


def test_solvers_resume_and_report(tmp_path: Path) -> None:
    arguments = (
        "solvers", "--quick", "--families", "exponential,integer,recorded", "--sizes", "16,32",
        "--rates", "0.1", "--solvers", "auto,swap,exhaustive,greedy", "--time-limit", "0.001",
        "--ladder-size", "32", "--data", "digits", "--no-memory", "--out", str(tmp_path),
    )  # fmt: skip
    run(*arguments)
    rows = read_rows(tmp_path / "solvers.csv")
    assert {row.family for row in rows} >= {"exponential", "integer", "recorded-epoch-30"}
    assert all(row.feasible for row in rows if row.limit == 0.001 and not row.skipped)
    assert any(row.limit == 2e-5 for row in rows)
    report = (tmp_path / "report.md").read_text()
    for part in ("Success rate by family", "correct rate", "Known limitations", "shift 10 us"):
        assert part in report
    for name in ("pareto.png", "scaling.png"):
        assert (tmp_path / name).stat().st_size > 5_000
    before = (tmp_path / "solvers.csv").read_bytes()
    run(*arguments)
    assert (tmp_path / "solvers.csv").read_bytes() == before
    (tmp_path / "report.md").unlink()
    run("report", "--out", str(tmp_path))
    assert (tmp_path / "report.md").read_text() == report


def test_exactness(tmp_path: Path) -> None:
    run(
        "exactness", "--small", "20", "--sizes", "24", "--rates", "0.1", "--families",
        "exponential,integer", "--time-limit", "1", "--out", str(tmp_path),
    )  # fmt: skip
    found = read(tmp_path, "exactness")
    assert all(check["passed"] for check in found["checks"][:2])


def test_gradients(tmp_path: Path) -> None:
    run(
        "gradients", "--steps", "2,5", "--sizes", "13", "--batches", "1", "--draws", "2",
        "--methods", "obtf; balanced, upper_bound; matching, uniform, logit_gradients",
        "--out", str(tmp_path),
    )  # fmt: skip
    (table,) = json.loads((tmp_path / "gradients.json").read_text())["tables"]
    assert [row[0] for row in table["rows"]][:2] == ["uniform", "obtf"]
    assert table["rows"][0][2:4] == ["1.000", "1.000"]
    assert (tmp_path / "gradients-digits.png").stat().st_size > 5_000


def test_solvers_measure_memory(tmp_path: Path) -> None:
    run(
        "solvers", "--families", "uniform", "--sizes", "65536", "--rates", "0.1", "--solvers",
        "greedy", "--constraints", "off", "--time-limit", "0.5", "--out", str(tmp_path),
    )  # fmt: skip
    solver, n, _, peak = (tmp_path / "memory.csv").read_text().strip().split(",")
    assert (solver, n) == ("greedy", "65536")
    assert 65536 * 8 <= float(peak) < 2**28  # more than one float64 vector, less than n x n


def test_latency(tmp_path: Path) -> None:
    run("latency", "--instances", "3", "--large", "0", "--out", str(tmp_path))
    assert len(read(tmp_path, "latency")["checks"]) == 4


def test_proof(tmp_path: Path) -> None:
    run("proof", "--instances", "6", "--no-recorded", "--out", str(tmp_path))
    found = read(tmp_path, "proof")
    assert len(found["checks"]) == 5 + 4
    assert all(0.0 <= check["value"] <= 1.0 for check in found["checks"])


def test_backends(tmp_path: Path) -> None:
    pytest.importorskip("ortools")
    run(
        "backends", "--seeds", "1", "--sizes", "32", "--solvers", "cpsat", "--families",
        "all-equal,uniform", "--time-limit", "1", "--out", str(tmp_path),
    )  # fmt: skip
    assert {row.solver for row in read_rows(tmp_path / "backends.csv")} == {"auto", "cpsat"}
    ratio = read(tmp_path, "backends")["checks"][0]["value"]
    assert ratio > 1.0


def test_overrun(tmp_path: Path) -> None:
    run(
        "overrun", "--limits", "2e-4,2e-3", "--repeats", "5", "--no-backends", "--cases",
        "top scores; k-center; design", "--sizes", "64,200", "--case-limits", "2e-3", "--out",
        str(tmp_path),
    )  # fmt: skip
    detail, every = read(tmp_path, "overrun")["tables"]
    rows = detail["rows"]
    assert {(row[0], row[1]) for row in rows} == {
        (load, name) for load in ("idle", "busy") for name in ("swap", "exact", "auto")
    }
    # A subset every time, and none was proved before the limit: the instance is hard enough.
    assert all(row[-2:] == [0, 0] for row in rows)
    assert every["rows"][0][0] == "(bare loop)"
    solved = {(row[0], row[1], row[2]) for row in every["rows"][1:]}
    assert {
        (case, "auto", n) for case in ("top scores", "k-center", "design") for n in (64, 200)
    } <= solved
    assert ("k-center", "farthest-first", 200) in solved
    assert all(row[10] == 0 for row in every["rows"][1:])


def test_many(tmp_path: Path) -> None:
    run("many", "--batch", "8", "--n", "32", "--repeats", "1", "--out", str(tmp_path))
    same = read(tmp_path, "many")["checks"][-1]
    assert same["passed"], same


def test_fuzz(tmp_path: Path) -> None:
    settings = ("--seed", "3", "--workers", "1", "--out", str(tmp_path))
    run("fuzz", "--count", "60", *settings)
    [(problems, answers, _, refused, _)] = read(tmp_path, "fuzz")["tables"][0]["rows"]
    assert problems + refused == 60 and answers >= 2 * problems
    kept = (tmp_path / "fuzz.jsonl").read_text()
    assert kept.count("\n") == 1
    run("fuzz", "--count", "60", *settings)  # Nothing is left to do.
    assert (tmp_path / "fuzz.jsonl").read_text() == kept
    assert all(check["passed"] for check in read(tmp_path, "fuzz")["checks"])
    assert "no failure" in run("fuzz", "--seed", "3", "--only", "7")


def test_saved_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "RESULTS", tmp_path / "kept")
    result = output.Result("x", "X", {"a": 1})
    result.table("T", ("a", "b"), [[1.5, float("nan")]])
    result.check("fast enough", 3.0, 2.0, "s", least=False)
    result.write(tmp_path / "runs", save=True)
    for folder in ("kept", "runs"):
        assert read(tmp_path / folder, "x")["tables"][0]["rows"] == [[1.5, None]]
    assert not result.passed and "FAIL" in result.markdown()


@pytest.mark.parametrize(
    ("value", "best", "verdict"),
    [
        (1.9, 3.0, "pass"),
        (2.5, None, "FAIL"),
        (2.5, 1.5, "FAIL"),
        (2.5, 2.25, "out of reach (2.25: by proof)"),
    ],
)
def test_a_target_out_of_reach_is_told_and_does_not_pass(
    value: float, best: float | None, verdict: str
) -> None:
    result = output.Result("x", "X", {})
    reached = None if best is None else (best, "by proof")
    result.check("fast enough", value, 2.0, "s", least=False, best=reached)
    assert f"| {verdict} |" in result.markdown()
    assert result.passed == (verdict == "pass")


def test_firstuse(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run("firstuse", "--uses", "uniform", "--out", str(tmp_path))
    (table,) = json.loads((tmp_path / "firstuse.json").read_text())["tables"]
    (row,) = table["rows"]
    assert row[:2] == ["first step of uniform", 0]
    assert all(float(seconds) >= 0.0 for seconds in row[2:])


def test_firstuse_against_another_checkout(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    other = tmp_path / "other"
    other.mkdir()
    arguments = ("firstuse", "--uses", "uniform", "--against", str(other), "--out", str(tmp_path))
    assert "no folder subsetopt" in " ".join(run(*arguments, code=2).replace("│", " ").split())
    for folder in ("subsetopt", "adapters"):
        (other / folder).symlink_to(Path(__file__).parents[2] / folder)
    run(*arguments)
    times, ratios = json.loads((tmp_path / "firstuse.json").read_text())["tables"]
    assert [row[:3] for row in times["rows"]] == [
        ["first step of uniform", checkout, 0] for checkout in ("this", "other")
    ]
    (row,) = ratios["rows"]
    assert row[0] == "first step of uniform" and all(float(ratio) >= 0.0 for ratio in row[1:])


def test_gradnorms(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run("gradnorms", "--batch", "6", "--repeats", "1", "--out", str(tmp_path))
    (table,) = json.loads((tmp_path / "gradnorms.json").read_text())["tables"]
    assert table["rows"][0][0] == "digits MLP" and len(table["rows"]) == 3
    assert all(float(row[5]) < 1e-9 and float(row[6]) < 1e-3 for row in table["rows"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report",), "run 'python -m benchmarks solvers' first"),
        (("solvers", "--families", "gausian"), "Did you mean 'gaussian'"),
        (("solvers", "--solvers", "gurobbi"), "Did you mean 'gurobi'"),
        (("solvers", "--sizes", "16,x"), "expected comma-separated whole numbers, got '16,x'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
