"""The medium on a Redis or Valkey server."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import redis
from numpy.typing import NDArray
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from subsetopt.errors import LedgerError, OptionError
from subsetopt.inputs import checked_positive
from subsetopt.ledger.keyed.keys import INTEGER_SIZE, decoded, encoded
from subsetopt.ledger.keyed.values import from_values, sift, to_values
from subsetopt.ledger.records import RECORD, RECORD_SIZE, LedgerStats, LedgerWarning, Rows
from subsetopt.ledger.redis_.scripts import DELETE, READ, WRITE, key_of, place_of

__all__ = ["RedisMedium", "open_redis"]

_FORMAT = b"1"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
# Records per script: the server answers nobody else while one runs, which takes some 20 ms.
_PIECE = 16_384
_BUCKETS_AT_ONCE = 1000
# A call whose answer was lost is repeated; recording twice is recording once.
_REPEATS = 3


def open_redis(
    url: str, *, readonly: bool, durable: bool, name: str = "subsetopt", timeout: float = 10.0
) -> RedisMedium:
    """Open the ledger of a name on the server of a URL."""
    if durable:
        raise OptionError(
            "durable=True is a setting of the server: open the ledger without it, and set "
            "'appendonly yes' and 'appendfsync always' there."
        )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(
            f"name must be a word of letters, digits, '_', '.' and '-', got {name!r}."
        )
    return RedisMedium(
        url, readonly=readonly, name=name, timeout=checked_positive("timeout", timeout)
    )


class RedisMedium:
    """Records on a server.

    Parameters
    ----------
    url
        Of the server.
    readonly
        Whether nothing will be written.
    name
        What all keys begin with.
    timeout
        Seconds to wait for an answer.
    """

    def __init__(self, url: str, *, readonly: bool, name: str, timeout: float) -> None:
        self.url = _without_password(url)
        self.damaged = 0
        self.recovered = ""  # Recovery is the server's: what it acknowledged is there or is not.
        self._prefix = f"{name}:".encode()
        self._head = f"{name}:ledger".encode()
        try:
            self._client = redis.Redis.from_url(
                url.replace("valkey", "redis", 1) if url.startswith("valkey") else url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(ExponentialBackoff(), _REPEATS),
            )
        except ValueError as error:
            raise OptionError(f"{self.url!r} is no URL of a server: {error}") from None
        self._write = self._client.register_script(WRITE)
        self._read = self._client.register_script(READ)
        self._delete = self._client.register_script(DELETE)
        try:
            self._claim(name, readonly=readonly)
            self._check_eviction()
        except BaseException:
            self._client.close()
            raise

    def keys(self, ids: Any) -> list[bytes]:
        """Return ids as places."""
        return [place_of(key) for key in encoded(ids)]

    def write(self, keys: list[bytes], rows: Rows) -> int:
        """Store what has no later record, all at once."""
        values = to_values(rows)
        with self._translated(), self._client.pipeline(transaction=True) as pipeline:
            for start in range(0, len(keys), _PIECE):
                part = slice(start, start + _PIECE)
                arguments = [b"".join(values[part]), *keys[part]]
                self._write(keys=[self._prefix, self._head], args=arguments, client=pipeline)
            return sum(pipeline.execute())

    def read(self, keys: list[bytes]) -> Rows:
        """Return the records; those of some ten thousand ids are of one moment."""
        with self._translated():
            parts = [
                self._read(keys=[self._prefix], args=keys[start : start + _PIECE])
                for start in range(0, len(keys), _PIECE)
            ]
        rows = np.frombuffer(bytearray(b"".join(parts)), dtype=RECORD)
        self.damaged += sift(rows).size
        return rows

    def scan(self, size: int) -> Iterator[tuple[NDArray[Any], Rows]]:
        """Yield the records in the order in which the server has them."""
        for places, rows in self._chunks(size):
            self.damaged += sift(rows).size
            kept = np.flatnonzero(rows["check"])
            if kept.size:
                yield decoded([key_of(*places[place]) for place in kept]), rows[kept]

    def flush(self) -> None:
        """Do nothing: when the server writes to its disk is its own setting."""

    def compact(self) -> None:
        """Delete records that are damaged."""
        for places, rows in self._chunks(_PIECE):
            found = rows.copy()
            for position in sift(rows):
                place = place_of(key_of(*places[position]))
                with self._translated():
                    self._delete(
                        keys=[self._prefix, self._head], args=[found[position].tobytes(), place]
                    )

    def stats(self) -> LedgerStats:
        """Ask the server for the memory of every hash, a thousand at a time."""
        used = 0
        with self._translated():
            count = int(self._client.hget(self._head, "records") or 0)
            for buckets in self._buckets():
                pipeline = self._client.pipeline(transaction=False)
                for bucket in buckets:
                    pipeline.memory_usage(bucket, samples=0)
                used += sum(size or 0 for size in pipeline.execute())
        one = INTEGER_SIZE + RECORD_SIZE
        return LedgerStats(self.url, count, one, used, self.recovered, self.damaged)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _claim(self, name: str, *, readonly: bool) -> None:
        """Say in a new ledger what it is, or see what is there."""
        with self._translated():
            if not readonly:
                self._client.hsetnx(self._head, "format", _FORMAT)
            written = self._client.hget(self._head, "format")
        if written is None:
            raise LedgerError(f"{self.url} holds no ledger of the name {name!r}.")
        if written != _FORMAT:
            raise LedgerError(
                f"{self.url} has a ledger of format {written!r}, and this version of subsetopt "
                f"reads format {_FORMAT!r}: read it with the version that made it."
            )

    def _check_eviction(self) -> None:
        """Warn if the server may throw records away when its memory is full."""
        try:
            memory = self._client.info("memory")
        except redis.exceptions.ResponseError:
            return  # The user may not ask; nothing else depends on it.
        policy = str(memory.get("maxmemory_policy", ""))
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            warnings.warn(
                f"{self.url} throws records away when its memory is full (maxmemory-policy "
                f"{policy}): set noeviction to be told instead.",
                LedgerWarning,
                stacklevel=5,
            )

    def _buckets(self) -> Iterator[list[bytes]]:
        """Yield the keys of all hashes once, some at a time."""
        seen: set[bytes] = set()
        cursor = 0
        pattern = self._prefix + b"[ih]*"
        while True:
            found: tuple[int, list[Any]] = self._client.scan(
                cursor, match=pattern, count=_BUCKETS_AT_ONCE
            )
            cursor, keys = found
            fresh = [key for key in dict.fromkeys(keys) if key not in seen]
            seen.update(fresh)
            if fresh:
                yield fresh
            if not cursor:
                return

    def _chunks(self, size: int) -> Iterator[tuple[list[tuple[bytes, bytes]], Rows]]:
        """Yield the hashes and fields of records, and the records as they are."""
        places: list[tuple[bytes, bytes]] = []
        values: list[bytes] = []
        with self._translated():
            for buckets in self._buckets():
                pipeline = self._client.pipeline(transaction=False)
                for bucket in buckets:
                    pipeline.hgetall(bucket)
                for bucket, fields in zip(buckets, pipeline.execute(), strict=True):
                    name = bucket[len(self._prefix) :]
                    places += [(name, field) for field in fields]
                    values += fields.values()
                    while len(values) >= size:
                        yield places[:size], from_values(values[:size])
                        del places[:size], values[:size]
            if values:
                yield places, from_values(values)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the server and of the way to it into ours."""
        try:
            yield
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            raise LedgerError(
                f"{self.url} cannot be reached: {error}. What was recorded before is as the server "
                "has it; a batch that was under way may be recorded or not, and can be repeated."
            ) from error
        except redis.exceptions.RedisError as error:
            # Older clients put the command that failed before the reason. In a pipeline that is a
            # whole batch of records, which no message should hold.
            why = str(error).rpartition(" caused error: ")[2].rstrip(".")
            raise LedgerError(
                f"{self.url} refuses: {why:.300}. What was recorded before is all there."
            ) from error


def _without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    name, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{name.partition(':')[0]}:***@{host}"))
