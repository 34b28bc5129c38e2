"""Keys and checks: what is different stays different, what is changed is noticed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from subsetopt.ledger.inputs import keep_last
from subsetopt.ledger.keyed.keys import decoded, encoded
from subsetopt.ledger.records import RECORD, RECORD_SIZE, columns, empty_rows, intact, seal

INT64 = some.integers(-(2**63), 2**63 - 1)
IDS = INT64 | some.text(some.characters(exclude_categories=["Cs"]), max_size=20) | some.binary()


@given(some.lists(IDS, max_size=20))
def test_keys_are_as_different_as_ids(ids: list[Any]) -> None:
    keys = encoded(ids)
    back = decoded(keys).tolist()
    assert back == ids and list(map(type, back)) == list(map(type, ids))
    assert len(set(keys)) == len({(type(value), value) for value in ids})


@given(some.lists(INT64, min_size=1, max_size=20))
def test_keys_of_integers_sort_as_they_do(ids: list[int]) -> None:
    assert encoded(sorted(ids)) == sorted(encoded(ids))
    assert encoded(np.array(ids)) == encoded(ids) == [encoded([value])[0] for value in ids]


def a_record(loss: float, score: float, step: int, version: int) -> Any:
    return np.array([(loss, score, step, version, 0)], dtype=RECORD)


ROWS = some.builds(
    a_record,
    some.floats(width=32),
    some.floats(width=32),
    some.integers(0, 2**63 - 1),
    some.integers(0, 2**32 - 1),
)


@given(ROWS, some.integers(0, 2**31 - 1))
def test_a_change_of_any_bit_is_noticed(row: Any, place: int) -> None:
    places = np.array([place])
    sealed = seal(row, places)
    assert intact(sealed, places).all() and sealed["check"][0] != 0
    changed = np.repeat(sealed, 8 * RECORD_SIZE)
    bits = changed.view(np.uint8).reshape(-1, RECORD_SIZE)
    for bit in range(8 * RECORD_SIZE):
        bits[bit, bit // 8] ^= 1 << (bit % 8)
    assert not intact(changed, np.repeat(places, changed.size)).any()
    assert not intact(sealed, places ^ 1).any()


@given(ROWS, ROWS, some.integers(0, 2**31 - 1), some.integers(1, RECORD_SIZE - 1))
def test_a_mixture_of_two_records_is_noticed(old: Any, new: Any, place: int, cut: int) -> None:
    old, new = seal(old, place), seal(new, place)
    mixed = np.frombuffer(bytearray(new.tobytes()[:cut] + old.tobytes()[cut:]), dtype=RECORD)
    whole = {old.tobytes(), new.tobytes()}
    assert intact(mixed, place).all() == (mixed.tobytes() in whole)


def test_no_record_is_no_damage() -> None:
    rows = empty_rows(3)
    assert intact(rows, np.arange(3)).all() and not columns(rows).found.any()
    assert intact(empty_rows(0), 0).shape == (0,)


@given(
    some.lists(some.tuples(some.integers(0, 5), some.integers(0, 3)), max_size=12), some.booleans()
)
def test_of_repeats_the_last_of_the_latest_step_is_kept(rows: list[Any], texts: bool) -> None:
    steps = np.zeros(len(rows), dtype=RECORD)
    steps["step"] = [step for _, step in rows]
    steps["loss"] = np.arange(len(rows))
    numbers = [number for number, _ in rows]
    keys, kept = keep_last(encoded(numbers) if texts else np.array(numbers, dtype=int), steps)
    expected: dict[int, int] = {}
    for place, (number, step) in enumerate(rows):
        if number not in expected or step >= rows[expected[number]][1]:
            expected[number] = place
    ids = decoded(keys).tolist() if texts else keys.tolist()
    assert dict(zip(ids, kept["loss"].astype(int).tolist(), strict=True)) == expected
