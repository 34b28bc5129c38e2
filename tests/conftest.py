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
