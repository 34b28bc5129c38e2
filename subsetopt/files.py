"""Files: loss vectors that users hand in, and results that are written whole or not at all."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError, ProblemError

__all__ = ["parse_losses", "read_losses", "write_whole"]

# The first bytes of every .npy file.
_NPY = b"\x93NUMPY"
_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Words that stand for a missing value, in lower case. They are no header of a column.
_MISSING = {"", "-", "--", "?", ".", "na", "n/a", "#n/a", "<na>", "nil", "none", "null", "missing"}
# The longest cell that a message quotes in full, in characters.
_QUOTED = 40


def read_losses(path: Path, stdin: Callable[[], bytes]) -> NDArray[Any]:
    """Return the vector in a file.

    Parameters
    ----------
    path
        A ``.npy``, ``.csv`` or ``.txt`` file, or ``-`` for standard input, which may hold any of
        them.
    stdin
        Returns the bytes of standard input.

    Raises
    ------
    OptionError
        If the name ends in something else.
    ProblemError
        If the content is damaged, empty or has a missing value; the message says where.
    OSError
        If the file cannot be read.
    """
    if str(path) == "-":
        return parse_losses(stdin(), "standard input")
    if path.suffix not in (".npy", ".csv", ".txt"):
        raise OptionError(f"{path} must end in .npy, .csv or .txt.")
    content = path.read_bytes()
    if path.suffix == ".npy":
        return _array(content, str(path))
    return _numbers(content, str(path))


def parse_losses(content: bytes, name: str) -> NDArray[Any]:
    """Return the vector in bytes of either kind, binary or text; messages call them ``name``."""
    return _array(content, name) if content.startswith(_NPY) else _numbers(content, name)


def _array(content: bytes, name: str) -> NDArray[Any]:
    """Return the array of a .npy file, whose header is believed only as far as its data goes."""
    stream = BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"its version is {version[0]}.{version[1]}")
        shape, in_columns, dtype = _HEADERS[version](stream)
    except Exception as error:
        # A header is a Python literal: what is wrong with it comes in many classes.
        raise ProblemError(f"{name} is not a NumPy array: {error}") from None
    if dtype.kind not in "biuf":
        raise ProblemError(f"{name} holds values of type {dtype}, which are not numbers.")
    promised, there = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if min(shape, default=0) < 0 or promised != there:
        raise ProblemError(
            f"{name} is not a NumPy array: its header promises {promised:,} bytes of data, and "
            f"{there:,} follow."
        )
    if promised == 0:
        raise ProblemError(f"{name} holds no numbers.")
    array = np.frombuffer(content, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if in_columns else "C").copy()


def _numbers(content: bytes, name: str) -> NDArray[np.float64]:
    """Return the numbers of one column or one row; a first line that begins with a word is a head.

    A position is that of a line or of a cell, so a missing value is an error: without it, all
    values behind would move up.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ProblemError(f"{name} is not a text file.") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    rows = [
        (number, _cells(line))
        for number, line in enumerate(lines, start=1)
        if not line.lstrip().startswith("#") and lines != [""]
    ]
    if rows and _is_header(rows[0][1]):
        rows = rows[1:]
    values = [
        _number(cell, f"{name}, line {number}, column {column}")
        for number, cells in rows
        for column, cell in enumerate(cells, start=1)
    ]
    if not values:
        raise ProblemError(f"{name} holds no numbers.")
    width = max(len(cells) for _, cells in rows)
    if len(rows) > 1 and width > 1:
        raise ProblemError(
            f"{name} has {len(rows)} rows of up to {width} columns; expected one column or one row."
        )
    return np.array(values, dtype=np.float64)


def _cells(line: str) -> list[str]:
    """Return the cells of a line between semicolons, else tabs, else commas, else blanks."""
    for separator in (";", "\t", ","):
        if separator in line.strip(" "):
            return [cell.strip() for cell in line.split(separator)]
    return line.split() or [""]


def _is_header(cells: list[str]) -> bool:
    """Whether a first line names columns: it begins with a letter, and no cell is a value."""
    first = cells[0].lstrip("\"'")
    begins_with_letter = first[:1].isalpha() or first[:1] == "_"
    return begins_with_letter and not any(
        cell.lower() in _MISSING or _is_number(cell) for cell in cells
    )


def _number(cell: str, place: str) -> float:
    """Return the number in a cell."""
    if cell.lower() in _MISSING:
        written = f" ({cell})" if cell else ""
        raise ProblemError(f"{place}: a value is missing{written}. Fill it in, or drop its sample.")
    if not _is_number(cell):
        shown = cell if len(cell) <= _QUOTED else f"{cell[:_QUOTED]}..."
        raise ProblemError(f"{place}: {shown!r} is not a number.")
    return float(cell)


def _is_number(cell: str) -> bool:
    """Whether a text is a number; ``1_000`` is one for Python only."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def write_whole(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside its place and move it there, so that an old one stays until then.

    Parameters
    ----------
    path
        Where the file belongs. A link is followed; the mode of an old file is kept.
    fill
        Writes the content into the open file that it is given.

    Raises
    ------
    OSError
        If something cannot be written. Nothing is left behind.
    """
    path = path.resolve()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(_mode(path))
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # that of a full disk names no file
        raise


def _mode(path: Path) -> int:
    """Return the permission bits of a file, or those that a new one gets."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
