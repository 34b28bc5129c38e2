"""What compiled functions do with arrays, without the checks that take long to compile."""

from __future__ import annotations

from subsetopt.kernels.compiling import uncounted

__all__ = ["copy"]


@uncounted
def copy(values, out):
    """Write values to ``out``, of the same size.

    Assigning them to a slice takes a second longer to compile: shapes are compared, with a message.
    """
    for i in range(out.size):
        out[i] = values[i]
