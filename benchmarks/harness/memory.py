"""Peak memory of a solve, in a fresh process of its own so that nothing else is counted.

Timed runs are not disturbed by it. The peak is the high-water mark of resident memory (native
libraries included) during the solve, less what was resident just before it, after a warm-up.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

__all__ = ["MemoryStore", "measure", "peak"]

_PATIENCE = 60.0


def measure(solver: str, n: int, rate: float, constrained: bool, limit: float) -> float:
    """Return the peak in bytes; nan when the solver could not be run."""
    task = json.dumps([solver, n, rate, constrained, limit])
    command = [sys.executable, "-m", "benchmarks.harness.memory", task]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit + _PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return float("nan")
    # A backend may print lines of its own, so only the last line counts.
    return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else float("nan")


class MemoryStore:
    """Peaks on disk, keyed by solver, size and constraints; a re-run goes on where it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peaks: dict[tuple[str, int, bool], float] = {}
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                for line in csv.reader(file):
                    if len(line) == 4:
                        self.peaks[line[0], int(line[1]), line[2] == "True"] = float(line[3])

    def add(self, solver: str, n: int, constrained: bool, peak: float) -> None:
        self.peaks[solver, n, constrained] = peak
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([solver, n, constrained, peak])


def _main(task: str) -> None:
    from benchmarks.harness.families import Case
    from benchmarks.harness.specs import SPECS

    solver, n, rate, constrained, limit = json.loads(task)
    spec = SPECS[solver]
    instance = Case("exponential", n, rate, constrained).instance()
    spec.warm_up()
    before = _reset()
    problem = instance.problem()
    if spec.obstacle(problem) is not None:
        sys.exit(1)
    spec.solve(problem, limit if spec.timed else None, 0)
    print(max(0.0, peak() - before))


def _reset() -> float:
    """Set the high-water mark back where the system allows it, and return it in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return peak()


def peak() -> float:
    """Return the high-water mark of this process's resident memory in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024.0
    import resource

    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    _main(sys.argv[1])
