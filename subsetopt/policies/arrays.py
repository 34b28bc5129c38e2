"""The few array operations that policies share, for NumPy arrays and torch tensors alike.

Policies know nothing of torch: their arithmetic goes through the array API. The package
array-api-compat is imported on first use, so that ``import subsetopt`` loads NumPy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "as_float64", "detached", "from_host", "namespace", "to_host"]

Array = Any  # a NumPy array, a torch tensor on any device, or another array-API array


def namespace(array: Array) -> Any:
    """Return the array-API namespace of an array."""
    from array_api_compat import array_namespace

    return array_namespace(array)


def detached(array: Array) -> Array:
    """Return a tensor without its gradient, and any other array as it is."""
    return array.detach() if hasattr(array, "detach") else array


def as_float64(array: Array) -> Array:
    """Return the array in float64 on its device, without its gradient; float64 is not copied."""
    array = detached(array)
    xp = namespace(array)
    return xp.astype(array, xp.float64, copy=False)


def from_host(values: NDArray[Any], like: Array) -> Array:
    """Return host values as an array of the kind of ``like``, on its device."""
    from array_api_compat import device

    return namespace(like).asarray(values, device=device(like))


def to_host(array: Array) -> NDArray[Any]:
    """Return a NumPy array; one transfer for a tensor on a device, no copy for one on the host.

    Half types are widened to float32, since NumPy has no bfloat16; ``MeanMatching.tolerance`` is
    the same for them as for float32.
    """
    if isinstance(array, np.ndarray):
        return array
    from array_api_compat import is_torch_array

    if is_torch_array(array):
        array = array.detach()
        if array.dtype.is_floating_point and array.dtype.itemsize < 4:
            array = array.float()
        array = array.cpu()
    return np.asarray(array)
