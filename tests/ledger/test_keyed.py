"""Ids of any kind, in the media that take them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import subsetopt as so
from subsetopt.ledger import Ledger


def test_ids_of_different_kinds_are_different_instances(keyed: Ledger) -> None:
    ids = [1, "1", b"1", 49, "", b"", "i", b"\0" * 8]
    keyed.record(ids, np.arange(8.0), step=0)
    assert keyed.lookup(ids).losses.tolist() == list(range(8))
    assert not keyed.lookup(["49", b"49", 0]).found.any()
    assert keyed.stats().records == 8


def test_integers_of_64_bits_are_told_apart(keyed: Ledger) -> None:
    edges = [-(2**63), -(2**63) + 1, -(2**31), -257, -256, -1, 0, 1, 255, 256, 2**53, 2**53 + 1]
    edges += [2**31, 2**32, 2**62, 2**63 - 1]
    keyed.record(edges, np.arange(16.0), step=0)
    assert keyed.lookup(np.array(edges)[::-1]).losses.tolist() == list(range(16))[::-1]
    ids = np.concatenate([chunk.ids for chunk in keyed.scan(5)])
    assert ids.dtype == np.int64 and sorted(ids.tolist()) == sorted(edges)


def test_a_scan_gives_ids_back_as_they_were(keyed: Ledger) -> None:
    ids = [-5, 2**40, "Größe", "\0", "", b"\xff\0", b"", "a" * 500]
    keyed.record(ids, np.arange(8.0), step=[1, 2, 3, 4, 5, 6, 7, 8])
    found: dict[Any, float] = {}
    for size in (3, 100):
        found = {}
        for chunk in keyed.scan(size):
            assert chunk.ids.dtype in (np.int64, np.dtype(object))
            found |= dict(zip(chunk.ids.tolist(), chunk.losses.tolist(), strict=True))
        assert found == dict(zip(ids, map(float, range(8)), strict=True))
    assert {type(key) for key in found} == {int, str, bytes}


@pytest.mark.parametrize(
    "ids",
    [
        np.array(["a", "bc"]),
        np.array([b"a", b"bc"]),
        np.array(["a", 7], dtype=object),
        (np.str_("a"), np.bytes_(b"x")),
        [np.int32(3), 4],
    ],
)
def test_arrays_and_scalars_of_numpy_are_ids(keyed: Ledger, ids: Any) -> None:
    keyed.record(ids, [1.0, 2.0], step=0)
    assert keyed.lookup(list(ids)).losses.tolist() == [1.0, 2.0]
    if isinstance(ids, np.ndarray):
        assert keyed.lookup(ids.tolist()).losses.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", 1.0], "ids must be integers, texts or bytes, got 1.0 at position 1"),
        ([None], "got None at position 0"),
        ([True], "got True at position 0"),
        ([("a", 1)], "got ('a', 1) at position 0"),
        ([0, 2**63], "ids must be within 64 bits with a sign, got 9223372036854775808 at position"),
        ([-(2**63) - 1, "a"], "got -9223372036854775809 at position 0"),
        (np.array([1, 2**64 - 1], dtype=np.uint64), "got 18446744073709551615 at position 1: pass"),
        (["a" * 501], "ids must have at most 500 bytes, got 501 at position 0: use a hash of it"),
        (["b", "\ud800"], "ids must be valid texts, got '\\ud800' at position 1"),
        (np.array([1.5]), "ids must be integers, texts or bytes, got dtype float64"),
        (np.array([["a"]]), "ids must be one-dimensional, got shape (1, 1)"),
        ("abc", "ids must be one-dimensional, got shape ()"),
    ],
)
def test_ids_that_are_none(keyed: Ledger, ids: Any, message: str) -> None:
    with pytest.raises(so.ProblemError, match=re.escape(message)):
        keyed.lookup(ids)
    with pytest.raises(so.ProblemError, match=re.escape(message)):
        keyed.record(ids, np.ones(len(ids)), step=0)


def test_repeats_among_texts(keyed: Ledger) -> None:
    assert keyed.record(["a", "b", "a"], [1.0, 2.0, 3.0], step=[2, 2, 1]) == 2
    assert keyed.lookup(["a", "b", "a"]).losses.tolist() == [1.0, 2.0, 1.0]
