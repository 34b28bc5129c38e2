"""The extensions of the documentation, and the site that they build."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def extension(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "docs" / "extensions")
        return importlib.import_module(name)


@pytest.fixture(scope="session")
def names() -> ModuleType:
    return extension("public_names")


@pytest.fixture(scope="session")
def parts() -> ModuleType:
    return extension("site_parts")


@pytest.fixture(scope="session")
def mathml() -> ModuleType:
    return extension("mathml")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built strictly."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"),
            *("--doctree-dir", str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "site")),
        ],
        capture_output=True, text=True, cwd=ROOT, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture(scope="session")
def documented(site: Path) -> set[str]:
    """The full names of all Python objects that stand on a page."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    return {
        name for kind, objects in inventory.items() if kind.startswith("py:") for name in objects
    }
