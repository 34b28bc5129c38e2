"""Recorded losses: what a classifier's batches look like before, early and late in training.

The network of ``subsetopt train`` is trained with plain SGD on full batches; after certain epochs
the loss of every training sample is written down. A batch of n is n of these, drawn without
replacement, which is what a scoring pass at that moment would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

if TYPE_CHECKING:
    from torch import Tensor, nn

    from subsetopt_torch.experiment.data import DataSet

__all__ = ["EPOCHS", "Recording", "record"]

EPOCHS = (0, 1, 8, 30)
BATCH = 128
LEARNING_RATE = 0.1


@dataclass(frozen=True, slots=True)
class Recording:
    """The losses of all training samples after each recorded epoch."""

    data: str
    losses: dict[int, NDArray[np.float32]]

    @property
    def size(self) -> int:
        return int(next(iter(self.losses.values())).size)

    def batch(self, epoch: int, n: int, seed: int) -> NDArray[np.float32]:
        """Return the losses of n random samples after an epoch."""
        rows = np.random.default_rng((seed, n, epoch)).choice(self.size, n, replace=False)
        return self.losses[epoch][rows]

    @classmethod
    def load_or_make(cls, data: str | None, data_dir: Path | None, cache: Path) -> Recording:
        """Return the recording from the cache, or train; without a name MNIST if it is there."""
        name = data or _available(data_dir)
        path = cache / f"recorded-{name}.npz"
        if path.is_file():
            with np.load(path) as stored:
                return cls(name, {int(epoch): stored[epoch] for epoch in stored.files})
        losses = record(name, data_dir)
        named: dict[str, Any] = {str(epoch): values for epoch, values in losses.items()}
        cache.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, **named)
        return cls(name, losses)


def record(
    data: str, data_dir: Path | None = None, epochs: tuple[int, ...] = EPOCHS, seed: int = 0
) -> dict[int, NDArray[np.float32]]:
    """Train, and return the losses of every training sample after each of the epochs."""
    import torch
    from torch import nn

    from subsetopt_torch.experiment.comparison import make_model, torch_threads
    from subsetopt_torch.experiment.data import load_data

    found = load_data(data, data_dir)
    model = make_model(found.train_x.shape[1], found.classes, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    # Training uses one thread, because threads that share their cores wait for each other.
    with torch_threads(1):
        kept = {0: _losses(model, found)} if 0 in epochs else {}
        for epoch in track(range(1, max(epochs) + 1), f"Training on {data}", transient=True):
            for rows in torch.split(torch.randperm(len(found.train_x), generator=order), BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(found.train_x[rows]), found.train_y[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if epoch in epochs:
                kept[epoch] = _losses(model, found)
    return kept


def _available(data_dir: Path | None) -> str:
    from subsetopt import OptionError
    from subsetopt_torch.experiment.data import load_data

    try:
        load_data("mnist", data_dir)
    except OptionError:
        return "digits"
    return "mnist"


def _losses(model: nn.Module, data: DataSet) -> NDArray[np.float32]:
    import torch
    from torch import nn

    with torch.no_grad():
        parts: list[Tensor] = [
            nn.functional.cross_entropy(model(x), y, reduction="none")
            for x, y in zip(data.train_x.split(8192), data.train_y.split(8192), strict=True)  # type: ignore[no-untyped-call]
        ]
    return torch.cat(parts).numpy()
