"""The listing of public names is that of the code: every public change is a visible diff."""

from __future__ import annotations

import difflib
import inspect
from types import ModuleType

import pytest

import subsetopt as so
import subsetopt_torch as st


def test_the_listing_is_that_of_the_code(names: ModuleType) -> None:
    saved = names.LISTING.read_text(encoding="utf-8").splitlines()
    changes = list(difflib.unified_diff(saved, names.listing().splitlines(), lineterm="", n=0))
    assert not changes, (
        "public names changed. If that is meant, record it in CHANGELOG.md and run\n"
        "    python docs/extensions/public_names.py\n" + "\n".join(changes)
    )


@pytest.mark.parametrize("package", [so, st])
def test_every_name_of_a_package_is_listed(names: ModuleType, package: ModuleType) -> None:
    listed = names.listing().splitlines()
    for name in package.__all__:
        starts = (f"class {package.__name__}.{name}", f"def {package.__name__}.{name}(")
        assert any(line.startswith(starts) for line in listed), name


def test_every_name_of_the_listing_stands_on_a_page(
    names: ModuleType, documented: set[str]
) -> None:
    lines = names.LISTING.read_text(encoding="utf-8").splitlines()
    listed = {line.split()[1].partition("(")[0] for line in lines if line[:1].strip()}
    short = {name.rpartition(".")[2] for name in documented}
    assert {name for name in listed if "." in name} <= documented
    assert {name for name in listed if "." not in name} <= short


def test_signatures_are_written_as_in_the_source(names: ModuleType) -> None:
    def example(a: int, *, b: float | None = None, clock=inspect.isclass, **rest: str) -> bool:
        return True

    parameters, returned = names.signature_of(example)
    assert parameters == "(a: int, *, b: float | None = None, clock=..., **rest: str)"
    assert returned == "bool"
