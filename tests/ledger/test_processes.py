"""Several processes and one ledger: writers that are killed, readers beside a writer."""

from __future__ import annotations

import os

import numpy as np

from benchmarks.harness.ledgers.contents import INSTANCES, check, ids_of, record
from benchmarks.harness.ledgers.trials import Kills, Reads, kill_writers, read_beside_a_writer
from subsetopt.ledger import Ledger


def test_killed_writers_lose_and_corrupt_nothing(url: str) -> None:
    outcome = kill_writers(url, 3)
    assert outcome.committed >= 3
    lost = Kills(3, outcome.committed, 0, 0, 0, outcome.repaired)
    assert outcome == lost


def test_readers_beside_a_writer_see_whole_records_only(url: str) -> None:
    outcome = read_beside_a_writer(url, readers=2, seconds=0.5)
    assert outcome.batches > 1 and outcome.records > 0
    seen = Reads(outcome.batches, outcome.lookups, outcome.records)
    assert outcome == seen


def test_of_several_writers_the_later_step_wins(url: str) -> None:
    numbers = np.arange(INSTANCES)
    steps = [np.random.default_rng(writer).permutation(40)[:15] for writer in range(4)]
    Ledger.open(url).close()
    children = []
    for writer in range(4):
        child = os.fork()
        if child == 0:
            try:
                with Ledger.open(url) as ledger:
                    for step in steps[writer].tolist():
                        record(ledger, numbers[step % 3 :: 2], step)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    expected = np.full(INSTANCES, -1)
    for step in np.concatenate(steps):
        part = numbers[step % 3 :: 2]
        expected[part] = np.maximum(expected[part], step)
    with Ledger.open(url, readonly=True) as ledger:
        found = ledger.lookup(ids_of(url, numbers))
    assert np.array_equal(found.steps, expected)
    assert not check(numbers, found).any()
