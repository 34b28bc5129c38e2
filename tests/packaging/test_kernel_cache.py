"""Compiled kernels are kept on disk: across processes, and when the install cannot be written."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOLVE = """
import numpy as np, subsetopt as so
print(so.select(np.arange(40.0) ** 1.5, k=7, solver="greedy").objective, so.__file__)
"""


def _run(install: Path, home: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(install),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", SOLVE], env=environment, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(install) in done.stdout
    return done.stdout


def test_a_second_process_loads_what_the_first_compiled(tmp_path: Path) -> None:
    install, home = tmp_path / "install", tmp_path / "home"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "subsetopt", install / "subsetopt", ignore=ignore)
    home.mkdir()
    # A file where each cache folder would go: what a read-only install looks like to Numba.
    for init in (install / "subsetopt" / "kernels").rglob("__init__.py"):
        (init.parent / "__pycache__").touch()
    first = _run(install, home)
    kept = {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.nb?")}
    assert kept, "nothing was kept under the user's cache folder"
    assert _run(install, home) == first
    again = {path: path.stat().st_mtime_ns for path in (home / "cache").rglob("*.nb?")}
    assert again == kept, "the second process compiled anew"


def imported_by_kernels(module: str) -> set[str]:
    """Return the names that kernels import from a module."""
    return {
        alias.name
        for path in (ROOT / "subsetopt" / "kernels").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }


def test_every_kernel_is_compiled_by_the_decorator_that_survives_a_read_only_install() -> None:
    assert not imported_by_kernels("numba") & {"njit", "jit", "vectorize", "guvectorize"}


def test_a_kernel_is_compiled_again_when_a_constant_that_it_imports_changes() -> None:
    """The stamp of the cache is made of the kernels' own files and of this constant."""
    assert imported_by_kernels("subsetopt.inputs") == {"DECIDED"}
