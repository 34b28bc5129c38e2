"""``subsetopt train`` from outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import typer
from typer.testing import CliRunner

import subsetopt as so
from subsetopt.cli import main
from subsetopt_torch.cli import train

QUICK = ["--seeds", "1", "--epochs", "1"]


def call(*arguments: str) -> tuple[str, BaseException | None]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("train")(train)
    result = CliRunner().invoke(app, list(arguments))
    return result.output, result.exception


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SUBSETOPT_DATA", raising=False)


def test_digits(tmp_path: Path) -> None:
    output, error = call(*QUICK, "--policy", "obtf", "--policy", "small-loss", "--out", "made/here")
    assert error is None, output
    for part in ("full batch", "uniform", "obtf", "small-loss", "residual", "Written: made/here"):
        assert part in output
    folder = tmp_path / "made" / "here"
    assert sorted(p.name for p in folder.iterdir()) == ["accuracy.png", "results.json"]
    content = json.loads((folder / "results.json").read_text())
    assert [run["method"] for run in content["runs"]] == [
        "full batch",
        "uniform",
        "obtf",
        "small-loss",
    ]
    assert content["machine"]["torch_threads"] == 1


def test_policies_that_remember_their_steps_get_a_picture(tmp_path: Path) -> None:
    output, error = call(
        *QUICK, "--policy", "adaselection", "--policy", "importance", "--out", "made"
    )
    assert error is None, output
    pictures = {p.name for p in (tmp_path / "made").iterdir() if p.suffix == ".png"}
    assert pictures == {"accuracy.png", "adaselection.png", "importance.png"}
    content = json.loads((tmp_path / "made" / "results.json").read_text())
    curves = {run["method"]: run["policy_curves"] for run in content["runs"]}
    assert set(curves["adaselection"]) == {"big-loss", "small-loss", "uniform"}
    steps, tau = curves["importance"]["tau"]
    assert len(steps) == len(tau) > 0 and tau[-1] > tau[0]
    assert curves["uniform"] == {}


def test_an_interrupt_keeps_the_runs_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from subsetopt_torch.experiment import comparison

    def interrupted(settings, data, method, seed, report):
        if method == "obtf":
            raise KeyboardInterrupt
        return run_one(settings, data, method, seed, report)

    run_one = comparison.run_one
    monkeypatch.setattr(comparison, "run_one", interrupted)
    monkeypatch.setattr(sys, "argv", ["subsetopt", "train", *QUICK, "--out", "made"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    content = json.loads((tmp_path / "made" / "results.json").read_text())
    assert [run["method"] for run in content["runs"]] == ["full batch", "uniform"]
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["results.json"]


def test_seeds_begin_where_asked(tmp_path: Path) -> None:
    output, error = call(*QUICK, "--first-seed", "7", "--out", "made")
    assert error is None, output
    content = json.loads((tmp_path / "made" / "results.json").read_text())
    assert {run["seed"] for run in content["runs"]} == {7}


def test_options_of_policies(tmp_path: Path) -> None:
    def residuals(out: str, *options: str) -> dict[str, float]:
        output, error = call(*QUICK, "--policy", "obtf", *options, "--out", out)
        assert error is None, output
        content = json.loads((tmp_path / out / "results.json").read_text())
        assert content["settings"]["policy_options"] == (
            {"obtf": {"choices": 1}} if options else {}
        )
        return {run["method"]: run["residual"]["median"] for run in content["runs"]}

    plain, first_match = residuals("a"), residuals("b", "--policy-option", "obtf:choices=1")
    assert plain["obtf"] != first_match["obtf"] and plain["uniform"] == first_match["uniform"]


def test_the_folder_has_a_default(tmp_path: Path) -> None:
    output, error = call(*QUICK, "--rate", "0.5")
    assert error is None, output
    assert (tmp_path / "runs" / "train-digits" / "results.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digts"], "no data set named 'digts'. Did you mean 'digits'"),
        (["--policy", "obft"], "no policy named 'obft'. Did you mean 'obtf'"),
        (["--rate", "1.5"], r"rate must be in \(0, 1\], got 1.5"),
        (["--rate", "nan"], r"rate must be in \(0, 1\], got nan"),
        (["--solver", "swop"], "no solver named 'swop'"),
        (["--policy-option", "choices"], "must be policy:name=value, got 'choices'"),
        (["--policy-option", "chioces=2"], "Did you mean 'choices'"),
        (["--policy-option", "choices=two"], "choices must be an integer >= 1, got 'two'"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--time-limit", "-1"], "time_limit must be at least 0"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--data", "mnist"], r"needs a data folder\. .*published at"),
        (["--data", "mnist", "--data-dir", "nowhere"], "lacks train-images"),
        (["--out", "file/below"], "cannot write into file/below: .*Pass another --out"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(arguments: list[str], message: str) -> None:
    Path("file").write_text("in the way")
    _, error = call(*arguments)
    assert isinstance(error, so.SubsetOptError)
    assert "\n" not in str(error)
    with pytest.raises(so.SubsetOptError, match=message):
        raise error
    assert not list(Path.cwd().rglob("results.json"))


@pytest.mark.parametrize(
    ("there", "line"),
    [
        ((), "torch and matplotlib, which are not installed: pip install 'subsetopt[bench]'"),
        (("torch",), "matplotlib, which is not installed: pip install 'subsetopt[bench]'"),
        (("matplotlib",), "torch, which is not installed: pip install 'subsetopt[torch]'"),
    ],
)
def test_packages_that_are_missing(
    there: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "found" if name in there else None)
    _, error = call(*QUICK)
    assert isinstance(error, so.SubsetOptError)
    assert str(error) == f"the command 'train' needs {line}"
