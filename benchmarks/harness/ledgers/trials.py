"""Trials of a ledger: writers that are killed, and readers beside a writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.ledgers.child import STEP_SIZE
from benchmarks.harness.ledgers.contents import INSTANCES, batch_of, check, ids_of
from subsetopt.ledger import Ledger, LedgerWarning

__all__ = ["Kills", "Reads", "kill_writers", "read_beside_a_writer"]

_CHILD = (sys.executable, "-m", "benchmarks.harness.ledgers.child")
# A writer is killed within so many seconds after its first commit.
_LONGEST_LIFE = 0.1


@dataclass
class Kills:
    """What became of the records of writers that were killed.

    Torn batches are allowed: the writer had not reported them as recorded.
    """

    kills: int = 0  #: writers killed
    committed: int = 0  #: batches that a writer had reported as recorded
    lost: int = 0  #: records of such a batch of which an older one, or none, was found
    corrupt: int = 0  #: records that nobody had made
    torn: int = 0  #: batches under way of which some records were found and others not
    repaired: int = 0  #: times that opening the ledger said it had repaired something


@dataclass
class Reads:
    """What readers saw beside a writer."""

    batches: int = 0  #: batches that the writer recorded meanwhile
    lookups: int = 0  #: calls of all readers
    records: int = 0  #: records that they found
    wrong: int = 0  #: records that nobody had made
    back: int = 0  #: records older than what the same reader had seen of this instance before
    damaged: int = 0  #: records that a reader reported as damaged


def kill_writers(url: str, kills: int, seed: int = 0) -> Kills:
    """Kill one writer after the other at random moments, and look at all records after each."""
    outcome = Kills()
    rng = np.random.default_rng(seed)
    steps = np.full(INSTANCES, -1)
    numbers = np.arange(INSTANCES)
    first = 0
    for _ in range(kills):
        last = _life(url, first, seed, float(rng.uniform(0.0, _LONGEST_LIFE)))
        for step in range(first, last + 1):
            steps[batch_of(seed, step)] = step
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", LedgerWarning)
            with Ledger.open(url) as ledger:
                found = ledger.lookup(ids_of(url, numbers))
        outcome.repaired += any(warning.category is LedgerWarning for warning in told)
        # A batch may be recorded whose writer did not live to report it.
        under_way = np.zeros(INSTANCES, dtype=bool)
        under_way[batch_of(seed, last + 1)] = True
        arrived = found.steps == last + 1
        outcome.torn += 0 < int(arrived.sum()) < int(under_way.sum())
        outcome.lost += int((found.steps < steps).sum())
        never = (found.steps != steps) & ~(arrived & under_way)
        outcome.corrupt += int((check(numbers, found) | (never & (found.steps > steps))).sum())
        outcome.kills += 1
        outcome.committed += last + 1 - first
        steps, first = found.steps, last + 2
    return outcome


def read_beside_a_writer(url: str, readers: int, seconds: float, seed: int = 0) -> Reads:
    """Let readers look up what a writer records, for some seconds."""
    outcome = Reads()
    writer = _start("write", url, 0, seed)
    assert writer.stdout is not None
    writer.stdout.read(STEP_SIZE)  # the ledger is there now
    watched = [_start("read", url, seconds, reader) for reader in range(readers)]
    drained = 1
    os.set_blocking(writer.stdout.fileno(), False)
    while any(reader.poll() is None for reader in watched):
        drained += len(writer.stdout.read(1 << 16) or b"") // STEP_SIZE
        time.sleep(0.01)
    writer.kill()
    writer.wait()
    writer.stdout.close()
    for reader in watched:
        told, _ = reader.communicate()
        assert reader.returncode == 0, "a reader failed"
        for name, count in json.loads(told).items():
            setattr(outcome, name, getattr(outcome, name) + count)
    outcome.batches = drained
    return outcome


def _life(url: str, first: int, seed: int, seconds: float) -> int:
    """Start a writer, kill it some seconds after its first commit, return its last one."""
    writer = _start("write", url, first, seed)
    assert writer.stdout is not None
    told = writer.stdout.read(STEP_SIZE)
    assert told, "the writer failed"
    os.set_blocking(writer.stdout.fileno(), False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told += writer.stdout.read(1 << 16) or b""
        time.sleep(0.001)
    writer.kill()
    writer.wait()
    while more := writer.stdout.read(1 << 16):
        told += more
    writer.stdout.close()
    whole = len(told) // STEP_SIZE * STEP_SIZE
    return int.from_bytes(told[whole - STEP_SIZE : whole], "big")


def _start(what: str, url: str, number: float, seed: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*_CHILD, what, url, str(number), str(seed)],
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
