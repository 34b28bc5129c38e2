"""The wheel: what is in it, and what works when only its required packages are there."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import subsetopt as so

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=240,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", target)
    run(*build, ROOT, cwd=ROOT)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and its required packages, no extras.

    The required packages are linked in from the running environment, so that the test needs no
    network: what the wheel's metadata does not ask for is not there.
    """
    home = tmp_path_factory.mktemp("bare") / "env"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    for name in required(wheel):
        link(importlib.metadata.distribution(name), site)
    install = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, *install, wheel, cwd=home)
    return python


def required(wheel: Path) -> set[str]:
    """Return every distribution that the wheel needs without extras, and what those need."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        lines = archive.read(name).decode().splitlines()
    todo = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist: " in line]
    found: set[str] = set()
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        dependency = canonicalize_name(requirement.name)
        if dependency not in found:
            found.add(dependency)
            todo += importlib.metadata.requires(dependency) or []
    return found


def link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Link what a distribution installed into another environment."""
    for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
        source = Path(str(distribution.locate_file(top)))
        target = site / top
        if source.exists() and not target.exists() and top != "__pycache__":
            target.symlink_to(source, target_is_directory=source.is_dir())


def test_required_packages_are_few(wheel: Path) -> None:
    needed = required(wheel)
    assert {"numpy", "numba", "typer", "rich", "array-api-compat"} <= needed
    assert not needed & {"torch", "gurobipy", "ortools", "scikit-learn", "matplotlib", "pandas"}


def test_wheel_holds_both_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "subsetopt",
        "subsetopt_torch",
    }
    assert {"subsetopt/py.typed", "subsetopt_torch/py.typed"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    for package, folder in (("subsetopt", ROOT), ("subsetopt_torch", ROOT / "adapters")):
        sources = {path.relative_to(folder).as_posix() for path in (folder / package).rglob("*.py")}
        assert {n for n in names if n.startswith(f"{package}/") and n.endswith(".py")} == sources


def test_wheel_holds_no_path_of_this_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert str(ROOT).encode() not in content, name
            assert str(Path.home()).encode() + b"/" not in content, name


def test_every_module_imports_without_extras_but_the_backends(bare: Path) -> None:
    code = (
        "import importlib, pkgutil, subsetopt\n"
        "for found in pkgutil.walk_packages(subsetopt.__path__, 'subsetopt.'):\n"
        "    try: importlib.import_module(found.name)\n"
        "    except ModuleNotFoundError as error: print(found.name, error.name)\n"
        "    else: print(found.name, '-')\n"
        "print(subsetopt.__file__)"
    )
    *lines, file = run(bare, "-I", "-c", code, cwd=bare.parent).stdout.splitlines()
    missing = dict(line.split() for line in lines)
    backends = {
        str(spec.target).partition(":")[0]: spec.requires[0]
        for spec in so.list_solvers()
        if spec.extra is not None
    }
    backends |= {"subsetopt.ledger.lmdb_": "lmdb", "subsetopt.ledger.redis_": "redis"}
    assert {"subsetopt.cli", "subsetopt.solvers.swap", "subsetopt.policies.obtf"} <= set(missing)
    for module, package in missing.items():
        expected = backends.get(module, backends.get(module.rpartition(".")[0], "-"))
        assert package.partition(".")[0] in ("-", expected), f"{module} needs {package}"
    assert Path(file).is_relative_to(bare.parents[1])


def test_the_installed_library_solves(bare: Path) -> None:
    code = (
        "import numpy as np, subsetopt as so\n"
        "losses = np.random.default_rng(0).exponential(size=64).astype(np.float32)\n"
        "print(so.select(losses, k=6, seed=0).status.name)"
    )
    assert run(bare, "-I", "-c", code, cwd=bare.parent).stdout == "OPTIMAL\n"


@pytest.mark.parametrize(
    ("solver", "line"),
    [
        ("gurobi", "needs gurobipy, which is not installed: pip install 'subsetopt[gurobi]'"),
        ("cpsat", "needs ortools, which is not installed: pip install 'subsetopt[ortools]'"),
    ],
)
def test_a_missing_backend_names_the_pip_line(bare: Path, solver: str, line: str) -> None:
    code = (
        "import subsetopt as so\n"
        f"try: so.select([1.0, 2.0, 4.0], k=2, solver={solver!r})\n"
        "except so.SolverUnavailableError as error: print(error)"
    )
    assert line in run(bare, "-I", "-c", code, cwd=bare.parent).stdout


def test_the_command_names_the_pip_line(bare: Path, tmp_path: Path) -> None:
    command = bare.with_name("subsetopt")
    done = run(command, "train", "--data", "digits", cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("subsetopt: ") and done.stderr.count("\n") == 1
    assert "needs torch and matplotlib, which are not installed: " in done.stderr
    assert "pip install 'subsetopt[bench]'" in done.stderr
    assert "train" in run(command, "--help", cwd=tmp_path).stdout


def test_the_command_lists_and_solves_without_extras(bare: Path, tmp_path: Path) -> None:
    command = bare.with_name("subsetopt")
    listed = run(command, "solvers", "--json", cwd=tmp_path).stdout
    assert "pip install 'subsetopt[gurobi]'" in listed
    (tmp_path / "losses.csv").write_text("1\n2\n3\n6\n", encoding="utf-8")
    solved = run(command, "solve", "losses.csv", "--k", "2", cwd=tmp_path).stdout
    assert "OPTIMAL" in solved and "2 of 4" in solved
