"""Losses whose gradients with respect to the outputs are known in closed form."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from subsetopt.policies import (
    binary_cross_entropy_gradients,
    cross_entropy_gradients,
    squared_error_gradients,
)

__all__ = ["closed_form", "is_known", "is_of_outputs"]


def is_known(loss_fn: object) -> bool:
    """Return whether a loss has a closed form for some outputs and targets."""
    return _options(loss_fn) is not None


def is_of_outputs(loss_fn: object) -> bool:
    """Return whether the gradients of a known loss are with respect to whatever it was given."""
    options = _options(loss_fn)
    return options is not None and options["loss"] == "mse"


def closed_form(loss_fn: object, outputs: object, targets: object) -> Tensor | None:
    """Return the gradients of a known loss with respect to the logits, of the outputs' shape.

    The known losses are cross entropy, binary cross entropy and the squared error, as modules of
    ``torch.nn`` or ``functools.partial`` of the functions in ``torch.nn.functional``, with
    ``reduction="none"``. Cross entropy has outputs of shape (n, C), the others of shape (n,). Cross
    entropies of logarithms or probabilities (``nll_loss``, ``binary_cross_entropy``) are those of
    the logits that went into a log-softmax or a sigmoid; the squared error, of the outputs.

    Returns
    -------
    Tensor | None
        None for any other loss.
    """
    options = _options(loss_fn)
    if options is None or not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return None
    loss = options.pop("loss")
    if loss in ("cross_entropy", "nll"):
        return _cross_entropy(outputs, targets, options) if outputs.ndim == 2 else None
    if outputs.ndim != 1 or outputs.shape != targets.shape:
        return None
    if loss == "mse":
        return torch.as_tensor(squared_error_gradients(outputs, targets))
    weight = options.pop("weight")
    gradients: Tensor = (
        outputs - targets
        if loss == "probabilities"
        else binary_cross_entropy_gradients(outputs, targets, **options)
    )
    scaled = gradients if weight is None else gradients * weight.to(gradients.dtype)
    return scaled if scaled.shape == outputs.shape else None


def _cross_entropy(outputs: Tensor, targets: Tensor, options: dict[str, Any]) -> Tensor | None:
    numbers = targets.ndim == 1 and not targets.is_floating_point()
    options = {"label_smoothing": 0.0, **options}
    if not numbers and targets.shape != outputs.shape:
        return None
    gradients: Tensor = cross_entropy_gradients(
        outputs,
        targets,
        label_smoothing=options["label_smoothing"],
        class_weights=options["weight"],
        ignore_index=options["ignore_index"],
    )
    return gradients


# The options that each known loss may have, with torch's defaults.
_KNOWN: dict[str, dict[str, Any]] = {
    "cross_entropy": {"weight": None, "ignore_index": -100, "label_smoothing": 0.0},
    "binary_cross_entropy": {"weight": None, "pos_weight": None},
    "mse": {},
    "nll": {"weight": None, "ignore_index": -100},
    "probabilities": {"weight": None},
}
_MODULES: dict[type, str] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.BCEWithLogitsLoss: "binary_cross_entropy",
    nn.BCELoss: "probabilities",
    nn.MSELoss: "mse",
    nn.NLLLoss: "nll",
}
_FUNCTIONS: dict[Any, str] = {
    functional.cross_entropy: "cross_entropy",
    functional.binary_cross_entropy_with_logits: "binary_cross_entropy",
    functional.binary_cross_entropy: "probabilities",
    functional.mse_loss: "mse",
    functional.nll_loss: "nll",
}


def _options(loss_fn: object) -> dict[str, Any] | None:
    """Return the name of a known loss and its options as they are now, or None."""
    if type(loss_fn) in _MODULES:
        loss = _MODULES[type(loss_fn)]
        options = {name: getattr(loss_fn, name) for name in (*_KNOWN[loss], "reduction")}
        hooked = vars(loss_fn)["_forward_hooks"] or vars(loss_fn)["_forward_pre_hooks"]
        plain = not hooked and "forward" not in vars(loss_fn)
    elif isinstance(loss_fn, partial) and loss_fn.func in _FUNCTIONS:
        loss, options = _FUNCTIONS[loss_fn.func], loss_fn.keywords
        plain = not loss_fn.args and set(options) <= {*_KNOWN[loss], "reduction"}
    else:
        return None
    if not plain or options.get("reduction") != "none":
        return None
    options = {**_KNOWN[loss], **options, "loss": loss}
    del options["reduction"]
    return options
