"""A place for a ledger in every medium."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from subsetopt.ledger import Ledger

sys.path.insert(0, str(Path(__file__).parent))

_DATABASES = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server with many databases."""
    from servers import running_server

    with running_server(tmp_path_factory.mktemp("redis"), "--databases", "2000") as url:
        yield url


@pytest.fixture(params=["dense", "lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that is not there yet."""
    if request.param == "redis":
        return f"{request.getfixturevalue('server')}/{next(_DATABASES)}"
    if request.param == "lmdb":
        pytest.importorskip("lmdb", reason="needs the package lmdb")
    return f"{request.param}:{tmp_path / 'recorded'}"


@pytest.fixture
def other_url(url: str, tmp_path: Path) -> str:
    """The URL of another ledger in the same medium."""
    if url.startswith("redis"):
        return f"{url.rpartition('/')[0]}/{next(_DATABASES)}"
    return f"{url.partition(':')[0]}:{tmp_path / 'other'}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        yield opened
