"""What ``import subsetopt`` loads, and how long it takes."""

from __future__ import annotations

import subprocess
import sys


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


_LOADED = "import sys; {}; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"


def loaded(statement: str) -> set[str]:
    return set(python(_LOADED.format(statement)).split())


def test_importing_loads_numpy_and_nothing_else_from_outside() -> None:
    more = loaded("import subsetopt") - loaded("import numpy.random") - sys.stdlib_module_names
    assert more == {"subsetopt"}


def test_stating_and_verifying_a_problem_loads_nothing_more() -> None:
    code = (
        "import subsetopt as so; p = so.Problem(so.TopScores([1.0, 2.0]), 1); "
        "so.list_solvers(); assert so.verify(p, so.solve(p, 'topk'))"
    )
    more = loaded(code) - loaded("import numpy.random") - sys.stdlib_module_names
    assert more == {"subsetopt"}


def test_importing_the_adapter_package_loads_no_torch() -> None:
    assert "torch" not in loaded("import subsetopt_torch")


def test_importing_takes_little_longer_than_numpy() -> None:
    code = (
        "import time, numpy; start = time.perf_counter(); import subsetopt; "
        "print(time.perf_counter() - start)"
    )
    assert min(float(python(code)) for _ in range(7)) < 0.15


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
