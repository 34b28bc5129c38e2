"""Times of a ledger with many records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from subsetopt.ledger import Ledger
from subsetopt.ledger.dense.header import HEADER_SIZE
from subsetopt.ledger.records import RECORD_SIZE

__all__ = ["Speed", "fill", "floor", "measure"]

_PIECE = 65_536
# Ids of media that take any integer begin here, beyond 32 bits.
_FIRST = 2**40


@dataclass
class Speed:
    """What a ledger takes; times in seconds."""

    promised: int  #: bytes that the ledger says it stores for an instance
    used: float  #: bytes that the medium uses, per record
    fill: float  #: for all records
    scan: float  #: for all records
    lookups: list[float] = field(default_factory=list)  #: of every lookup
    writes: list[float] = field(default_factory=list)  #: of every batch recorded
    processor: list[float] = field(default_factory=list)  #: processor time of every lookup
    wrong: int = 0  #: losses that a lookup returned and that were not recorded


def fill(url: str, records: int, advance: Callable[[int], None]) -> float:
    """Record all instances once, and return the seconds of it."""
    seconds = 0.0
    options = {"capacity": records} if url.startswith("dense") else {}
    with Ledger.open(url, **options) as ledger:
        for start in range(0, records, _PIECE):
            numbers = np.arange(start, min(start + _PIECE, records))
            begin = time.perf_counter()
            ledger.record(_ids(url, numbers), _losses(numbers), step=1)
            seconds += time.perf_counter() - begin
            advance(numbers.size)
    return seconds


def measure(url: str, filled: float, records: int, batch: int, repeats: int, seed: int) -> Speed:
    """Look random instances up and record random batches; the losses of instances stay."""
    rng = np.random.default_rng(seed)
    with Ledger.open(url) as ledger:
        stats = ledger.stats()
        speed = Speed(stats.bytes_per_record, stats.bytes_used / stats.records, filled, 0.0)
        for _ in range(repeats):
            numbers = rng.integers(0, records, batch)
            ids = _ids(url, numbers)
            begin, worked = time.perf_counter(), time.process_time()
            found = ledger.lookup(ids)
            speed.lookups.append(time.perf_counter() - begin)
            speed.processor.append(time.process_time() - worked)
            speed.wrong += int((found.losses != _losses(numbers)).sum())
        for step in range(repeats):
            numbers = rng.integers(0, records, batch)
            ids, losses = _ids(url, numbers), _losses(numbers)
            begin = time.perf_counter()
            ledger.record(ids, losses, step=2 + step)
            speed.writes.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        scanned = sum(chunk.ids.size for chunk in ledger.scan())
        speed.scan = time.perf_counter() - begin
        speed.wrong += abs(scanned - records)
    return speed


def floor(url: str, records: int, batch: int, repeats: int, seed: int) -> list[float]:
    """Return the seconds of copying random rows of the mapped file, without any check."""
    mapped = np.memmap(
        url.partition(":")[2], mode="r", offset=HEADER_SIZE, shape=records, dtype=f"V{RECORD_SIZE}"
    )
    rng = np.random.default_rng(seed)
    rows = np.asarray(mapped)
    seconds = []
    for _ in range(repeats):
        numbers = rng.integers(0, records, batch)
        begin = time.perf_counter()
        rows.take(numbers, mode="clip")
        seconds.append(time.perf_counter() - begin)
    return seconds


def _ids(url: str, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    return numbers if url.startswith("dense") else numbers + _FIRST


def _losses(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
    return (numbers % 4093).astype(np.float32) / 8
