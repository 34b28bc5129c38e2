"""What a child process does: ``python -m benchmarks.harness.ledgers.child write|read URL ...``."""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np

from benchmarks.harness.ledgers.contents import INSTANCES, batch_of, check, ids_of, record
from subsetopt.ledger import Ledger

__all__ = ["STEP_SIZE"]

# A committed step is told as so many bytes.
STEP_SIZE = 8


def write(url: str, first: int, seed: int) -> None:
    """Record a batch at every step from the first one on, without end, and tell each commit."""
    with Ledger.open(url) as ledger:
        step = first
        while True:
            record(ledger, batch_of(seed, step), step)
            os.write(sys.stdout.fileno(), step.to_bytes(STEP_SIZE, "big"))
            step += 1


def read(url: str, seconds: float, seed: int) -> None:
    """Look instances up until the time is over; print what was wrong with the records."""
    rng = np.random.default_rng(seed)
    latest = np.full(INSTANCES, -1)
    tally = {"lookups": 0, "records": 0, "wrong": 0, "back": 0, "damaged": 0}
    with Ledger.open(url, readonly=True) as ledger:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            numbers = rng.choice(INSTANCES, 1024, replace=False)
            found = ledger.lookup(ids_of(url, numbers))
            tally["lookups"] += 1
            tally["records"] += int(found.found.sum())
            tally["wrong"] += int(check(numbers, found).sum())
            tally["back"] += int((found.steps < latest[numbers]).sum())
            latest[numbers] = found.steps
        tally["damaged"] = ledger.stats().damaged
    print(json.dumps(tally))


if __name__ == "__main__":
    _, what, url, number, seed = sys.argv
    if what == "write":
        write(url, int(number), int(seed))
    else:
        read(url, float(number), int(seed))
