"""The file of dense ids: what it refuses, what it repairs, how it grows."""

from __future__ import annotations

import os
import re
import resource
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import in_forked_child

import subsetopt as so
from subsetopt.ledger import Ledger, LedgerWarning
from subsetopt.ledger.dense.header import HEADER_SIZE
from subsetopt.ledger.dense.journal import Batch, Journal
from subsetopt.ledger.records import RECORD, RECORD_SIZE, seal


@pytest.fixture
def filled(path: Path) -> Path:
    """A closed ledger of the ids 0 to 99, each with the loss of its own number."""
    with open_dense(path) as ledger:
        ledger.record(np.arange(100), np.arange(100.0), step=5)
    return path


def open_dense(path: Path, **options: Any) -> Ledger:
    return Ledger.open(f"dense:{path}", **options)


def slots_of(path: Path) -> Any:
    return np.memmap(path, dtype=RECORD, mode="r+", offset=HEADER_SIZE)


def sealed(ids: list[int], losses: list[float], step: int) -> Batch:
    rows = np.zeros(len(ids), dtype=RECORD)
    rows["loss"], rows["step"] = losses, step
    return Batch(np.array(ids), seal(rows, np.array(ids)))


def pending(path: Path, batch: Batch) -> None:
    """Leave a batch behind as a writer does that is killed once the batch counts."""
    with path.open("rb") as file:
        uid = struct.unpack_from("<8sII8s", file.read(64))[3]
    journal = Journal(f"{path}-journal", uid, readonly=False)
    journal.write(batch, durable=True)
    journal.close()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([3, -1], "must be from 0 to 2147483647, got -1 at position 1: number the instances"),
        ([2**31], "got 2147483648 at position 0"),
        (np.array([2**63], dtype=np.uint64), "got 9223372036854775808 at position 0"),
        (["1"], "ids of a dense ledger must be integers, got dtype <U1"),
        ([b"1"], "ids of a dense ledger must be integers, got dtype |S1"),
        ([1, "1"], "ids of a dense ledger must be integers"),
        ([None], "ids of a dense ledger must be integers, got dtype object"),
    ],
)
def test_ids_that_have_no_slot(path: Path, ids: Any, message: str) -> None:
    with open_dense(path) as ledger:
        for call in (ledger.lookup, lambda ids: ledger.record(ids, np.ones(len(ids)), step=0)):
            with pytest.raises(so.ProblemError, match=re.escape(message)):
                call(ids)


def test_a_file_has_a_page_and_24_bytes_for_every_id(path: Path) -> None:
    with open_dense(path, capacity=100_000) as ledger:
        assert path.stat().st_size == HEADER_SIZE + 24 * 100_000
        ledger.record(np.arange(100_000), np.zeros(100_000), step=0)
        stats = ledger.stats()
    assert stats.bytes_per_record == RECORD_SIZE == 24
    assert stats.bytes_used <= HEADER_SIZE + 24 * 100_000 + 65_536
    assert path.stat().st_size == HEADER_SIZE + 24 * 100_000


def test_a_file_grows_and_its_readers_follow(path: Path) -> None:
    with open_dense(path) as writer, open_dense(path, readonly=True) as reader:
        size = path.stat().st_size
        for last in (10, 70_000, 700_000):
            writer.record([last], [1.0], step=1)
            assert path.stat().st_size > size
            size = path.stat().st_size
            assert reader.lookup([last]).found.all()
            assert not reader.lookup([last + 1, 10_000_000]).found.any()
        assert [chunk.ids.tolist() for chunk in reader.scan()] == [[10], [70_000], [700_000]]
        assert reader.stats().records == 3


def test_capacity_is_checked(path: Path) -> None:
    for capacity in (-1, 2.0, 2**31 + 1):
        with pytest.raises(so.OptionError, match="capacity must be"):
            open_dense(path, capacity=capacity)
    assert not path.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(b"step,loss\n1,2\n"), "is no ledger: it begins with b'step,los'"),
        (lambda p: p.write_bytes(p.read_bytes()[:5]), "is no ledger"),
        (lambda p: p.write_bytes(p.read_bytes()[:60]), "truncated within its header, to 60 bytes"),
        (lambda p: os.truncate(p, 4096 + 240), "is truncated: it has 4,336 bytes, and its header"),
        (lambda p: overwrite(p, 8, struct.pack("<I", 2)), "is a ledger of format 2, and this"),
        (lambda p: overwrite(p, 24, b"\7"), "has a damaged header: restore it from a copy"),
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_that_cannot_be_used_stays_as_it_is(
    filled: Path, damage: Callable[[Path], object], message: str, readonly: bool
) -> None:
    damage(filled)
    before = filled.read_bytes()
    with pytest.raises(so.LedgerError, match=re.escape(message)):
        open_dense(filled, readonly=readonly)
    assert filled.read_bytes() == before


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_a_truncated_file_can_be_lengthened_as_its_message_says(filled: Path) -> None:
    size = filled.stat().st_size
    os.truncate(filled, HEADER_SIZE + 50 * 24 + 7)
    os.truncate(filled, size)
    with pytest.warns(LedgerWarning, match="1 record did not pass"), open_dense(filled) as ledger:
        assert ledger.lookup(np.arange(100)).found.tolist() == [True] * 50 + [False] * 50


def test_a_folder_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(so.LedgerError, match=r"cannot be opened: Is a directory"):
        open_dense(tmp_path)
    with pytest.raises(so.LedgerError, match=r"No such file or directory\. The folder"):
        open_dense(tmp_path / "missing" / "file")


def test_a_file_that_may_not_be_written_can_be_read(filled: Path) -> None:
    """The child gives up the rights of the superuser, whom no mode of a file holds back."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "losses.ledger"
        shutil.copy(filled, path)
        path.chmod(0o444)
        Path(name).chmod(0o555)

        def child() -> bool:
            if os.geteuid() == 0:
                os.setuid(65_534)
            with pytest.raises(so.LedgerError, match=r"denied\. Open it with readonly=True"):
                open_dense(path)
            with open_dense(path, readonly=True) as ledger:
                return bool(ledger.lookup([99]).losses[0] == 99.0)

        assert in_forked_child(child) == "True"
        Path(name).chmod(0o755)


@pytest.mark.parametrize("room", [0, 4000])
def test_a_full_disk_is_an_error_and_loses_nothing(filled: Path, room: int) -> None:
    """The limit of a file's size ends writes as a full disk does."""

    def child() -> bool:
        with open_dense(filled) as ledger:
            limit = filled.stat().st_size + room
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(so.LedgerError, match=r"written: File too large\. What was"):
                ledger.record([1, 100_000], [0.0, 0.0], step=9)
            found = ledger.lookup(np.arange(100))
            ledger.record([2], [7.0], step=9)
            return bool((found.losses == np.arange(100.0)).all()) and ledger.lookup(
                [2, 100_000]
            ).found.tolist() == [True, False]

    assert in_forked_child(child) == "True"
    with open_dense(filled) as ledger:
        assert ledger.record([100_000], [1.0], step=0) == 1
        assert ledger.lookup([1, 2, 100_000]).losses.tolist() == [1.0, 7.0, 1.0]


def test_a_journal_that_cannot_grow_records_nothing(filled: Path) -> None:
    with open_dense(filled, capacity=50_000):
        pass

    def child() -> bool:
        with open_dense(filled) as ledger:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            with pytest.raises(so.LedgerError, match="File too large"):
                ledger.record(np.arange(40_000), np.zeros(40_000), step=9)
            return ledger.lookup(np.arange(40_000)).found.sum() == 100

    assert in_forked_child(child) == "True"
    with open_dense(filled) as ledger:
        assert ledger.stats().records == 100 and ledger.stats().recovered == ""


def test_a_batch_left_behind_is_completed_when_the_ledger_is_opened(filled: Path) -> None:
    pending(filled, sealed([1, 2, 300_000], [0.5, 0.25, 0.125], step=6))
    told = "a writer ended while it put a batch of 3 records in place; the batch is complete now"
    with pytest.warns(LedgerWarning, match=told), open_dense(filled) as ledger:
        assert ledger.lookup([0, 1, 2, 300_000]).losses.tolist() == [0.0, 0.5, 0.25, 0.125]
        assert told in ledger.stats().recovered
    with open_dense(filled) as ledger:
        assert ledger.stats().recovered == ""


def test_a_batch_left_behind_is_completed_by_the_next_writer(filled: Path) -> None:
    with open_dense(filled) as ledger:
        pending(filled, sealed([1, 2], [0.5, 0.25], step=6))
        with pytest.warns(LedgerWarning, match="batch of 2 records"):
            assert ledger.record([2], [9.0], step=5) == 0
        assert ledger.lookup([1, 2]).losses.tolist() == [0.5, 0.25]


def test_a_batch_left_behind_never_takes_the_place_of_a_later_step(filled: Path) -> None:
    pending(filled, sealed([1, 2], [0.5, 0.25], step=4))
    with pytest.warns(LedgerWarning), open_dense(filled) as ledger:
        assert ledger.lookup([1, 2]).losses.tolist() == [1.0, 2.0]


def test_a_half_written_record_is_read_from_the_journal(filled: Path) -> None:
    batch = sealed([7, 9, 11], [0.5, 0.25, 0.125], step=6)
    pending(filled, batch)
    slots = slots_of(filled)
    slots[7] = batch.rows[0]
    torn = batch.rows[1:2].copy()
    torn["step"] = 5  # the loss is new, the step is old
    slots[9] = torn[0]
    with open_dense(filled, readonly=True) as reader:
        found = reader.lookup([7, 8, 9, 11, 9])
        assert found.losses.tolist() == [0.5, 8.0, 0.25, 11.0, 0.25]
        assert found.steps.tolist() == [6, 5, 6, 5, 6]
        assert reader.stats().damaged == 0


def test_a_reader_never_sees_a_record_before_its_place_has_it(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is half written, then whole; the journal has the next batch already."""
    first, second = sealed([9], [0.5], step=6), sealed([9], [0.25], step=7)
    pending(filled, second)
    slots = slots_of(filled)
    slots["step"][9] = 6
    original = Journal.pending

    def finish(journal: Journal) -> Batch | None:
        slots[9] = first.rows[0]
        return original(journal)

    with open_dense(filled, readonly=True) as reader:
        monkeypatch.setattr(Journal, "pending", finish)
        assert reader.lookup([9]).losses[0] == 0.5


@pytest.mark.parametrize("field", ["loss", "score", "step", "model_version", "check"])
def test_a_damaged_record_counts_as_not_found(filled: Path, field: str) -> None:
    slots = slots_of(filled)
    slots[field][3] = slots[field][4] + 1 if field != "score" else 1.0
    with open_dense(filled) as ledger:
        with pytest.warns(LedgerWarning, match="1 record did not pass the check and count as not"):
            assert ledger.lookup([2, 3]).found.tolist() == [True, False]
        assert ledger.stats().damaged == 1
        ledger.record([3], [0.5], step=0)  # whatever step the damaged one claimed
        assert ledger.lookup([3]).losses[0] == 0.5


def test_a_record_at_the_place_of_another_is_damaged(filled: Path) -> None:
    slots = slots_of(filled)
    slots[[3, 4]] = slots[[4, 3]]
    with open_dense(filled) as ledger, pytest.warns(LedgerWarning, match="2 records"):
        assert not ledger.lookup([3, 4]).found.any()


def test_compacting_clears_what_is_damaged(filled: Path) -> None:
    slots_of(filled)["loss"][[3, 4]] += 1
    with open_dense(filled) as ledger:
        ledger.compact()
        assert ledger.stats().records == 98
        assert not ledger.lookup([3, 4]).found.any() and ledger.stats().damaged == 0
    assert Path(f"{filled}-journal").stat().st_size == 0


@pytest.mark.parametrize(
    "spoil", [lambda head: b"\0" * 28, lambda head: head[:8] + b"another!" + head[16:]]
)
def test_the_journal_of_another_file_is_not_looked_at(
    filled: Path, spoil: Callable[[bytes], bytes]
) -> None:
    pending(filled, sealed([1], [0.5], step=6))
    journal = Path(f"{filled}-journal")
    content = journal.read_bytes()
    journal.write_bytes(spoil(content[:28]) + content[28:])
    with open_dense(filled) as ledger:
        assert ledger.lookup([1]).losses[0] == 1.0 and ledger.stats().recovered == ""


@pytest.mark.parametrize("length", [0, 10, 28, 32, 60])
def test_a_journal_that_is_not_whole_does_not_count(filled: Path, length: int) -> None:
    pending(filled, sealed([1], [0.5], step=6))
    os.truncate(f"{filled}-journal", length)
    with open_dense(filled) as ledger:
        assert ledger.lookup([1]).losses[0] == 1.0 and ledger.stats().recovered == ""


def test_a_durable_ledger_keeps_the_contract(path: Path) -> None:
    with open_dense(path, durable=True) as ledger:
        for step in range(3):
            ledger.record([step, 5], [1.0, step], step=step)
        ledger.flush()
    with open_dense(path, durable=True) as ledger:
        assert ledger.lookup([0, 1, 2, 5]).losses.tolist() == [1.0, 1.0, 1.0, 2.0]


def test_a_writer_killed_at_any_line_leaves_a_sound_ledger(filled: Path) -> None:
    """A child kills itself at the nth line that it runs, for every n until it survives."""
    ids, committed, repaired = np.arange(0, 100, 3), 0, 0
    for line in range(10_000):
        step = 10 + line
        survived = dies_at_line(filled, line, ids, step)
        with np.errstate(all="raise"), pytest.MonkeyPatch.context() as patch:
            told: list[str] = []
            patch.setattr("warnings.warn", lambda text, *_, told=told, **__: told.append(text))
            with open_dense(filled) as ledger:
                found = ledger.lookup(np.arange(100))
        assert found.found.all()
        written = found.steps[ids]
        assert (written == written[0]).all(), "a batch is recorded in part"
        assert written[0] in (step, committed or 5)
        assert (found.losses[ids] == (ids + (written[0] if written[0] > 5 else 0))).all()
        assert (np.delete(found.losses, ids) == np.delete(np.arange(100.0), ids)).all()
        committed, repaired = int(written[0]), repaired + bool(told)
        if survived:
            assert committed == step
            break
    assert line > 50 and repaired > 3


def dies_at_line(path: Path, line: int, ids: Any, step: int) -> bool:
    """Record in a child that kills itself at a line of the ledger; return whether it survived."""
    left = line

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal left
        if not re.search(r"subsetopt.ledger.(dense|locks)", frame.f_code.co_filename):
            return None
        if event == "line":
            if left == 0:
                os.kill(os.getpid(), 9)
            left -= 1
        return trace

    child = os.fork()
    if child == 0:
        try:
            ledger = open_dense(path)
            sys.settrace(trace)
            ledger.record(ids, ids + step, step=step)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, 9)
    return status == 0
