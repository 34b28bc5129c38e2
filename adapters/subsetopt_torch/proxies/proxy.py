"""Select via Proxy: a small model says which samples are worth training the large one on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subsetopt import ProblemError
from subsetopt.policies import UncertaintyScore, to_host, uncertainty_scores
from subsetopt.policies.uncertainty import check_uncertainty_score
from subsetopt_torch.model.losses import LossFunction
from subsetopt_torch.model.outputs import find_logits
from subsetopt_torch.proxies.fitting import Fit, OnEpoch, place, seeded_streams
from subsetopt_torch.proxies.samples import Pairs, Samples

__all__ = ["ProxyScores", "train_proxy"]


@dataclass(frozen=True, eq=False, slots=True)
class ProxyScores:
    """The scores that a proxy gives every sample of a data set.

    Attributes
    ----------
    scores
        How unsure the proxy is of each sample, shape (n,), float64; larger for more wanted.
    losses
        The loss of each sample, shape (n,), float64.
    logits
        The proxy's outputs, shape (n, classes), float32; None where they were not kept.
    score
        Name of the uncertainty score.
    training_losses
        The mean training loss of each epoch.
    seconds
        Seconds that training and scoring took.
    """

    scores: NDArray[np.float64] = field(repr=False)
    losses: NDArray[np.float64] = field(repr=False)
    logits: NDArray[np.float32] | None = field(repr=False)
    score: UncertaintyScore
    training_losses: tuple[float, ...]
    seconds: float

    @property
    def epochs(self) -> int:
        """Passes over the data that were made."""
        return len(self.training_losses)


def train_proxy(
    model: nn.Module,
    data: Pairs,
    *,
    epochs: int,
    lr: float | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    batch_size: int = 128,
    loss_fn: LossFunction | None = None,
    score: UncertaintyScore = "entropy",
    keep_logits: bool = False,
    seed: int = 0,
    device: torch.device | str | None = None,
    workers: int = 0,
    on_epoch: OnEpoch | None = None,
) -> ProxyScores:
    """Train a small model on all the data, briefly, and score every sample.

    Parameters
    ----------
    model
        The proxy; trained in place, its modules in the modes they are in.
    data
        A pair (x, y) of tensors (or of tuples and dicts of them) with the samples along dimension
        0, or a map-style data set of pairs. Row i becomes entry i of the scores.
    epochs
        Passes over the data, at least 0; the paper stops early, after at most a quarter of the
        epochs that the target is trained for. 0 scores with the model as it is.
    lr, optimizer
        The learning rate of SGD with momentum 0.9, or an optimizer of the model's parameters.
        Exactly one of them must be given, unless there are no epochs.
    batch_size
        Samples per batch, in training and scoring.
    loss_fn
        ``loss_fn(outputs, targets)``, one loss per sample; cross entropy by default.
    score
        ``"entropy"``, ``"margin"``, ``"confidence"`` (see
        :func:`subsetopt.policies.uncertainty_scores`) or ``"loss"``.
    keep_logits
        Whether to keep the logits of all samples as well, in float32.
    seed
        A nonnegative int that decides the order of the samples and what dropout draws. The model's
        own start is up to the caller.
    device
        Where to train; the model is moved there. None leaves it where it is.
    workers
        Processes that load the items of a data set; 0 loads in this one.
    on_epoch
        Called after every epoch with its number, counted from 1, and its mean training loss: for a
        progress bar, a learning-rate schedule, or to stop early by returning True.

    Returns
    -------
    ProxyScores

    Raises
    ------
    OptionError
        If an option is out of range, or lr and optimizer are both given or missing.
    ProblemError
        If the data are malformed, the loss is reduced, the model has no logits to score, or
        training diverges.

    Notes
    -----
    Scoring runs in eval mode. With the same model, data and seed the scores are the same, bit by
    bit on a CPU; random streams are left as they were.

    References
    ----------
    Coleman et al., Select via Proxy, section 3.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(-1, 1, 41)[:, None]
    >>> proxy = train_proxy(
    ...     torch.nn.Linear(1, 2), (x, (x[:, 0] > 0).long()), epochs=20, lr=0.5, batch_size=8
    ... )
    >>> bool(abs(x[proxy.scores.argmax(), 0]) < 0.3)
    True
    """
    start = time.perf_counter()
    check_uncertainty_score(score)
    loss_fn = loss_fn or nn.CrossEntropyLoss(reduction="none")
    fit = Fit(loss_fn, epochs, batch_size, lr, optimizer, seed)
    samples = Samples(data, place(model, device), workers)
    with seeded_streams(seed, samples.device):
        history = fit.train(model, samples, on_epoch or _go_on)
        scores, losses, logits = _scored(fit, model, samples, score, keep_logits)
    seconds = time.perf_counter() - start
    return ProxyScores(scores, losses, logits, score, tuple(history), seconds)


def _go_on(epoch: int, loss: float) -> None:
    """Keep training."""


def _scored(
    fit: Fit, model: nn.Module, samples: Samples, score: UncertaintyScore, keep_logits: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32] | None]:
    """Return scores, losses and logits (None where they are not kept) of all samples."""
    scores, losses, logits = [], [], []
    for values, outputs in fit.score(model, samples):
        losses.append(to_host(values).astype(np.float64))
        if score != "loss":
            scores.append(to_host(uncertainty_scores(_logits(outputs, values), score)))
        if keep_logits:
            logits.append(to_host(_logits(outputs, values)).astype(np.float32))
    return (
        np.concatenate(losses if score == "loss" else scores),
        np.concatenate(losses),
        np.concatenate(logits) if keep_logits else None,
    )


def _logits(outputs: object, losses: Tensor) -> Tensor:
    logits = find_logits(outputs, losses.shape[0])
    if logits is None:
        raise ProblemError(
            f"an uncertainty score needs logits, and a {type(outputs).__name__} holds no tensor "
            f"with a row for each of {losses.shape[0]} samples; use score='loss', or return the "
            "logits first."
        )
    return logits
