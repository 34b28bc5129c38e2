"""Imports point down only, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import subsetopt as so

ROOT = Path(__file__).parents[2]

# The longest prefix decides, so a new module belongs to its folder's layer. At the root of
# ``subsetopt`` a module that is not named here belongs to the front door.
LAYERS = {
    "subsetopt.errors": 0,
    "subsetopt.status": 0,
    "subsetopt.budget": 0,
    "subsetopt.seeding": 0,
    "subsetopt.inputs": 0,
    "subsetopt.nnls": 0,
    "subsetopt.quiet": 0,
    "subsetopt.constraints": 0,
    "subsetopt.objectives": 0,
    "subsetopt.problem": 0,
    "subsetopt.solution": 0,
    "subsetopt.instances": 0,
    "subsetopt.kernels": 0,
    "subsetopt.solvers": 1,
    "subsetopt": 2,
    "subsetopt.policies": 3,
    "subsetopt.proxy": 3,
    "subsetopt.ledger": 3,
    "subsetopt.cli": 3,
    "subsetopt.__main__": 3,
    "subsetopt_torch": 4,
}
# The package itself hands names of layers 0 to 3 on, and belongs to no layer below the third.
FACADE = "subsetopt"

# Where a package from outside may be imported at all.
OUTSIDE: dict[str, tuple[str, ...]] = {
    "numpy": ("subsetopt", "subsetopt_torch"),
    "array_api_compat": ("subsetopt.policies", "subsetopt_torch"),
    **dict.fromkeys(["numba", "llvmlite"], ("subsetopt.kernels",)),
    **dict.fromkeys(["gurobipy", "ortools"], ("subsetopt.solvers.mip",)),
    **dict.fromkeys(["rich", "typer"], ("subsetopt.cli", "subsetopt_torch")),
    **dict.fromkeys(["torch", "sklearn", "pyarrow", "matplotlib"], ("subsetopt_torch",)),
    "lmdb": ("subsetopt.ledger.lmdb_",),
    "redis": ("subsetopt.ledger.redis_",),
    "ml_dtypes": ("subsetopt.instances",),
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
    solvers = {str(spec.target).partition(":")[0] for spec in so.list_solvers()}
    assert len(solvers) > 5
    for name in solvers:
        others = [i for i in imports(MODULES[name]) if i in solvers and i != name]
        assert others == [], f"{name} imports {others}"


def test_kernels_import_kernels_only() -> None:
    """The constants of the input checks excepted, which are numbers."""
    for name in MODULES:
        if within(name, "subsetopt.kernels"):
            others = [
                i
                for i in filter(own, imports(MODULES[name]))
                if not within(i, "subsetopt.kernels") and i != "subsetopt.inputs"
            ]
            assert others == [], f"{name} imports {others}"


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
