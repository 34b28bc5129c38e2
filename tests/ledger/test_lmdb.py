"""LMDB: what it refuses, how its map grows, and what other processes may do meanwhile."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import in_forked_child

import subsetopt as so
from subsetopt.ledger import Ledger, LedgerWarning

lmdb = pytest.importorskip("lmdb", reason="needs the package lmdb")


@pytest.fixture
def filled(path: Path) -> Path:
    with open_lmdb(path) as ledger:
        ledger.record(np.arange(1000), np.arange(1000.0), step=5)
    return path


def open_lmdb(path: Path, **options: Any) -> Ledger:
    return Ledger.open(f"lmdb:{path}", **options)


def test_the_map_grows_with_the_records(path: Path) -> None:
    ids = np.arange(20_000)
    with open_lmdb(path, map_size=1 << 16) as ledger:
        for step in range(3):
            ledger.record(ids + step * 10**12, ids / 2.0, step=step)
        assert ledger.stats().records == 60_000
        assert ledger.lookup(ids + 10**12).losses.tolist() == (ids / 2.0).tolist()


def test_processes_follow_a_map_that_another_has_enlarged(path: Path) -> None:
    ids = np.arange(5000)
    with open_lmdb(path, map_size=1 << 16) as ledger:
        ledger.record([1], [1.0], step=0)
        for turn in range(1, 4):

            def child(turn: int = turn) -> bool:
                first = turn * 10_000
                ledger.record(ids + first, ids / 2.0, step=turn)
                return bool(ledger.lookup([first]).found.all())

            assert in_forked_child(child) == "True"
            assert ledger.lookup(ids + turn * 10_000).losses.tolist() == (ids / 2.0).tolist()
            ledger.record(ids - turn * 10_000, ids / 4.0, step=turn)
            assert ledger.lookup(ids - turn * 10_000).losses.tolist() == (ids / 4.0).tolist()
        assert ledger.stats().records == 30_001


def test_map_size_is_checked(path: Path) -> None:
    with pytest.raises(so.OptionError, match="map_size must be an integer >= 65536, got 1"):
        open_lmdb(path, map_size=1)
    assert not path.exists()


def another_database(path: Path) -> None:
    path.mkdir()
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"a", b"1")


def garbage(path: Path) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(b"no database" * 1000)


def other_files(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def later_format(path: Path) -> None:
    open_lmdb(path).close()
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"subsetopt.ledger", b"2")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_database, "is an LMDB database of something else: choose another folder"),
        (garbage, "holds no LMDB database, or one of another version"),
        (other_files, "holds other files and no ledger: choose a folder of its own"),
        (later_format, "is a ledger of format b'2', and this version of subsetopt reads format"),
        (lambda path: path.write_text("a file"), "cannot be made: File exists"),
        (lambda path: path.symlink_to("missing/deep"), "cannot be made: No such file"),
    ],
)
def test_what_is_no_ledger_is_refused(
    path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(path)
    files = {p: p.read_bytes() for p in path.glob("*") if "lock" not in p.name}
    with pytest.raises(so.LedgerError, match=message):
        open_lmdb(path)
    after = {p: p.read_bytes() for p in path.glob("*") if "lock" not in p.name}
    assert after == files


def test_a_truncated_file_is_an_error_and_no_crash(filled: Path) -> None:
    os.truncate(filled / "data.mdb", (filled / "data.mdb").stat().st_size - 8192)
    for readonly in (False, True):
        with pytest.raises(so.LedgerError, match=r"data.mdb is truncated: it has [\d,]+ bytes of"):
            open_lmdb(filled, readonly=readonly)


def test_a_full_disk_is_an_error_and_loses_nothing(filled: Path) -> None:
    def child() -> bool:
        with open_lmdb(filled) as ledger:
            limit = (filled / "data.mdb").stat().st_size + 8192
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            for _ in range(2):
                with pytest.raises(so.LedgerError, match=r"cannot be written: .* Is the disk full"):
                    ledger.record(np.arange(50_000), np.zeros(50_000), step=9)
            found = ledger.lookup(np.arange(1000))
            return bool((found.losses == np.arange(1000.0)).all())

    assert in_forked_child(child) == "True"
    with open_lmdb(filled) as ledger:
        assert ledger.stats().records == 1000
        assert ledger.record([5], [0.5], step=9) == 1


def test_a_reader_and_then_a_writer_in_one_process(filled: Path) -> None:
    with open_lmdb(filled, readonly=True) as reader:
        with open_lmdb(filled) as writer:
            writer.record([1], [0.5], step=6)
            assert reader.lookup([1]).losses[0] == 0.5
        assert reader.lookup([1]).losses[0] == 0.5


def test_what_one_ledger_of_a_process_asks_for_holds_for_all(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    original = lmdb.open

    def spy(path: str, **options: Any) -> Any:
        opened.append(options["metasync"])
        return original(path, **options)

    monkeypatch.setattr(lmdb, "open", spy)
    with open_lmdb(filled) as first, open_lmdb(filled, durable=True) as second:
        with open_lmdb(filled):
            assert opened == [False, True]
        assert first.record([1], [0.5], step=6) == 1
        assert second.lookup([1]).losses[0] == 0.5


def test_compacting_needs_the_folder_alone(filled: Path) -> None:
    with open_lmdb(filled) as ledger:

        def child() -> bool:
            with pytest.raises(so.LedgerError, match="while another process has it open: close it"):
                ledger.compact()
            return bool(ledger.lookup([1]).found[0])

        ledger.lookup([1])  # A fork closes the database until it is used again.
        started, go_on = os.pipe()
        holder = os.fork()
        if holder == 0:
            try:
                ledger.lookup([1])
                os.write(go_on, b"x")
                os.kill(os.getpid(), 19)  # stops, with the database open
            finally:
                os._exit(0)
        os.read(started, 1)
        assert in_forked_child(child) == "True"
        os.kill(holder, 9)
        os.waitpid(holder, 0)
        os.close(started)
        os.close(go_on)
        ledger.compact()
        assert ledger.lookup(np.arange(1000)).found.all()


def test_compacting_gives_room_back_and_clears_what_is_damaged(filled: Path) -> None:
    rng = np.random.default_rng(0)
    with open_lmdb(filled) as ledger:
        for step in range(20):
            ledger.record(rng.integers(0, 2**60, 1000), np.ones(1000), step=step)
        before = ledger.stats()
    spoil(filled, 7)
    with open_lmdb(filled) as ledger:
        with pytest.warns(LedgerWarning, match="1 record did not pass"):
            assert not ledger.lookup([7]).found.any()
        ledger.compact()
        after = ledger.stats()
        assert after.records == before.records - 1
        assert after.bytes_used < before.bytes_used
        assert ledger.lookup(np.arange(8)).found.tolist() == [True] * 7 + [False]
    assert not (filled / "compacting").exists()


def spoil(path: Path, number: int) -> None:
    """Change a byte of the record of an integer."""
    with lmdb.open(str(path), max_dbs=2) as environment:
        table = environment.open_db(b"integers", integerkey=True)
        key = np.uint64(number + 2**63).tobytes()
        with environment.begin(write=True, db=table) as transaction:
            value = transaction.get(key)
            transaction.put(key, bytes([value[0] ^ 1]) + value[1:])


def test_a_damaged_record_is_left_out_and_can_be_recorded_again(filled: Path) -> None:
    spoil(filled, 3)
    with open_lmdb(filled) as ledger:
        with pytest.warns(LedgerWarning):
            ids = np.concatenate([chunk.ids for chunk in ledger.scan()])
        assert ids.size == 999 and 3 not in ids
        ledger.record([3], [0.5], step=0)
        assert ledger.lookup([3]).losses[0] == 0.5


def test_a_copy_of_the_database_alone_can_be_read(filled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "data.mdb").write_bytes((filled / "data.mdb").read_bytes())
    with open_lmdb(copy, readonly=True) as ledger:
        assert ledger.lookup([999]).losses[0] == 999.0


def test_a_durable_ledger_keeps_the_contract(path: Path) -> None:
    with open_lmdb(path, durable=True) as ledger:
        ledger.record([1, 2], [0.5, 0.25], step=1)
        ledger.flush()
        assert ledger.lookup([2, 1]).losses.tolist() == [0.25, 0.5]
