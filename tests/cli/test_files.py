"""Files that users hand in, hostile ones among them, and files that are written whole."""

from __future__ import annotations

import errno
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import subsetopt as so
from subsetopt.files import parse_losses, read_losses, write_whole


def no_stdin() -> bytes:
    raise AssertionError("standard input was read")


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def header(shape: str, dtype: str = "<f8") -> str:
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1\n2\n3\n", [1, 2, 3]),
        ("1\r\n2\r\n3", [1, 2, 3]),
        ("1\r2\r3\r", [1, 2, 3]),
        ("1\n2\n3\n\n  \n", [1, 2, 3]),
        ("1,2,3", [1, 2, 3]),
        ("1; 2; 3", [1, 2, 3]),
        ("1\t2\t3\n", [1, 2, 3]),
        ("  1   2 3", [1, 2, 3]),
        ("loss\n1\n2\n", [1, 2]),
        ('"loss 2"\n1\n', [1]),
        ("loss (nats)\n1\n2\n", [1, 2]),
        ("a,b\n1,2\n", [1, 2]),
        ("# epoch 3\nloss\n1\n# more\n2\n", [1, 2]),
        ("\ufeff-1e-300\n+2.5E3\n.5\n", [-1e-300, 2500, 0.5]),
    ],
)
def test_one_column_or_one_row_of_text(text: str, values: list[float]) -> None:
    assert parse_losses(text.encode(), "l.csv").tolist() == values


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("5\n\n1\n2\n", "line 2, column 1"),
        ("\n5\n1\n", "line 1, column 1"),
        ("loss\n\n5\n", "line 2, column 1"),
        ("# epoch 3\n5\n   \n1\n", "line 3, column 1"),
        ("5,,1,2\n", "line 1, column 2"),
        (",5\n", "line 1, column 1"),
        ("5,1,\n", "line 1, column 3"),
        ("5\t\t1\n", "line 1, column 2"),
        ("5; ;1\n", "line 1, column 2"),
        ("5\n,\n1\n", "line 2, column 1"),
        ("5\nNA\n1\n", "line 2, column 1"),
        ("N/A\n5\n1\n", "line 1, column 1"),
        ("null\n5\n", "line 1, column 1"),
        ("-\n5\n", "line 1, column 1"),
        ("5 None 1", "line 1, column 2"),
    ],
)
def test_a_missing_value_is_an_error_with_its_place(text: str, place: str) -> None:
    with pytest.raises(so.ProblemError, match=rf"^l\.csv, {place}.*missing"):
        parse_losses(text.encode(), "l.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5.0.1\n9\n1\n", r"line 1, column 1: '5\.0\.1' is not a number"),
        ("1_000\n9\n", "line 1, column 1: '1_000' is not a number"),
        ("1\ntwo\n", "line 2, column 1: 'two' is not a number"),
        ("1,2\n3,4\n", "2 rows of up to 2 columns"),
        ("1,5;2,5\n", "column 1: '1,5' is not a number"),
        ("1\n" + "x" * 10**6, r"line 2, column 1: 'x{40}\.\.\.' is not a number"),
        ("", "holds no numbers"),
        ("\n\n", "holds no numbers"),
        ("loss\n", "holds no numbers"),
        ("# nothing\n", "holds no numbers"),
    ],
)
def test_text_that_is_no_vector(text: str, message: str) -> None:
    with pytest.raises(so.ProblemError, match=message):
        parse_losses(text.encode(), "l.csv")


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<f2", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_arrays_of_numbers(dtype: str, version: tuple[int, int]) -> None:
    values = np.arange(5).astype(dtype)
    array = parse_losses(npy(header("(5,)", dtype), values.tobytes(), version), "l.npy")
    assert array.dtype == values.dtype and array.tolist() == values.tolist()
    assert array.flags.writeable


def test_what_numpy_saves_is_read(tmp_path: Path) -> None:
    matrix = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "m.npy", matrix)
    assert np.array_equal(read_losses(tmp_path / "m.npy", no_stdin), matrix)


@pytest.mark.parametrize(
    "content",
    [
        npy(header("(1000000000000,)"), bytes(64)),
        npy(header(f"({2**70},)"), bytes(64)),
        npy(header(f"({2**32}, {2**32})"), bytes(64)),
        npy(header("(-8,)"), bytes(64)),
        npy(header("(-2, -4)"), bytes(64)),
        npy(header("(8,)"), bytes(63)),
        npy(header("(8,)"), bytes(65)),
        npy(header("8"), bytes(64)),
        npy(header("(8.0,)"), bytes(64)),
        npy(header("(8,)", "<f9"), bytes(64)),
        npy("(" * 5000),
        npy("{'descr': '<f8'"),
        npy("[]"),
        npy("{1: 2}"),
        npy(" " * 100_000, version=(2, 0)),
        npy(header("(8,)"), bytes(64), (2, 0))[:20],
        b"\x93NUMPY\x01\x00\xff\xff" + bytes(8),
        b"\x93NUMPY\x09\x00" + bytes(64),
        b"\x93NUMPY",
    ],
)
def test_a_hostile_header_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "l.npy").write_bytes(content)
    with pytest.raises(so.ProblemError, match=r"l\.npy is not a NumPy array: "):
        read_losses(tmp_path / "l.npy", no_stdin)


@pytest.mark.parametrize("dtype", ["|O", "<U0", "|V0", "|S3", "<c16", "<M8[s]"])
def test_an_array_of_something_else(dtype: str) -> None:
    with pytest.raises(so.ProblemError, match="which are not numbers"):
        parse_losses(npy(header(f"({2**62},)", dtype)), "l.npy")


@pytest.mark.parametrize("shape", ["(0,)", f"(0, {2**70})"])
def test_an_array_without_entries(shape: str) -> None:
    with pytest.raises(so.ProblemError, match="holds no numbers"):
        parse_losses(npy(header(shape)), "l.npy")


def test_standard_input_is_text_or_an_array() -> None:
    buffer = BytesIO()
    np.save(buffer, np.arange(3, dtype=np.float32))
    array = read_losses(Path("-"), buffer.getvalue)
    assert array.dtype == np.float32 and array.tolist() == [0, 1, 2]
    assert read_losses(Path("-"), lambda: b"1\n2\n").tolist() == [1, 2]
    with pytest.raises(so.ProblemError, match="standard input, line 2, column 1: a value"):
        read_losses(Path("-"), lambda: b"1\n\n2\n")


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    path.write_text("old")

    def full(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        assert path.read_text() == "old"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device.*o\.json"):
        write_whole(path, full)
    assert [p.name for p in tmp_path.iterdir()] == ["o.json"] and path.read_text() == "old"


def test_a_disk_that_is_full_at_the_last_byte_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "o.json", lambda file: file.write(b"all"))
    assert list(tmp_path.iterdir()) == []


def test_links_and_modes_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "real.json", tmp_path / "link.json"
    path.write_text("old")
    path.chmod(0o600)
    link.symlink_to(path)
    write_whole(link, lambda file: file.write(b"new"))
    assert link.is_symlink() and path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
