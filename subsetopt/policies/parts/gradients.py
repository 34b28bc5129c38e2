"""Gradients of the common losses with respect to a model's outputs, in closed form.

The code keeps to the array API, for NumPy arrays and for torch tensors on any device. Each row is
the gradient of that sample's own loss, as torch's ``reduction="none"`` has it: a class weight
scales its row and is not divided by the sum of the weights. float32 and float64 stay as they are,
half types are computed and returned in float32, integers in float64.
"""

from __future__ import annotations

import math
from typing import Any

from subsetopt.errors import OptionError, ProblemError
from subsetopt.policies.arrays import Array, detached, namespace

__all__ = [
    "binary_cross_entropy_gradients",
    "cross_entropy_gradients",
    "row_norms",
    "squared_error_gradients",
]


def cross_entropy_gradients(
    logits: Array,
    targets: Array,
    *,
    label_smoothing: float = 0.0,
    class_weights: Array | None = None,
    ignore_index: int = -100,
) -> Array:
    r"""Return the gradients of the cross entropy with respect to the logits.

    With ``p = softmax(z)`` and the weighted, smoothed targets
    ``q_c = w_c ((1 - s) y_c + s / C)`` the loss is ``-sum_c q_c log p_c`` and its gradient
    ``p sum_c q_c - q``: for plain labels ``softmax(z) - y``.

    Parameters
    ----------
    logits
        Shape (n, C).
    targets
        Class numbers, shape (n,), or class probabilities, shape (n, C).
    label_smoothing
        The amount s in [0, 1].
    class_weights
        The weights w, shape (C,); None: 1 for each class.
    ignore_index
        Rows with this class number have the gradient 0. For class probabilities it has no meaning.

    Returns
    -------
    Array
        Shape (n, C). Rows sum to 0.

    Raises
    ------
    ProblemError
        If shapes do not fit, or (for arrays in the host's memory) a class number is out of range.
    OptionError
        If ``label_smoothing`` is not in [0, 1].

    Notes
    -----
    Small gradients keep their relative precision: where a sample is nearly certain, ``1 - p`` is
    the sum over the other classes and no difference.

    References
    ----------
    Katharopoulos & Fleuret, Not All Samples Are Created Equal, eq. 20 (the norm of a row is its
    upper bound, up to a constant).

    Examples
    --------
    >>> import numpy as np
    >>> cross_entropy_gradients(np.zeros((2, 2)), np.array([0, 1]))
    array([[-0.5,  0.5],
           [ 0.5, -0.5]])
    """
    logits = _floating(logits)
    xp = namespace(logits)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ProblemError(
            f"logits must have shape (n, C) with at least one class, got {tuple(logits.shape)}."
        )
    targets = _beside(targets, logits)
    none_ignored = _check_targets(logits, targets, ignore_index)
    if not 0.0 <= label_smoothing <= 1.0:
        raise OptionError(f"label_smoothing must be in [0, 1], got {label_smoothing!r}.")
    if targets.ndim == 2:
        return _softmax_minus(logits, _weighted(targets, logits, label_smoothing, class_weights))
    numbers = xp.arange(logits.shape[1], dtype=targets.dtype, device=_device(targets))
    hot = targets[:, None] == numbers
    if label_smoothing or class_weights is not None:
        weighted = _weighted(hot, logits, label_smoothing, class_weights)
        gradients = _softmax_minus(logits, weighted)
    else:
        gradients = _softmax_minus_one(logits, hot)
    if none_ignored:
        return gradients
    return xp.where((targets == ignore_index)[:, None], 0.0, gradients)


def binary_cross_entropy_gradients(
    logits: Array, targets: Array, *, pos_weight: Array | None = None
) -> Array:
    """Return the gradients of the binary cross entropy with respect to the logits.

    The loss of one output is ``-(v y log s(z) + (1 - y) log(1 - s(z)))`` with the sigmoid s; its
    gradient ``(1 - y) s(z) - v y s(-z)``, which is ``s(z) - y`` for v = 1.

    Parameters
    ----------
    logits
        Shape (n,) or (n, ...).
    targets
        Numbers y in [0, 1], as many as logits and in their shape.
    pos_weight
        The weight v of positive targets, broadcast against the logits; None: 1.

    Returns
    -------
    Array
        It has the shape of the logits. For a loss that is the mean of a sample's outputs, divide by
        their number.

    Raises
    ------
    ProblemError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> binary_cross_entropy_gradients(np.array([0.0, 0.0]), np.array([1.0, 0.0]))
    array([-0.5,  0.5])
    """
    logits = _floating(logits)
    xp = namespace(logits)
    targets = _same_shape(targets, logits, "logits")
    decay = xp.exp(-xp.abs(logits))
    near, far = 1.0 / (1.0 + decay), decay / (1.0 + decay)  # s(|z|) and s(-|z|)
    up, down = xp.where(logits >= 0, near, far), xp.where(logits >= 0, far, near)
    positive = targets * down
    if pos_weight is not None:
        positive = positive * xp.astype(_beside(pos_weight, logits), logits.dtype)
    return (1.0 - targets) * up - positive


def squared_error_gradients(outputs: Array, targets: Array) -> Array:
    """Return the gradients of the squared error ``(o - y)^2``: ``2 (o - y)``.

    Parameters
    ----------
    outputs
        Shape (n,) or (n, ...).
    targets
        The numbers y, in the shape of the outputs.

    Returns
    -------
    Array
        It has the shape of the outputs. Divide it by their number per sample if the loss is their
        mean.

    Raises
    ------
    ProblemError
        If outputs and targets differ in shape.

    Examples
    --------
    >>> import numpy as np
    >>> squared_error_gradients(np.array([3.0, 1.0]), np.array([1.0, 1.0]))
    array([4., 0.])
    """
    outputs = _floating(outputs)
    return 2.0 * (outputs - _same_shape(targets, outputs, "outputs"))


def row_norms(gradients: Array) -> Array:
    """Return the Euclidean norm of each row, over all dimensions but the first.

    For logit gradients it is the upper bound ``||d loss_i / d logits_i||_2`` (eq. 20 of Not All
    Samples Are Created Equal, without its constant). Squares neither overflow nor vanish.

    Parameters
    ----------
    gradients
        Shape (n, ...).

    Returns
    -------
    Array
        Shape (n,).

    Raises
    ------
    ProblemError
        If they are a single number.

    Examples
    --------
    >>> import numpy as np
    >>> row_norms(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([5., 0.])
    """
    gradients = _floating(gradients)
    xp = namespace(gradients)
    if gradients.ndim == 0:
        raise ProblemError("gradients must have shape (n, ...), got a single number.")
    sizes = xp.abs(gradients)
    if gradients.ndim == 1:
        return sizes
    if gradients.ndim > 2:
        sizes = xp.reshape(sizes, (sizes.shape[0], math.prod(sizes.shape[1:])))
    if sizes.shape[1] == 0:
        return xp.sum(sizes, axis=1)
    largest = xp.max(sizes, axis=1, keepdims=True)
    scale = xp.where((largest > 0) & (largest < float("inf")), largest, 1.0)
    scaled = sizes / scale
    return xp.sqrt(xp.sum(scaled * scaled, axis=1)) * scale[:, 0]


def _softmax_minus_one(logits: Array, hot: Array) -> Array:
    """Return ``softmax(z) - y``; at the label of a row it is minus the sum of the other entries."""
    xp = namespace(logits)
    powers = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    others = xp.sum(xp.where(hot, 0.0, powers), axis=1, keepdims=True)
    return xp.where(hot, -others, powers) / xp.sum(powers, axis=1, keepdims=True)


def _softmax_minus(logits: Array, weighted: Array) -> Array:
    """Return ``softmax(z) sum(q) - q`` as ``p (sum(q) - q) - q (1 - p)``.

    For a plain label neither difference cancels: the first is exactly 0 or the weight, and for the
    largest logit ``1 - p`` is the sum over the others.
    """
    xp = namespace(logits)
    top = xp.max(logits, axis=1, keepdims=True)
    at_top = logits == top
    powers = xp.exp(logits - top)
    below = xp.sum(xp.where(at_top, 0.0, powers), axis=1, keepdims=True)
    tied = xp.sum(xp.astype(at_top, logits.dtype), axis=1, keepdims=True)
    total = below + tied
    others = xp.where(at_top, below + (tied - 1.0), total - powers)
    rest = xp.sum(weighted, axis=1, keepdims=True) - weighted
    return (powers * rest - weighted * others) / total


def _weighted(
    targets: Array, logits: Array, label_smoothing: float, class_weights: Array | None
) -> Array:
    """Return the targets q: smoothed, then weighted."""
    weighted = namespace(logits).astype(targets, logits.dtype)
    if label_smoothing:
        weighted = weighted * (1.0 - label_smoothing) + label_smoothing / logits.shape[1]
    return weighted if class_weights is None else weighted * _class_weights(class_weights, logits)


def _check_targets(logits: Array, targets: Array, ignore_index: int) -> bool:
    """Return whether it is known that no target is the ignored class."""
    n, classes = logits.shape
    if tuple(targets.shape) not in ((n,), (n, classes)):
        raise ProblemError(
            f"targets must be class numbers of shape ({n},) or class probabilities of shape "
            f"({n}, {classes}) for logits of shape ({n}, {classes}), got {tuple(targets.shape)}."
        )
    if targets.ndim == 2:
        return True
    xp = namespace(targets)
    if not xp.isdtype(targets.dtype, "integral"):
        raise ProblemError(
            f"targets of shape ({n},) must be class numbers of an integer type, got "
            f"{targets.dtype}; class probabilities have shape ({n}, {classes})."
        )
    if n == 0 or str(_device(targets)) != "cpu":
        return False  # to read them would wait for the device, and the loss has checked them
    if int(xp.min(targets)) >= 0 and int(xp.max(targets)) < classes:
        return not 0 <= ignore_index < classes
    wrong = ((targets < 0) | (targets >= classes)) & (targets != ignore_index)
    if bool(xp.any(wrong)):
        raise ProblemError(
            f"targets hold the class number {int(targets[wrong][0])}, but logits have {classes} "
            f"columns: accepted are 0 to {classes - 1} and ignore_index={ignore_index}."
        )
    return False


def _class_weights(class_weights: Array, logits: Array) -> Array:
    weights = namespace(logits).astype(_beside(class_weights, logits), logits.dtype)
    if tuple(weights.shape) != (logits.shape[1],):
        raise ProblemError(
            f"class_weights must have shape ({logits.shape[1]},), one per class, got "
            f"{tuple(weights.shape)}."
        )
    return weights


def _same_shape(targets: Array, outputs: Array, name: str) -> Array:
    targets = _beside(targets, outputs)
    if tuple(targets.shape) != tuple(outputs.shape):
        raise ProblemError(
            f"targets must have the shape of {name}, {tuple(outputs.shape)}, got "
            f"{tuple(targets.shape)}."
        )
    return namespace(outputs).astype(targets, outputs.dtype)


def _floating(array: Array) -> Array:
    """Return an array without its gradient, in its own floating type and at least float32."""
    array = detached(array)
    xp = namespace(array)
    if not xp.isdtype(array.dtype, "real floating"):
        return xp.astype(array, xp.float64)
    return array if array.dtype.itemsize >= 4 else xp.astype(array, xp.float32)


def _beside(values: Any, array: Array) -> Array:
    """Return values as an array of the kind of another array, on its device."""
    values = detached(values)
    if type(values) is type(array) and _device(values) == _device(array):
        return values
    return namespace(array).asarray(values, device=_device(array))


def _device(array: Array) -> Any:
    from array_api_compat import device

    return device(array)
