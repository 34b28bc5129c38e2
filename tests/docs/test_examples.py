"""Every code block of the README and the docs runs; what they say of names and files is true."""

from __future__ import annotations

import html
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import subsetopt as so
from subsetopt import registry
from subsetopt.cli import main
from subsetopt.policies import registry as policies

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return (first line, code) of every fenced block of a language."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in _BLOCK.finditer(text)
        if match[1] == language
    ]


@pytest.fixture
def registries() -> Iterator[None]:
    """Forget what a page registers."""
    solvers = {spec.name for spec in registry.list_solvers()}
    rows = {spec.name for spec in policies.list_policies()}
    yield
    for spec in registry.list_solvers():
        if spec.name not in solvers:
            registry.unregister_solver(spec.name)
    for row in policies.list_policies():
        if row.name not in rows:
            policies.unregister_policy(row.name)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_python_blocks_run_in_order(
    page: Path, registries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module of its own, because dataclasses look the module of a class up.
    module = ModuleType("page_under_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), module.__dict__)
    assert "so" in module.__dict__ or "st" in module.__dict__


def shell_commands() -> list[str]:
    return [
        line.removeprefix("$ ")
        for _, code in blocks(ROOT / "docs" / "cli.md", "console")
        for line in code.splitlines()
        if line.startswith(("$ subsetopt solve",))
    ]


@pytest.mark.parametrize("command", shell_commands())
def test_shell_commands_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    losses = np.random.default_rng(0).exponential(size=128)
    np.save("losses.npy", losses.astype(np.float32))
    np.savetxt("losses.csv", losses)
    with pytest.raises(SystemExit) as stopped:
        main(shlex.split(command)[1:])
    assert stopped.value.code == 0, capsys.readouterr().err
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_command_named_anywhere_exists(page: Path) -> None:
    known = {"solvers", "solve", "train", "select", "COMMAND"}
    named = re.findall(r"(?:\$ |`)subsetopt (\w+)", page.read_text(encoding="utf-8"))
    assert set(named) <= known


def test_every_public_name_has_an_api_entry(documented: set[str], names: ModuleType) -> None:
    assert names.undocumented(documented) == []


def test_a_public_name_without_an_entry_is_reported(names: ModuleType) -> None:
    missing = names.undocumented({"subsetopt.solve"})
    assert "subsetopt.solve" not in missing
    assert {"subsetopt.Problem", "subsetopt_torch.BatchSelector"} <= set(missing)


def test_tables_hold_every_row(parts: ModuleType) -> None:
    solvers, statuses = parts.generated("solvers"), parts.generated("statuses")
    for spec in so.list_solvers():
        assert f"| `{spec.name}` |" in solvers
    for status in so.Status:
        assert f"| `{status.name}` | {status.value} |" in statuses


def test_every_policy_has_a_method_card(parts: ModuleType) -> None:
    table = parts.generated("policies")
    navigation = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines()
    for row in policies.list_policies():
        card = f"methods/{row.name}.md"
        assert (ROOT / "docs" / card).exists(), f"docs/{card} is missing"
        assert f"| [`{row.name}`]({card}) |" in table
        assert f"methods/{row.name}" in navigation


def test_an_unknown_table_is_an_error(parts: ModuleType) -> None:
    with pytest.raises(Exception, match="nothing is generated as 'solver'"):
        parts.generated("solver")


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        ("a < b", "a<b"),
        (r"\Bigl\| r \Bigr\|", "‖r‖"),
        (r"\bigl\lVert r \bigr\rVert", "‖r‖"),
        (r"\arg\max_i x", "argmaxix"),
        (r"\operatorname{rank} A", "rankA"),
    ],
)
def test_formulas_become_mathml(mathml: ModuleType, latex: str, text: str) -> None:
    formula = mathml.to_mathml(latex, "inline")
    assert formula.startswith("<math") and html.unescape(re.sub("<[^>]*>", "", formula)) == text


def test_a_formula_that_cannot_be_shown_is_an_error(mathml: ModuleType) -> None:
    with pytest.raises(Exception, match=r"lacks: \\nosuchcommand"):
        mathml.to_mathml(r"\nosuchcommand x", "inline")
