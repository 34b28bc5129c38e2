"""Imports point down only, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The longest prefix decides. A new module has to be entered: say which layer it belongs to.
LAYERS = {
    "subsetopt.backends": 0,
    "subsetopt.bounds": 0,
    "subsetopt.budget": 0,
    "subsetopt.clients": 0,
    "subsetopt.cone": 0,
    "subsetopt.constraints": 0,
    "subsetopt.coverage_form": 0,
    "subsetopt.errors": 0,
    "subsetopt.inclusion": 0,
    "subsetopt.gains": 0,
    "subsetopt.instances": 0,
    "subsetopt.kernels": 0,
    "subsetopt.lagrangian_form": 0,
    "subsetopt.lattice_form": 0,
    "subsetopt.milp": 0,
    "subsetopt.milp_cpsat": 0,
    "subsetopt.milp_gurobi": 0,
    "subsetopt.milp_mathopt": 0,
    "subsetopt.objectives": 0,
    "subsetopt.partial": 0,
    "subsetopt.polytope": 0,
    "subsetopt.pool": 0,
    "subsetopt.problem": 0,
    "subsetopt.program": 0,
    "subsetopt.program_mathopt": 0,
    "subsetopt.program_search": 0,
    "subsetopt.seeding": 0,
    "subsetopt.solution": 0,
    "subsetopt.solver": 0,
    "subsetopt.starts": 0,
    "subsetopt.status": 0,
    "subsetopt.vector_form": 0,
    "subsetopt.vector_search": 0,
    "subsetopt.solvers": 1,
    "subsetopt.auto": 2,
    "subsetopt.checks": 0,
    "subsetopt.certificate": 2,
    "subsetopt.front": 2,
    "subsetopt.many": 2,
    "subsetopt.registry": 2,
    "subsetopt.rows": 2,
    "subsetopt.spec": 2,
    "subsetopt.testing": 2,
    "subsetopt.warm": 2,
    "subsetopt.__main__": 3,
    "subsetopt.cli": 3,
    "subsetopt.dataset": 3,
    "subsetopt.ledger": 3,
    "subsetopt.policies": 3,
    "subsetopt.proxy": 3,
    "subsetopt_torch": 4,
}
# The package itself hands names of layers 0 to 3 on, and belongs to no layer below the third.
FACADE = "subsetopt"

# Where a package from outside may be imported at all.
OUTSIDE = {
    "numpy": ("subsetopt", "subsetopt_torch"),
    "array_api_compat": ("subsetopt.policies", "subsetopt_torch"),
    "numba": ("subsetopt.kernels",),
    "llvmlite": ("subsetopt.kernels",),
    "gurobipy": ("subsetopt.milp_gurobi", "subsetopt.solvers.gurobi_"),
    "ortools": ("subsetopt.solvers.ortools_",),
    "rich": ("subsetopt.cli", "subsetopt_torch"),
    "typer": ("subsetopt.cli", "subsetopt_torch"),
    "torch": ("subsetopt_torch",),
    "sklearn": ("subsetopt_torch",),
    "pyarrow": ("subsetopt.ledger", "subsetopt_torch"),
    "ml_dtypes": ("subsetopt.instances",),
    "matplotlib": ("subsetopt_torch",),
}


def modules() -> dict[str, Path]:
    """Return every module of both packages by dotted name."""
    found = {}
    for base, package in ((ROOT, "subsetopt"), (ROOT / "adapters", "subsetopt_torch")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def layer_of(module: str) -> int | None:
    fitting = [prefix for prefix in LAYERS if within(module, prefix)]
    return LAYERS[max(fitting, key=len)] if fitting else None


def imports(path: Path, *, top_level: bool = False) -> Iterator[str]:
    """Return every name a file imports, with the attribute where that is itself a module.

    ``top_level`` leaves out what functions and ``if TYPE_CHECKING`` import.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                yield dotted if dotted in MODULES else str(node.module)


def own(name: str) -> bool:
    return within(name, "subsetopt") or within(name, "subsetopt_torch")


def test_every_module_has_a_layer() -> None:
    assert [name for name in MODULES if name != FACADE and layer_of(name) is None] == []


@pytest.mark.parametrize("module", [name for name in MODULES if name != FACADE])
def test_imports_point_down(module: str) -> None:
    layer = layer_of(module)
    assert layer is not None
    for imported in filter(own, imports(MODULES[module])):
        if imported == FACADE:
            assert layer >= 3, f"{module} imports the package itself"
            continue
        target = layer_of(imported)
        assert target is not None and target <= layer, f"{module} (L{layer}) imports {imported}"


def test_the_package_imports_nothing_of_the_adapter() -> None:
    assert not any(within(name, "subsetopt_torch") for name in imports(MODULES[FACADE]))


def test_solvers_never_import_each_other() -> None:
    solvers = [name for name in MODULES if name.startswith("subsetopt.solvers.")]
    assert len(solvers) > 5
    for name in solvers:
        siblings = [i for i in imports(MODULES[name]) if within(i, "subsetopt.solvers")]
        assert siblings == [], f"{name} imports {siblings}"


def test_modules_do_not_import_in_circles() -> None:
    graph = {
        name: {
            i
            for i in imports(path, top_level=True)
            # A module imports its own package before it runs; that is no circle.
            if i in MODULES and i != name and not within(name, i)
        }
        for name, path in MODULES.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_the_adapter_uses_public_names_only() -> None:
    for name, path in MODULES.items():
        if not within(name, "subsetopt_torch"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and own(str(node.module)):
                private = [a.name for a in node.names if a.name.startswith("_")]
                assert private == [], f"{name} imports {private} from {node.module}"


def test_packages_from_outside_stay_in_their_places() -> None:
    for name, path in MODULES.items():
        for imported in imports(path):
            package = imported.partition(".")[0]
            if own(imported) or package in sys.stdlib_module_names:
                continue
            places = OUTSIDE.get(package)
            assert places is not None, f"{name} imports {package}, which is in no table"
            assert any(within(name, place) for place in places), f"{name} imports {package}"
