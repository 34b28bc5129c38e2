"""Where a model's parameters are, and of what dtype."""

from __future__ import annotations

import torch
from torch import nn

from subsetopt_torch.model.batches import first_tensor
from subsetopt_torch.model.losses import weight_dtype

__all__ = ["device_of", "model_weight_dtype"]


def device_of(model: nn.Module, inputs: object = None) -> torch.device:
    """Return the device of the inputs; the model's, where they hold no tensor, or else the CPU."""
    tensor = first_tensor(inputs)
    placed = next(model.parameters(), None) if tensor is None else tensor
    return torch.device("cpu") if placed is None else placed.device


def model_weight_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of training weights where no losses are known, from the parameters' own."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    return weight_dtype(torch.float32 if parameter is None else parameter.dtype)
