"""The data sets that ``subsetopt train`` knows; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsetopt import OptionError, ProblemError
from subsetopt.errors import did_you_mean

__all__ = ["DATASETS", "DataSet", "check_data_name", "load_data", "read_idx"]

# Seed of the split of the digits into training and test samples.
_SPLIT_SEED = 0
_MNIST_CLASSES = 10
# Bytes in the largest file that is read: 20 times those of MNIST.
_MOST_BYTES = 1_000_000_000
_MNIST_SITE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A classification data set in memory."""

    name: str  #: the name to pass to ``--data``
    train_x: Tensor  #: (samples, features) features in [0, 1], float32
    train_y: Tensor  #: (samples,) class numbers, int64
    test_x: Tensor  #: (samples, features) features in [0, 1], float32
    test_y: Tensor  #: (samples,) class numbers, int64
    classes: int  #: number of classes


def check_data_name(name: str) -> None:
    """Raise unless a data set of that name is known.

    Raises
    ------
    OptionError
        If there is none, with the nearest name.
    """
    if name not in DATASETS:
        raise OptionError(
            f"no data set named {name!r}.{did_you_mean(name, DATASETS)} "
            f"Known: {', '.join(DATASETS)}."
        )


def load_data(name: str, data_dir: Path | None = None) -> DataSet:
    """Return a data set.

    Parameters
    ----------
    name
        ``"digits"`` (comes with scikit-learn) or ``"mnist"``.
    data_dir
        Folder that holds ``mnist/``; None takes the environment variable SUBSETOPT_DATA.

    Raises
    ------
    OptionError
        If there is no such data set, or its files or a package are missing; the message says
        where to get them.
    ProblemError
        If a file is damaged.
    """
    check_data_name(name)
    return DATASETS[name](data_dir)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of a gzipped IDX file of bytes.

    Raises
    ------
    ProblemError
        If the file is no such file, is damaged, or holds more or less than its header says.
    OSError
        If the file cannot be read.
    """
    with path.open("rb") as packed:
        try:
            return _unpacked(packed)
        except (gzip.BadGzipFile, EOFError, struct.error, ValueError, zlib.error) as error:
            raise ProblemError(f"{path} is not a gzipped IDX file of bytes: {error}.") from None


def _unpacked(packed: IO[bytes]) -> NDArray[np.uint8]:
    """Return the array; no more is unpacked than the header promises, whatever follows."""
    with gzip.open(packed) as file:
        zero, kind, ndim = struct.unpack(">HBB", file.read(4))
        if (zero, kind) != (0, 8):
            raise ValueError("not unsigned bytes")
        shape = struct.unpack(f">{ndim}I", file.read(4 * ndim))
        size = math.prod(shape)
        if size > _MOST_BYTES:
            raise ValueError(f"its header promises {size:,} bytes, more than {_MOST_BYTES:,}")
        raw = file.read(size)
        if len(raw) < size or file.read(1):
            raise ValueError(
                f"it holds {'less' if len(raw) < size else 'more'} than its header says"
            )
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _digits(data_dir: Path | None) -> DataSet:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels, every fifth (shuffled) for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise OptionError(
            f"the data set 'digits' comes with scikit-learn, which cannot be imported ({error}): "
            "pip install 'subsetopt[bench]'"
        ) from None
    bunch = load_digits()
    x = torch.from_numpy((bunch.data / 16.0).astype(np.float32))
    y = torch.from_numpy(bunch.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(_SPLIT_SEED).permutation(len(x)))
    test, train = order[::5], order[torch.arange(len(x)) % 5 != 0]
    return DataSet("digits", x[train], y[train], x[test], y[test], 10)


def _mnist(data_dir: Path | None) -> DataSet:
    folder = _mnist_folder(data_dir)
    images, labels, test_images, test_labels = (folder / name for name in _MNIST_FILES)
    train_x, train_y = _samples(images, labels)
    test_x, test_y = _samples(test_images, test_labels)
    if train_x.shape[1] != test_x.shape[1]:
        raise ProblemError(
            f"{images} has {train_x.shape[1]} pixels per image, {test_images} {test_x.shape[1]}."
        )
    return DataSet("mnist", train_x, train_y, test_x, test_y, _MNIST_CLASSES)


def _samples(images: Path, labels: Path) -> tuple[Tensor, Tensor]:
    """Return pixels in [0, 1] and class numbers from a pair of files that belong together."""
    pixels, classes = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or pixels.size == 0:
        raise ProblemError(f"{images} holds no images: its shape is {pixels.shape}.")
    if classes.shape != (len(pixels),):
        raise ProblemError(
            f"{labels} does not belong to {images}: its shape is {classes.shape}, for "
            f"{len(pixels):,} images."
        )
    if classes.max() >= _MNIST_CLASSES:
        raise ProblemError(f"{labels} has class {classes.max()}; classes are 0 to 9.")
    scaled = pixels.reshape(len(pixels), -1).astype(np.float32) / 255.0
    return torch.from_numpy(scaled), torch.from_numpy(classes.astype(np.int64))


def _mnist_folder(data_dir: Path | None) -> Path:
    place = data_dir or (Path(p) if (p := os.environ.get("SUBSETOPT_DATA")) else None)
    advice = (
        f"The four .gz files are published at {_MNIST_SITE}: put them into <folder>/mnist/ and "
        "pass --data-dir <folder> or set SUBSETOPT_DATA."
    )
    if place is None:
        raise OptionError(f"the data set 'mnist' needs a data folder. {advice}")
    folder = place / "mnist"
    missing = [name for name in _MNIST_FILES if not (folder / name).is_file()]
    if missing:
        raise OptionError(f"{folder} lacks {', '.join(missing)}. {advice}")
    return folder


DATASETS: dict[str, Callable[[Path | None], DataSet]] = {"digits": _digits, "mnist": _mnist}
