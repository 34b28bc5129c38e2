"""Settings of the whole suite."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

# Kernels compile on first use, so the first example of a property may take seconds.
settings.register_profile(
    "subsetopt", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("subsetopt")


def _drop_stale_kernels() -> None:
    """Delete compiled kernels older than any kernel's source.

    Numba compiles anew when a function's own file changes, but not when a function it calls does.
    """
    folder = Path(__file__).parents[1] / "subsetopt" / "kernels"
    newest = max(source.stat().st_mtime for source in folder.rglob("*.py"))
    for index in folder.rglob("__pycache__/*.nbi"):
        if index.stat().st_mtime < newest:
            index.unlink(missing_ok=True)


_drop_stale_kernels()
