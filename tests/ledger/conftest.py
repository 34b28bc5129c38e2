"""A place for a ledger in every medium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from subsetopt.ledger import Ledger


@pytest.fixture(params=["dense"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that is not there yet."""
    return f"{request.param}:{tmp_path / 'recorded'}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        yield opened
