"""Every medium behaves as a dictionary that compares steps."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from subsetopt.ledger import Ledger

NUMBERS = some.integers(0, 11) | some.integers(65_530, 65_540)
STEPS = some.integers(0, 4)
SINGLES = some.floats(width=32, allow_nan=False, allow_infinity=False)


class Twin(NamedTuple):
    loss: float
    score: float
    step: int
    version: int


class LedgerMachine(RuleBasedStateMachine):
    """Two open ledgers of one place, and the dictionary that they are to be equal to."""

    url: str
    kinds: tuple[Any, ...] = (int,)
    places = itertools.count(1000)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        place = next(LedgerMachine.places)
        self.place = self.url.format(folder=self.folder, place=place)
        self.twin: dict[Any, Twin] = {}
        self.ledgers = [Ledger.open(self.place) for _ in range(2)]

    def teardown(self) -> None:
        for ledger in self.ledgers:
            ledger.close()
        shutil.rmtree(self.folder)

    def ids(self, numbers: list[int]) -> list[Any]:
        return [self.kinds[number % len(self.kinds)](number) for number in numbers]

    @rule(
        which=some.integers(0, 1),
        rows=some.lists(some.tuples(NUMBERS, SINGLES, SINGLES, STEPS, STEPS), max_size=8),
        scored=some.booleans(),
    )
    def record(self, which: int, rows: list[tuple[Any, ...]], scored: bool) -> None:
        ids = self.ids([row[0] for row in rows])
        losses, scores, steps, versions = ([row[i] for row in rows] for i in range(1, 5))
        won = set()
        for key, *values in zip(ids, losses, scores, steps, versions, strict=True):
            row = Twin(values[0], values[1] if scored else np.nan, *values[2:])
            if key not in self.twin or row.step >= self.twin[key].step:
                self.twin[key] = row
                won.add(key)
        stored = self.ledgers[which].record(
            ids,
            losses,
            scores if scored else None,
            step=np.array(steps, dtype=int),
            model_version=np.array(versions, dtype=int),
        )
        assert stored == len(won)

    @rule(which=some.integers(0, 1), numbers=some.lists(NUMBERS, max_size=10))
    def lookup(self, which: int, numbers: list[int]) -> None:
        ids = self.ids(numbers)
        found = self.ledgers[which].lookup(ids)
        missing = Twin(np.nan, np.nan, -1, -1)
        expected = [self.twin.get(key, missing) for key in ids]
        assert found.found.tolist() == [key in self.twin for key in ids]
        for name, column in zip(Twin._fields, found, strict=False):
            np.testing.assert_array_equal(column, [getattr(row, name) for row in expected])

    @rule(size=some.integers(1, 9))
    def scan(self, size: int) -> None:
        seen: dict[Any, Any] = {}
        for chunk in self.ledgers[0].scan(size):
            rows = list(zip(*(column.tolist() for column in chunk), strict=True))
            assert not {row[0] for row in rows} & seen.keys()
            seen |= {row[0]: row[1:] for row in rows}
        assert seen.keys() == self.twin.keys()
        for key, row in seen.items():
            np.testing.assert_array_equal(row, self.twin[key])

    @rule(which=some.integers(0, 1))
    def compact(self, which: int) -> None:
        self.ledgers[which].compact()

    @rule(which=some.integers(0, 1), readonly=some.booleans())
    def open_again(self, which: int, readonly: bool) -> None:
        self.ledgers[which].close()
        with Ledger.open(self.place, readonly=readonly) as between:
            assert between.stats().records == len(self.twin)
        self.ledgers[which] = Ledger.open(self.place)

    @invariant()
    def counted(self) -> None:
        stats = self.ledgers[0].stats()
        assert (stats.records, stats.damaged, stats.recovered) == (len(self.twin), 0, "")


@pytest.mark.parametrize("medium", ["dense", "lmdb", "redis"])
def test_a_ledger_is_a_dictionary_that_compares_steps(
    medium: str, request: pytest.FixtureRequest
) -> None:
    class Machine(LedgerMachine):
        url = f"{medium}:{{folder}}/recorded"
        kinds = (int, str, lambda number: str(number).encode(), lambda number: number - 2**62)

    if medium == "dense":
        Machine.kinds = (int,)
    elif medium == "lmdb":
        pytest.importorskip("lmdb", reason="needs the package lmdb")
    else:
        Machine.url = f"{request.getfixturevalue('server')}/{{place}}"
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=12, stateful_step_count=20, deadline=None)
    )
