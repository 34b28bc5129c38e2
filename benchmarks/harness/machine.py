"""What numbers depend on: the machine, the versions, the licences."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import subsetopt as so
from subsetopt.registry import availability

__all__ = ["describe", "lines"]

_PACKAGES = ("numpy", "numba", "gurobipy", "ortools", "torch", "scikit-learn", "lmdb", "redis")


def describe() -> dict[str, Any]:
    """Return machine, versions and date as plain values."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "subsetopt": so.__version__,
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "unavailable": _unavailable(),
    }


def lines(machine: dict[str, Any]) -> list[str]:
    """Return the description as lines for people."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"load {machine['load']} at the start",
        f"Versions: subsetopt {machine['subsetopt']}, Python {machine['python']}, {versions}",
        f"Date: {machine['date']}",
        *(f"Not available: {name}: {why}" for name, why in machine["unavailable"].items()),
    ]


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _unavailable() -> dict[str, str]:
    states = {spec.name: availability(spec.name) for spec in so.list_solvers()}
    return {name: state.reason for name, state in states.items() if not state.usable}
