"""What every medium promises, whatever lies below it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import in_forked_child

import subsetopt as so
from subsetopt.ledger import Ledger


def losses_of(ledger: Ledger, ids: Any) -> list[float]:
    return ledger.lookup(ids).losses.tolist()


def test_what_was_recorded_is_found(ledger: Ledger) -> None:
    stored = ledger.record([5, 2], [0.5, 0.25], [3.0, 4.0], step=7, model_version=9)
    known = ledger.lookup([2, 5])
    assert stored == 2
    assert known.losses.tolist() == [0.25, 0.5] and known.losses.dtype == np.float32
    assert known.scores.tolist() == [4.0, 3.0] and known.scores.dtype == np.float32
    assert known.steps.tolist() == [7, 7] and known.steps.dtype == np.int64
    assert known.model_versions.tolist() == [9, 9] and known.model_versions.dtype == np.int64
    assert known.found.tolist() == [True, True] and known.found.dtype == bool


def test_what_was_not_recorded_is_nan_and_minus_one(ledger: Ledger) -> None:
    ledger.record([1], [2.0], step=0)
    known = ledger.lookup([0, 1, 10_000_000])
    assert known.found.tolist() == [False, True, False]
    np.testing.assert_array_equal(known.losses, np.float32([np.nan, 2.0, np.nan]))
    assert known.steps.tolist() == [-1, 0, -1]
    assert known.model_versions.tolist() == [-1, 0, -1]
    assert np.isnan(known.scores).all()


def test_an_empty_ledger_finds_nothing(ledger: Ledger) -> None:
    assert not ledger.lookup([0, 1]).found.any()
    assert ledger.lookup([]).losses.shape == (0,)
    assert ledger.record([], [], step=1) == 0
    assert list(ledger.scan()) == []
    assert ledger.stats().records == 0


def test_a_record_of_zeros_is_a_record(ledger: Ledger) -> None:
    ledger.record([0], [0.0], [0.0], step=0)
    known = ledger.lookup([0])
    assert known.found[0] and known.losses[0] == known.scores[0] == known.steps[0] == 0


def test_the_later_step_wins_whichever_is_written_first(ledger: Ledger) -> None:
    ledger.record([1, 2], [1.0, 1.0], step=10)
    assert ledger.record([1, 2, 3], [9.0, 9.0, 9.0], step=[9, 11, 9]) == 2
    assert losses_of(ledger, [1, 2, 3]) == [1.0, 9.0, 9.0]


def test_of_equal_steps_the_later_call_wins(ledger: Ledger) -> None:
    ledger.record([1], [1.0], [5.0], step=3, model_version=1)
    ledger.record([1], [2.0], step=3)
    known = ledger.lookup([1])
    assert known.losses[0] == 2.0 and known.model_versions[0] == 0
    assert np.isnan(known.scores[0])  # a score never stands beside a loss of another call


def test_of_repeats_in_a_call_the_later_step_counts_then_the_last(ledger: Ledger) -> None:
    stored = ledger.record([4, 8, 4, 8, 8], [1, 2, 3, 4, 5], step=[1, 7, 1, 6, 7])
    assert stored == 2
    assert losses_of(ledger, [4, 8]) == [3.0, 5.0]


def test_a_lookup_may_repeat_ids(ledger: Ledger) -> None:
    ledger.record([6], [1.5], step=0)
    assert losses_of(ledger, [6, 6, 6]) == [1.5] * 3


def test_the_largest_numbers_come_back(ledger: Ledger) -> None:
    largest = float(np.finfo(np.float32).max)
    ledger.record([1], [-largest], [largest], step=2**63 - 1, model_version=2**32 - 1)
    known = ledger.lookup([1])
    assert (known.losses[0], known.scores[0]) == (-largest, largest)
    assert (known.steps[0], known.model_versions[0]) == (2**63 - 1, 2**32 - 1)


def test_records_outlast_the_ledger_that_made_them(url: str) -> None:
    with Ledger.open(url) as first:
        first.record(np.arange(1000), np.arange(1000.0), step=1)
    with Ledger.open(url) as second:
        assert losses_of(second, [0, 999]) == [0.0, 999.0]
        assert second.stats().records == 1000 and second.stats().recovered == ""


def test_two_open_ledgers_see_each_other(url: str) -> None:
    with Ledger.open(url) as one, Ledger.open(url) as other:
        one.record([1], [1.0], step=5)
        assert losses_of(other, [1]) == [1.0]
        other.record([1, 200_000], [2.0, 3.0], step=6)
        assert one.record([1], [0.0], step=5) == 0
        assert losses_of(one, [1, 200_000]) == [2.0, 3.0]


def test_a_scan_yields_every_record_once(ledger: Ledger) -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(5000)[:1234]
    ledger.record(ids, ids / 8, ids / 4, step=ids, model_version=ids + 1)
    chunks = list(ledger.scan(100))
    found = np.concatenate([chunk.ids for chunk in chunks])
    assert len(chunks) > 1 and found.dtype == np.int64
    assert sorted(found.tolist()) == sorted(ids.tolist())
    for chunk in chunks:
        assert np.array_equal(chunk.losses, (chunk.ids / 8).astype(np.float32))
        assert np.array_equal(chunk.scores, (chunk.ids / 4).astype(np.float32))
        assert np.array_equal(chunk.steps, chunk.ids)
        assert np.array_equal(chunk.model_versions, chunk.ids + 1)


def test_a_scan_can_be_recorded_elsewhere(ledger: Ledger, other_url: str) -> None:
    ledger.record([3, 1], [0.5, 0.25], [1.0, 2.0], step=[4, 5], model_version=[6, 7])
    with Ledger.open(other_url) as copy:
        for ids, losses, scores, steps, versions in ledger.scan():
            copy.record(ids, losses, scores, step=steps, model_version=versions)
        for ours, theirs in zip(ledger.lookup([1, 3]), copy.lookup([1, 3]), strict=True):
            assert np.array_equal(ours, theirs)


def test_compacting_changes_no_record(ledger: Ledger) -> None:
    ids = np.arange(0, 3000, 3)
    for step in range(3):
        ledger.record(ids, ids + step, step=step)
    ledger.compact()
    assert losses_of(ledger, ids) == (ids + 2.0).tolist()
    ledger.record([1], [1.0], step=0)
    assert ledger.stats().records == 1001


def test_stats_say_what_a_record_takes(ledger: Ledger) -> None:
    assert ledger.record(np.arange(70_000), np.ones(70_000), step=1) == 70_000
    stats = ledger.stats()
    assert stats.records == 70_000 and stats.damaged == 0 and stats.url == ledger.url
    assert 24 <= stats.bytes_per_record <= 40
    assert stats.bytes_used < 100 * 70_000 + 4e6


def test_a_reader_reads_and_writes_nothing(url: str) -> None:
    with Ledger.open(url) as writer, Ledger.open(url, readonly=True) as reader:
        writer.record([1], [1.0], step=1)
        assert losses_of(reader, [1]) == [1.0] and "readonly" in repr(reader)
        with pytest.raises(so.LedgerError, match="opened with readonly=True and cannot be changed"):
            reader.record([1], [2.0], step=2)
        with pytest.raises(so.LedgerError, match="readonly=True"):
            reader.compact()
        reader.flush()
        assert [chunk.ids.tolist() for chunk in reader.scan()] == [[1]]


def test_reading_what_is_not_there_is_an_error(url: str) -> None:
    with pytest.raises(so.LedgerError, match=r"must exist|holds no ledger"):
        Ledger.open(url, readonly=True)


def test_a_closed_ledger_says_so(url: str) -> None:
    ledger = Ledger.open(url)
    ledger.record([1], [1.0], step=1)
    scan = ledger.scan()
    ledger.close()
    ledger.close()
    calls: list[Callable[[], object]] = [
        lambda: ledger.lookup([1]),
        lambda: ledger.record([1], [1.0], step=1),
        ledger.stats,
        ledger.flush,
        ledger.scan,
        lambda: next(scan),
    ]
    for call in calls:
        with pytest.raises(so.LedgerError, match="is closed"):
            call()
    assert "closed" in repr(ledger)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(losses=[1.0, np.nan]), "losses must be finite; not finite at positions 1 (nan)"),
        (dict(losses=[np.inf, 1.0]), "losses must be finite; not finite at positions 0 (inf)"),
        (dict(losses=[1.0, 1e300]), "losses are recorded as float32, and 1e+300 at position 1"),
        (dict(losses=[1.0]), "losses must hold one value per id, shape (2,), got (1,)"),
        (dict(losses=1.0), "losses must be one-dimensional"),
        (dict(losses=["a", "b"]), "losses must be real numbers"),
        (dict(scores=[1.0, np.nan]), "scores must be finite; not finite at positions 1 (nan)"),
        (dict(scores=[1.0, 2.0, 3.0]), "scores must hold one value per id"),
        (dict(step=-1), "step must be from 0 to 9223372036854775807, got -1."),
        (dict(step=[0, -5]), "got -5 at position 1"),
        (dict(step=2**63), "step must be from 0"),
        (dict(step=2**64), "step must be integers, got one that needs more than 64 bits"),
        (dict(step=1.0), "step must be integers, got dtype float64"),
        (dict(step=True), "step must be integers, got dtype bool"),
        (dict(step=None), "step must be integers"),
        (dict(step=[1, 2, 3]), "step must be an integer, or one per id, shape (2,)"),
        (dict(model_version=-1), "model_version must be from 0 to 4294967295, got -1"),
        (dict(model_version=2**32), "model_version must be from 0"),
        (dict(ids=[1.0, 2.0]), "ids"),
        (dict(ids=[True, False]), "ids"),
        (dict(ids=[[1, 2]]), "ids"),
        (dict(ids=3), "ids"),
        (dict(ids=None), "ids"),
        (dict(ids=[1, 2**70]), "ids"),
    ],
)
def test_a_mistake_is_one_sentence_and_records_nothing(
    ledger: Ledger, arguments: dict[str, Any], message: str
) -> None:
    call: dict[str, Any] = dict(ids=[1, 2], losses=[1.0, 2.0], step=1) | arguments
    with pytest.raises(so.ProblemError, match=re.escape(message)):
        ledger.record(**call)
    assert ledger.stats().records == 0


def test_the_size_of_a_chunk_is_checked_at_once(ledger: Ledger) -> None:
    with pytest.raises(so.OptionError, match="size must be an integer >= 1, got 0"):
        ledger.scan(0)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_ids_of_any_integer_type_are_the_same(ledger: Ledger, kind: type[np.integer[Any]]) -> None:
    ledger.record(np.array([7, 100], dtype=kind), np.float16([1.0, 2.0]), step=np.int16(3))
    assert losses_of(ledger, [7, 100]) == [1.0, 2.0]
    assert losses_of(ledger, (np.int64(100), 7)) == [2.0, 1.0]


def test_tensors_are_read_as_arrays(ledger: Ledger) -> None:
    torch = pytest.importorskip("torch")
    losses = torch.tensor([1.5, 2.5], dtype=torch.bfloat16, requires_grad=True)
    ledger.record(torch.tensor([3, 4]), losses, step=torch.tensor(5))
    assert losses_of(ledger, torch.tensor([4, 3])) == [2.5, 1.5]


def test_arguments_are_left_as_they_are(ledger: Ledger) -> None:
    arrays = [np.array([2, 1, 2]), np.array([1.0, 2.0, 3.0]), np.array([3, 2, 1])]
    copies = [array.copy() for array in arrays]
    ledger.record(arrays[0], arrays[1], step=arrays[2])
    ledger.lookup(arrays[0]).losses[:] = 0.0
    assert all(np.array_equal(a, b) for a, b in zip(arrays, copies, strict=True))
    assert losses_of(ledger, [2, 1]) == [1.0, 2.0]


def test_threads_may_share_a_ledger(ledger: Ledger) -> None:
    def write(first: int) -> None:
        for step in range(20):
            ids = np.arange(first, first + 50)
            ledger.record(ids, ids + step, step=step)
            ledger.lookup(np.arange(200))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 50, 25, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = np.r_[0:100, 150:200]
    assert losses_of(ledger, ids) == (ids + 19.0).tolist()


def test_a_forked_child_may_go_on(ledger: Ledger) -> None:
    ledger.record([1], [1.0], step=1)

    def child() -> bool:
        ledger.record([2], [2.0], step=1)
        return losses_of(ledger, [1, 2]) == [1.0, 2.0]

    assert in_forked_child(child) == "True"
    assert ledger.record([1], [3.0], step=2) == 1
    assert losses_of(ledger, [1, 2]) == [3.0, 2.0]


def test_a_ledger_that_was_deleted_is_not_written_to(local_url: str, tmp_path: Path) -> None:
    place, url = tmp_path / "recorded", local_url
    with Ledger.open(url) as ledger:
        ledger.record([1], [1.0], step=1)
        place.rename(tmp_path / "moved")
        with pytest.raises(so.LedgerError, match="was deleted or replaced since it was opened"):
            ledger.record([2], [2.0], step=1)
        with Ledger.open(url) as again:
            assert again.record([2], [2.0], step=1) == 1
            with pytest.raises(so.LedgerError, match="was deleted or replaced"):
                ledger.record([2], [2.0], step=1)
            assert again.stats().records == 1
    with Ledger.open(url) as again:
        assert again.lookup([1, 2]).found.tolist() == [False, True]


def test_a_relative_place_stays_where_it_was(
    local_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with Ledger.open(local_url.replace(f"{tmp_path}/", "")) as ledger:
        ledger.record([1], [1.0], step=1)
        monkeypatch.chdir(other)

        def child() -> bool:
            return ledger.record([2], [2.0], step=1) == 1

        assert in_forked_child(child) == "True"
        assert losses_of(ledger, [1, 2]) == [1.0, 2.0]
    assert list(other.iterdir()) == []
