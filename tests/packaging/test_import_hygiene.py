"""What ``import subsetopt`` loads; ``python -m benchmarks latency`` has how long it takes."""

from __future__ import annotations

import sys

from processes import modules_loaded_by, python


def modules_beyond_numpy(statement: str) -> set[str]:
    numpy_alone = modules_loaded_by("import numpy.random")
    return modules_loaded_by(statement) - numpy_alone - sys.stdlib_module_names


def test_importing_loads_numpy_and_nothing_else_from_outside() -> None:
    more = (
        modules_loaded_by("import subsetopt")
        - modules_loaded_by("import numpy.random")
        - sys.stdlib_module_names
    )
    assert more == {"subsetopt"}


def test_stating_and_verifying_a_problem_loads_nothing_more() -> None:
    code = (
        "import subsetopt as so; p = so.Problem(so.TopScores([1.0, 2.0]), 1); "
        "so.list_solvers(); assert so.verify(p, so.solve(p, 'topk'))"
    )
    more = (
        modules_loaded_by(code) - modules_loaded_by("import numpy.random") - sys.stdlib_module_names
    )
    assert more == {"subsetopt"}


def test_importing_the_adapter_package_loads_no_torch() -> None:
    assert "torch" not in modules_loaded_by("import subsetopt_torch")


def test_importing_leaves_slow_modules_of_the_standard_library_alone() -> None:
    slow = {"importlib.metadata", "multiprocessing", "asyncio", "unittest", "sqlite3", "http"}
    beyond = modules_loaded_by("import subsetopt") - modules_loaded_by("import numpy.random")
    assert not slow & beyond


def test_importing_changes_no_global_state() -> None:
    code = (
        "import signal, warnings, numpy as np\n"
        "def state(): return (np.geterr(), np.get_printoptions(), list(warnings.filters),\n"
        "                     signal.getsignal(signal.SIGINT), repr(np.random.get_state()))\n"
        "before = state()\n"
        "import subsetopt as so\n"
        "so.solve(so.Problem(so.MeanMatching([1.0, 2.0, 4.0]), 1), 'random', seed=0)\n"
        "print(state() == before)"
    )
    assert python(code) == "True\n"
