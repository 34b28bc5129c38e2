"""The public names: all there, sorted, documented, and never hidden by a module."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import subprocess
import sys
import types

import pytest

import subsetopt as so

# What users' code may rely on.
CONTRACT = """
    Certificate Deadline FacilityLocation KCenter MeanMatching Problem RawResult SamplingDesign
    ScoredMatching Solution SolveContext SolverSpec Status StopReason TopScores VectorMatching
    WeightedScores available_solvers choose_solver inclusion_probabilities
    list_solvers register_solver select select_many solve solve_many verify
    InfeasibleError LedgerError NoSolutionError OptionError ProblemError SolverError
    SolverLicenseError SolverNotFoundError SolverUnavailableError SubsetOptError
    UnsupportedProblemError
""".split()


def test_all_is_sorted_and_complete() -> None:
    assert so.__all__ == sorted(so.__all__)
    assert len(set(so.__all__)) == len(so.__all__)
    assert set(CONTRACT) <= set(so.__all__)


@pytest.mark.parametrize("name", so.__all__)
def test_every_name_is_an_object_with_a_docstring(name: str) -> None:
    value = getattr(so, name)
    assert not isinstance(value, types.ModuleType)
    assert value.__doc__


@pytest.mark.parametrize("name", so.__all__)
def test_no_public_name_is_a_modules_name(name: str) -> None:
    assert importlib.util.find_spec(f"subsetopt.{name}") is None


def test_names_survive_a_first_solve_and_every_import() -> None:
    code = (
        "import importlib, pkgutil, subsetopt as so\n"
        "before = {name: getattr(so, name) for name in so.__all__}\n"
        "so.select([3.0, 1.0, 2.0, 5.0], k=2, seed=0).require()\n"
        "for found in pkgutil.walk_packages(so.__path__, 'subsetopt.'):\n"
        "    importlib.import_module(found.name)\n"
        "after = {name: getattr(so, name) for name in so.__all__}\n"
        "print(all(before[name] is after[name] for name in before), len(before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == f"True {len(so.__all__)}\n"


def test_every_error_is_a_subsetopt_error() -> None:
    errors = [getattr(so, name) for name in so.__all__ if name.endswith("Error")]
    assert len(errors) == 11
    assert all(issubclass(error, so.SubsetOptError) for error in errors)


@pytest.mark.parametrize("package", ["subsetopt", "subsetopt_torch"])
def test_every_all_names_what_is_there(package: str) -> None:
    if package == "subsetopt_torch":
        pytest.importorskip("torch")
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        module = importlib.import_module(found.name)
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{found.name}.__all__ names {name}"


def test_one_version_number() -> None:
    assert importlib.metadata.version("subsetopt") == so.__version__
