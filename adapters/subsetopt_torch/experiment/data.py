"""The data sets that ``subsetopt train`` knows; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subsetopt import OptionError, ProblemError
from subsetopt.errors import did_you_mean

__all__ = ["DATASETS", "DataSet", "check_data_name", "load_data", "read_idx"]

# Seed of the split of the digits into training and test samples.
_SPLIT_SEED = 0
_MNIST_SITE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A classification data set in memory.

    Attributes
    ----------
    name
        The name to pass to ``--data``.
    train_x, test_x
        Features in [0, 1], float32, shape (samples, features).
    train_y, test_y
        Class numbers, int64, shape (samples,).
    classes
        Number of classes.
    """

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int


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
        If the file is no such file, or is cut short.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read()
        zero, kind, ndim = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
        if (zero, kind) != (0, 8):
            raise ValueError("not unsigned bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise ProblemError(f"{path} is not a gzipped IDX file of bytes: {error}.") from None


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
    images, labels, test_images, test_labels = (read_idx(folder / name) for name in _MNIST_FILES)
    return DataSet(
        "mnist", _pixels(images), _labels(labels), _pixels(test_images), _labels(test_labels), 10
    )


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


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255.0)


def _labels(labels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))


DATASETS: dict[str, Callable[[Path | None], DataSet]] = {"digits": _digits, "mnist": _mnist}
