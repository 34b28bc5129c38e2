"""Arrays in compiled functions: borrowed without counting references, and copied."""

from __future__ import annotations

from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["borrowed", "copy"]


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return an array, or a tuple of some, with no owner whose references would be counted."""
    if isinstance(kind, types.BaseTuple):
        members: Any = kind
        for at, member in enumerate(members):
            part = builder.extract_value(value, at)
            part = _without_owner(context, builder, member, part)
            value = builder.insert_value(value, part, at)
    elif isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        owner: Any = array.meminfo
        array.meminfo = cgutils.get_null_value(owner.type)  # type: ignore[no-untyped-call]
        value = array._getvalue()
    return value


@intrinsic
def borrowed(typing, value):
    """Return arrays, alone or in a tuple, to which a kernel counts no references.

    Counting is atomic, and every function that is passed an array counts it: where functions are
    called often, this takes as long as their work. The caller of the kernel holds on to the arrays.
    """

    def generate(context, builder, signature, values):
        return _without_owner(context, builder, signature.args[0], values[0])

    return value(value), generate


@njit(cache=True)
def copy(values, out):
    """Write values to ``out``, of the same size.

    Assigning them to a slice takes a second longer to compile: shapes are compared, with a message.
    """
    for i in range(out.size):
        out[i] = values[i]
