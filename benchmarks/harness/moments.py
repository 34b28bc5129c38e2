"""Moments of real training runs: what a policy is told of a batch, and the gradients it stands for.

The network of ``subsetopt train`` is trained with plain SGD on full batches. At certain steps
several random batches are written down: the signals of every sample, and the Gram matrix of the
per-sample gradients over all parameters, from which the distance of any weighted subset gradient
from the batch gradient follows without the gradients themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from benchmarks.harness.recorder import BATCH, LEARNING_RATE

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Moment", "record_moments"]

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Moment:
    """One batch at one step of training.

    Attributes
    ----------
    data, step, epoch
        The data set, the updates made before, and the same in epochs.
    signals
        Everything that policies may ask for, one row per sample.
    gram
        Inner products of the per-sample gradients over all parameters, shape (n, n), float64.
    """

    data: str
    step: int
    epoch: float
    signals: dict[str, NDArray[Any]]
    gram: NDArray[np.float64]

    @property
    def n(self) -> int:
        return len(self.gram)

    def distance(self, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
        """Return ``||sum w_i g_i - g|| / ||g||``, with g the mean gradient of the batch."""
        mean = np.full(self.n, 1.0 / self.n)
        off = -mean
        np.add.at(off, indices, weights)
        length = math.sqrt(max(0.0, float(mean @ self.gram @ mean)))
        return math.sqrt(max(0.0, float(off @ self.gram @ off))) / length


def record_moments(
    data: str, data_dir: Path | None, steps: Sequence[int], batches: int, seed: int = 0
) -> list[Moment]:
    """Train, and return ``batches`` moments at each of the steps."""
    import torch
    from torch import nn

    from subsetopt_torch.experiment.comparison import make_model, torch_threads
    from subsetopt_torch.experiment.data import load_data

    found = load_data(data, data_dir)
    model = make_model(found.train_x.shape[1], found.classes, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    per_epoch = -(-len(found.train_x) // BATCH)
    kept: list[Moment] = []
    with torch_threads(1):
        stream = _rows(len(found.train_x), order)
        for step in track(range(max(steps) + 1), f"Training on {data}", transient=True):
            if step in steps:
                for _ in range(batches):
                    rows = torch.from_numpy(rng.choice(len(found.train_x), BATCH, replace=False))
                    signals, gram = observe(model, found.train_x[rows], found.train_y[rows])
                    signals["ids"] = rows.numpy()
                    kept.append(Moment(data, step, step / per_epoch, signals, gram))
            rows = next(stream)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(found.train_x[rows]), found.train_y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return kept


def _rows(size: int, order: Any) -> Iterator[Tensor]:
    import torch

    while True:
        yield from torch.split(torch.randperm(size, generator=order), BATCH)


def observe(
    model: nn.Sequential, x: Tensor, y: Tensor
) -> tuple[dict[str, NDArray[Any]], NDArray[np.float64]]:
    """Return the signals of a batch, and the Gram matrix of its per-sample gradients.

    The gradient of sample i with respect to a linear layer's weight is the outer product of the
    layer's input a_i and the gradient d_i of the loss with respect to the layer's output, so that
    the inner product of two samples' gradients is (a_i . a_j + 1) (d_i . d_j), the 1 for the bias.
    """
    import torch
    from torch import nn

    inputs, outputs, hidden = [], [], x
    for layer in model:
        if isinstance(layer, nn.Linear):
            inputs.append(hidden.detach())
        hidden = layer(hidden)
        if isinstance(layer, nn.Linear):
            outputs.append(hidden)
    losses = nn.functional.cross_entropy(hidden, y, reduction="none")
    deltas = torch.autograd.grad(losses.sum(), outputs)
    gram = np.zeros((len(x), len(x)))
    for a, d in zip(inputs, deltas, strict=True):
        a64, d64 = a.double().numpy(), d.double().numpy()
        gram += (a64 @ a64.T + 1.0) * (d64 @ d64.T)
    logit_gradients, features = deltas[-1].numpy(), inputs[-1].numpy()
    last = np.einsum("nc,nh->nch", logit_gradients, features).reshape(len(x), -1)
    signals = {
        "losses": losses.detach().numpy(),
        "logits": hidden.detach().numpy(),
        "targets": y.numpy(),
        "logit_gradients": logit_gradients,
        "upper_bound": np.linalg.norm(logit_gradients, axis=1),
        "gradient_norms": np.sqrt(np.diagonal(gram)),
        "features": features,
        "last_layer_gradients": last,
        "positions": np.arange(len(x)),
    }
    return signals, gram
