"""Irreducible losses for RHO-LOSS: what a model that never saw a sample makes of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from subsetopt.inputs import checked_choice
from subsetopt.policies import to_host
from subsetopt_torch.model.losses import LossFunction
from subsetopt_torch.proxies.fitting import Fit, OnEpoch, place, seeded_streams
from subsetopt_torch.proxies.samples import Pairs, Samples

__all__ = ["irreducible_losses"]


def irreducible_losses(
    model: nn.Module,
    holdout: Pairs,
    data: Pairs,
    *,
    epochs: int,
    keep: Literal["best", "last"] = "best",
    lr: float | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    batch_size: int = 128,
    loss_fn: LossFunction | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    workers: int = 0,
    on_epoch: OnEpoch | None = None,
) -> NDArray[np.float64]:
    """Train a small model on held-out data, and return its losses on the training data.

    Parameters
    ----------
    model
        The small model; trained in place, its modules in the modes they are in.
    holdout, data
        The held-out data and the training data, as for :func:`train_proxy`. They must not overlap.
    epochs
        Passes over the held-out data, at least 0.
    keep
        ``"best"`` returns the losses after the epoch whose mean loss on the training data is the
        lowest (the authors' rule), at the price of a forward pass over these data per epoch;
        ``"last"`` those after the last epoch.
    lr, optimizer, batch_size, loss_fn, seed, device, workers, on_epoch
        As for :func:`train_proxy`. The loss function must be the one of the training later on.

    Returns
    -------
    ndarray
        Shape (n,), float64. Entry i is the loss of row i of ``data``; i is the sample id that the
        policy ``rho-loss`` looks up. Keep the array with ``numpy.save``.

    Raises
    ------
    OptionError, ProblemError
        As for :func:`train_proxy`, or if ``keep`` is none of its values.

    References
    ----------
    Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not
    Yet Learnt, ICML 2022.

    Examples
    --------
    >>> import torch
    >>> x, y = torch.linspace(-1, 1, 40)[:, None], torch.arange(40) // 20
    >>> y[3] = 1  # a wrong label
    >>> losses = irreducible_losses(
    ...     torch.nn.Linear(1, 2), (x[::2], y[::2]), (x[1::2], y[1::2]), epochs=20, lr=0.5
    ... )
    >>> int(losses.argmax())
    1
    """
    checked_choice("keep", keep, ("best", "last"), listed=True)
    loss_fn = loss_fn or nn.CrossEntropyLoss(reduction="none")
    fit = Fit(loss_fn, epochs, batch_size, lr, optimizer, seed)
    place_of_model = place(model, device)
    training = Samples(data, place_of_model, workers)
    best: NDArray[np.float64] | None = None

    def after_epoch(epoch: int, loss: float) -> bool:
        nonlocal best
        if keep == "best":
            losses = _losses(fit, model, training)
            if best is None or losses.mean() < best.mean() or np.isnan(best).any():
                best = losses
        return bool(on_epoch and on_epoch(epoch, loss))

    with seeded_streams(seed, place_of_model):
        fit.train(model, Samples(holdout, place_of_model, workers), after_epoch)
        return _losses(fit, model, training) if best is None else best


def _losses(fit: Fit, model: nn.Module, samples: Samples) -> NDArray[np.float64]:
    batches = fit.score(model, samples)
    return np.concatenate([to_host(losses).astype(np.float64) for losses, _ in batches])
