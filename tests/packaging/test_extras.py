"""What pip installs: by the commands that messages and pages name, and in its least versions."""

from __future__ import annotations

import ast
import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import subsetopt as so
from subsetopt.ledger import opening

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
CODE = [*ROOT.glob("subsetopt/**/*.py"), *ROOT.glob("adapters/**/*.py")]
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
# Where the extra of a command is filled in; the tests below look at what with.
FILLED_IN = {
    "subsetopt/solvers/spec.py",
    "subsetopt/ledger/opening.py",
    "adapters/subsetopt_torch/cli.py",
}
# Packages that `make oldest` does without, and one that only Typer needs; its file gives reasons.
NOT_IN_OLDEST = {"torch", "ortools"}
NOT_STATED = {"click"}
# The package that has a module of another name.
PACKAGES = {"sklearn": "scikit-learn"}


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def extras() -> dict[str, list[str]]:
    return project()["optional-dependencies"]


def installed_by(extra: str) -> set[str]:
    """Return the names of the packages that an extra installs."""
    names = set()
    for requirement in extras()[extra]:
        name, _, inner = re.match(r"([\w-]+)(\[([\w,-]+)\])?", requirement).groups()
        names |= {name} - {"subsetopt"}
        for other in inner.split(",") if name == "subsetopt" else ():
            names |= installed_by(other)
    return names


def texts(path: Path) -> list[str]:
    """Return the strings of a module, with {} for what is filled in, or the text of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [text]
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.JoinedStr):
            parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def test_every_extra_that_is_named_exists() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in [*CODE, *PROSE]
        for text in texts(path)
        for inner in re.findall(r"subsetopt\[([^\]]*)\]", text)
        for name in inner.split(",")
    }
    assert len(named) > 3
    for path, name in named:
        if name == "{}":
            assert path in FILLED_IN
        elif name not in ("NAME", "extra"):  # what the reader fills in
            assert name in extras(), f"{path} names the extra {name!r}"


@pytest.mark.parametrize("spec", so.list_solvers(), ids=lambda spec: spec.name)
def test_the_command_of_a_solver_installs_what_it_requires(spec: so.SolverSpec) -> None:
    if spec.extra:
        assert set(spec.requires) <= installed_by(spec.extra)
        assert spec.install_hint == f"pip install 'subsetopt[{spec.extra}]'"


def test_the_command_of_a_ledger_installs_the_package_of_that_name() -> None:
    named = {row.extra for row in opening._SCHEMES.values()} - {None}
    assert named == {"lmdb", "redis"}
    for name in named:
        assert installed_by(name) == {name}


def test_the_command_of_train_installs_what_it_imports() -> None:
    """An import of the adapter from outside is installed by the extra that its messages name."""
    imported = set()
    for path in ROOT.glob("adapters/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    outside = {PACKAGES.get(name, name) for name in imported - set(sys.stdlib_module_names)}
    outside -= {"subsetopt", "subsetopt_torch", "numpy", "typer", "rich"}
    assert outside == {"torch", "matplotlib", "scikit-learn"}
    assert outside <= installed_by("bench")
    assert installed_by("torch") == {"torch"}


def versions(lines: list[str], comparison: str) -> dict[str, tuple[int, ...]]:
    """Return the version that follows the comparison in each line, without zeros at its end."""
    found = {}
    for line in lines:
        if match := re.match(rf"([\w-]+){comparison}([\d.]+)", line):
            found[match[1]] = tuple(
                int(part) for part in re.sub(r"(\.0)+$", "", match[2]).split(".")
            )
    return found


def test_the_oldest_versions_are_the_stated_ones() -> None:
    lines = (ROOT / "tests/packaging/oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = versions(lines, "==")
    assert len(pinned) == sum(not line.startswith("#") for line in lines)
    stated = versions([*project()["dependencies"], *itertools.chain(*extras().values())], ">=")
    assert set(pinned) - set(stated) == NOT_STATED
    assert all(pinned[name] == stated[name] for name in set(pinned) - NOT_STATED)
    needed = set(versions(project()["dependencies"], ">="))
    for extra in ("torch", "gurobi", "ortools", "lmdb", "redis"):
        needed |= installed_by(extra)
    assert needed - NOT_IN_OLDEST <= set(pinned)
