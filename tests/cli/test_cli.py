"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer

import subsetopt as so
from subsetopt import cli
from subsetopt.registry import Availability

LOSSES = np.random.default_rng(0).exponential(size=128)


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    np.save("losses.npy", LOSSES.astype(np.float32))

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        captured = capsys.readouterr()
        return Outcome(stopped.value.code, captured.out, captured.err)

    return call


def assert_one_line(outcome: Outcome, *parts: str, code: int = 2) -> None:
    assert outcome.code == code
    assert outcome.err.count("\n") == 1 and outcome.err.endswith("\n")
    assert outcome.err.startswith("subsetopt: ")
    for part in parts:
        assert part in outcome.err


def test_version(run) -> None:
    assert run("--version") == Outcome(0, f"subsetopt {so.__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command(run, arguments: tuple[str, ...]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 0
    for command in ("solvers", "solve", "train"):
        assert command in outcome.out


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom subsetopt.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print([m for m in ('torch', 'numba') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.rstrip().endswith("[]")


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "subsetopt", "--version"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"subsetopt {so.__version__}\n"


def test_solvers_has_every_row(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    outcome = run("solvers")
    assert outcome.code == 0 and outcome.err == ""
    for spec in so.list_solvers():
        assert spec.name in outcome.out


def test_solvers_fit_80_columns_without_broken_words(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lost = Availability(installed=False, importable=False, licensed=False, reason="not here: why")
    availability = cli.availability
    monkeypatch.setattr(
        cli, "availability", lambda name: lost if name == "random" else availability(name)
    )
    text = run("solvers").out
    # A line on a solver that is missing stays whole, so that its command can be copied.
    table = [line for line in text.splitlines() if " is not available: " not in line]
    assert max(map(len, table)) <= 80 and "…" not in text
    words = text.replace(",", " ").split()
    for spec in so.list_solvers():
        assert {spec.name, *" ".join(spec.objectives).replace("[", " [").split()} <= set(words)
    assert {"include", "warm_start", "time_limit", "available"} <= set(words)
    assert "random is not available: not here: why" in text


def test_solvers_as_json_agrees_with_the_registry(run) -> None:
    rows = {row["name"]: row for row in json.loads(run("solvers", "--json").out)}
    assert list(rows) == [spec.name for spec in so.list_solvers()]
    usable = so.available_solvers()
    for spec in so.list_solvers():
        row = rows[spec.name]
        assert row["exact"] is spec.exact
        assert set(row["features"]) == spec.features
        assert row["available"] is (spec.name in usable)
        assert (row["why_not"] is None) is row["available"]


def test_solve_for_people(run) -> None:
    outcome = run("solve", "losses.npy", "--rate", "0.1", "--seed", "0")
    assert outcome.code == 0 and outcome.err == ""
    for part in ("OPTIMAL: Proved", "13 of 128", "relative residual", "bound", "gap", "swap"):
        assert part in outcome.out


def test_solve_as_json_is_the_solution(run) -> None:
    facts = json.loads(run("solve", "losses.npy", "--k", "13", "--seed", "3", "--json").out)
    solution = so.select(LOSSES.astype(np.float32), k=13, seed=3)
    assert facts["indices"] == solution.indices.tolist()
    assert facts["weights"] == solution.weights.tolist()
    assert facts["objective"] == solution.objective
    assert facts["relative_residual"] == solution.objective / solution.scale
    assert facts["status"] == solution.status.name
    assert facts["status_text"] == solution.status.value
    assert facts["n"] == 128 and facts["k"] == 13


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("column.csv", "1\n2\n3\n6\n"),
        ("header.csv", "loss\n1\n2\n3\n6\n"),
        ("row.csv", "1,2,3,6\n"),
        ("row.txt", "# epoch 3\n1 2 3 6"),
        ("bom.csv", "\ufeff1\n2\n3\n6\n\n"),
        ("excel.csv", "1;2;3;6\n"),
    ],
)
def test_text_files(run, name: str, text: str) -> None:
    Path(name).write_text(text, encoding="utf-8")
    facts = json.loads(run("solve", name, "--k", "2", "--json").out)
    assert facts["n"] == 4 and facts["objective"] == 0.5


def test_solvers_with_commas_fall_over(run) -> None:
    outcome = run("solve", "losses.npy", "--k", "5", "--solver", "half-and-half, random", "--json")
    assert json.loads(outcome.out)["solver"] == "half-and-half"


def test_at_most(run) -> None:
    Path("l.csv").write_text("10\n-10\n-10\n", encoding="utf-8")
    facts = json.loads(run("solve", "l.csv", "--k", "2", "--cardinality", "at_most", "--json").out)
    # The target is -10/3; -10/2 is nearer than any pair or nothing.
    assert len(facts["indices"]) == 1 and facts["objective"] == pytest.approx(5 / 3)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".json"])
def test_output_holds_the_choice(run, suffix: str) -> None:
    path = Path("chosen" + suffix)
    outcome = run("solve", "losses.npy", "--k", "4", "--seed", "0", "--output", str(path), "--json")
    indices = json.loads(outcome.out)["indices"]
    if suffix == ".npy":
        assert np.load(path).tolist() == indices
    elif suffix == ".csv":
        table = np.loadtxt(path, delimiter=",", skiprows=1)
        assert table[:, 0].tolist() == indices
        assert table[:, 1].tolist() == [0.25] * 4
    else:
        assert json.loads(path.read_text(encoding="utf-8"))["indices"] == indices


def test_a_limit_of_zero_ends_with_code_1_and_the_sentence(run) -> None:
    outcome = run("solve", "losses.npy", "--k", "4", "--time-limit", "0")
    assert_one_line(outcome, so.Status.NO_SOLUTION.value, code=1)
    assert "NO_SOLUTION" in outcome.out


def test_json_without_an_answer_is_still_json(run) -> None:
    outcome = run("solve", "losses.npy", "--k", "4", "--time-limit", "0", "--json")
    facts = json.loads(outcome.out)
    assert outcome.code == 1
    assert facts["indices"] == [] and facts["objective"] is None


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("solve", "none.npy", "--k", "1"), ("none.npy", "No such file")),
        (("solve", "losses.npy"), ("pass k", "rate")),
        (("solve", "losses.npy", "--k", "3", "--rate", "0.1"), ("k or rate, not both",)),
        (("solve", "losses.npy", "--k", "200"), ("k = 200", "n = 128")),
        (("solve", "losses.npy", "--k", "many"), ("--k", "valid integer")),
        (("solve", "losses.npy", "--k", "3", "--solver", "gruobi"), ("Did you mean 'gurobi'?",)),
        (("solve", "losses.npy", "--k", "3", "--solver", ""), ("no solver named ''",)),
        (("solve", "losses.npy", "--k", "3", "--time-limit", "-1"), ("time_limit", "-1")),
        (("solve", "losses.npy", "--k", "3", "--seed", "-1"), ("nonnegative",)),
        (("solve", "losses.npy", "--k", "3", "--cardinality", "most"), ("'at_most'", "'most'")),
        (("solve", "losses.npy", "--k", "3", "--output", "x.doc"), (".npy, .csv or .json",)),
        (("solve", "losses.npy", "--k", "3", "--output", "no/x.npy"), ("no/x.npy", "No such")),
        (("solve", "losses.npy", "--k", "3", "--output", "d.npy"), ("d.npy is a folder",)),
        (("solve", "losses.npy", "--k", "3", "--fast"), ("--fast",)),
        (("solve",), ("LOSSES",)),
        (("solv", "losses.npy"), ("solv",)),
        (("solve", ".", "--k", "1"), (".npy, .csv or .txt",)),
    ],
)
def test_mistakes_are_one_line_and_code_2(run, monkeypatch, arguments, parts) -> None:
    Path("d.npy").mkdir()
    monkeypatch.setattr(cli, "_warm_up", lambda names: pytest.fail("kernels were loaded"))
    outcome = run(*arguments)
    assert_one_line(outcome, *parts)
    assert "Traceback" not in outcome.err and outcome.out == ""


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", b"1\ntwo\n3\n", ("line 2", "'two'")),
        ("a.csv", b"1\n\n3\n", ("a.csv, line 2, column 1", "missing")),
        ("a.csv", b"", ("a.csv holds no numbers",)),
        ("a.csv", b"1,2\n3,4\n", ("2 rows of up to 2 columns", "one column or one row")),
        ("a.csv", b"1\nnan\n3\n", ("finite", "1 (nan)")),
        ("a.csv", b"\xff\xfe\x00", ("not a text file",)),
        ("a.npy", b"hello", ("a.npy", "not a NumPy array")),
        ("a.npy", b"", ("a.npy", "not a NumPy array")),
        ("a.dat", b"1\n", (".npy, .csv or .txt",)),
    ],
)
def test_bad_files_are_one_line(run, name: str, content: bytes, parts: tuple[str, ...]) -> None:
    Path(name).write_bytes(content)
    assert_one_line(run("solve", name, "--k", "1"), *parts)


def test_standard_input(run, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\n3\n6\n")))
    facts = json.loads(run("solve", "-", "--k", "2", "--json").out)
    assert facts["n"] == 4 and facts["objective"] == 0.5


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_many_indices_do_not_fill_the_terminal(run, form: tuple[str, ...]) -> None:
    np.save("many.npy", np.random.default_rng(0).exponential(size=4000))
    many = ("solve", "many.npy", "--rate", "0.5", "--seed", "0", "--solver", "random")
    outcome = run(*many, "--output", "chosen.json", *form)
    assert outcome.code == 0 and outcome.out.count("\n") < 25
    assert "chosen.json" in outcome.out or form
    assert Path("chosen.json").read_text(encoding="utf-8").count("\n") < 25


def test_a_full_disk_is_one_line_and_keeps_the_old_file(run, monkeypatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Path("o.json").write_text("old")
    monkeypatch.setattr("os.fsync", full)
    outcome = run("solve", "losses.npy", "--k", "3", "--solver", "random", "--output", "o.json")
    assert_one_line(outcome, "o.json", "No space left on device")
    assert Path("o.json").read_text() == "old"
    assert sorted(p.name for p in Path().iterdir()) == ["losses.npy", "o.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "subsetopt", "--help"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2 and done.stderr == "subsetopt: error: No space left on device\n"


def test_a_matrix_is_refused(run) -> None:
    np.save("matrix.npy", np.ones((3, 3)))
    assert_one_line(run("solve", "matrix.npy", "--k", "1"), "one-dimensional", "(3, 3)")


class _Distribution:
    """What the command line reads of a distribution that adds a command."""

    name = "other"

    class metadata:  # noqa: N801
        @staticmethod
        def get_all(_: str) -> list[str]:
            return ["heavy"]


def _with_command(monkeypatch: pytest.MonkeyPatch, value: str, path: Path, source: str) -> None:
    (path / "other_cli.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(path)
    monkeypatch.delitem(sys.modules, "other_cli", raising=False)
    entry = EntryPoint("other", value, "subsetopt.commands")
    vars(entry)["dist"] = _Distribution
    monkeypatch.setattr(cli.importlib.metadata, "entry_points", lambda group: [entry])


_HELLO = """
import typer

def command(times: int = 1):
    "Say hello."
    print("hello " * times)

app = typer.Typer()
app.command("hello")(command)
app.command("again")(command)
"""


@pytest.mark.parametrize(
    ("value", "call"), [("command", ["other"]), ("app", ["other", "hello"])], ids=str
)
def test_another_package_can_add_a_command(run, monkeypatch, tmp_path, value, call) -> None:
    _with_command(monkeypatch, f"other_cli:{value}", tmp_path, _HELLO)
    assert "other" in run("--help").out
    assert "other_cli" not in sys.modules
    assert run(*call, "--times", "2").out == "hello hello \n"
    assert_one_line(run(*call, "--tmies", "2"), "--tmies")


def test_a_missing_package_is_one_line_with_the_extra(run, monkeypatch, tmp_path: Path) -> None:
    _with_command(monkeypatch, "other_cli:command", tmp_path, "import heavy.part")
    assert_one_line(run("other"), "'subsetopt other' needs heavy", "pip install 'other[heavy]'")
    assert "other" in run("--help").out


def test_a_missing_package_without_an_extra(run, monkeypatch, tmp_path: Path) -> None:
    _with_command(monkeypatch, "other_cli:command", tmp_path, "import light_one")
    assert_one_line(run("other"), "needs light_one: pip install light_one")


def test_an_interrupt_is_told(run, monkeypatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(so, "select", interrupted)
    outcome = run("solve", "losses.npy", "--k", "3")
    assert outcome.code == 130 and "Traceback" not in outcome.err


def test_an_interrupted_search_prints_its_best_answer(run, monkeypatch) -> None:
    select = so.select

    def interrupted(*arguments: object, **keywords: object) -> so.Solution:
        answer = select(*arguments, **keywords)  # type: ignore[arg-type]
        return dataclasses.replace(answer, stop_reason=so.StopReason.INTERRUPTED)

    monkeypatch.setattr(so, "select", interrupted)
    outcome = run("solve", "losses.npy", "--k", "3", "--json", "--output", "picked.csv")
    assert outcome.code == 130 and outcome.err.strip() == "subsetopt: interrupted"
    facts = json.loads(outcome.out)
    assert facts["stop_reason"] == "INTERRUPTED" and len(facts["indices"]) == 3
    assert len(Path("picked.csv").read_text().splitlines()) == 4


def test_a_bug_keeps_its_traceback(monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(so, "list_solvers", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main(["solvers"])


def test_commands_are_what_typer_takes() -> None:
    assert isinstance(cli._app([]), typer.Typer)
