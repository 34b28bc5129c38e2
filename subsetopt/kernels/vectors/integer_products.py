"""Inner products of rows of small integers with one vector, four rows at a time.

Such a product takes as long as its loads from memory. A loop over one row loads the vector anew for
every row; here four rows share each load of it. The code is written for LLVM, the compiler below
Numba, because LLVM does not make of a loop over several rows the one instruction that many
processors have for two products and their sum. The code names no instruction of a processor, and
runs on all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from subsetopt.kernels.compiling import uncounted

__all__ = ["STEP", "multiply", "padded"]

# Columns that are read at once; rows are filled up with zeros to a multiple of it.
STEP = 32
# Rows that share each load of the vector.
_ROWS = 4

_I16 = ir.IntType(16)
_SIXTEEN, _WIDE, _SUMS = (
    ir.VectorType(ir.IntType(bits), lanes)
    for bits, lanes in ((16, STEP), (32, STEP), (32, STEP // 2))
)
_NOTHING = ir.Constant(_SUMS, [0] * (STEP // 2))
_EVEN, _ODD = (ir.Constant(_SUMS, list(range(first, STEP, 2))) for first in (0, 1))


def padded(d: int) -> int:
    """Return how many columns rows of d entries take."""
    return -(-d // STEP) * STEP


def _load(builder: Any, row: Any, at: Any) -> Any:
    """Load STEP entries of 8 or 16 bits, as 16 bits."""
    entry = row.type.pointee
    place = builder.bitcast(builder.gep(row, [at]), ir.VectorType(entry, STEP).as_pointer())
    loaded = builder.load(place, align=entry.width // 8)
    return loaded if entry == _I16 else builder.sext(loaded, _SIXTEEN)


def _pairs(builder: Any, a: Any, b: Any) -> Any:
    """Multiply two vectors of 16-bit integers, and add every two neighbours."""
    product = builder.mul(builder.sext(a, _WIDE), builder.sext(b, _WIDE))
    return builder.add(
        builder.shuffle_vector(product, product, _EVEN),
        builder.shuffle_vector(product, product, _ODD),
    )


def _sums(builder: Any, rows: list[Any], vector: Any, width: Any) -> list[Any]:
    """Return the inner products of some rows with a vector, given where each of them begins."""
    before = builder.block
    loop, after = (builder.append_basic_block(what) for what in ("columns", "sums"))
    builder.branch(loop)
    builder.position_at_end(loop)
    at = builder.phi(width.type)
    totals = [builder.phi(_SUMS) for _ in rows]
    part = _load(builder, vector, at)
    added = [
        builder.add(total, _pairs(builder, _load(builder, row, at), part))
        for row, total in zip(rows, totals, strict=True)
    ]
    further = builder.add(at, width.type(STEP))
    at.add_incoming(width.type(0), before)
    at.add_incoming(further, loop)
    for total, more in zip(totals, added, strict=True):
        total.add_incoming(_NOTHING, before)
        total.add_incoming(more, loop)
    builder.cbranch(builder.icmp_signed("<", further, width), loop, after)
    builder.position_at_end(after)
    kind = ir.FunctionType(_SUMS.element, [_SUMS])
    name = f"llvm.vector.reduce.add.v{_SUMS.count}i32"
    reduce = cgutils.get_or_insert_function(builder.module, kind, name)
    return [builder.call(reduce, [total]) for total in added]


@intrinsic
def _four(typing, codes, first, code, products):
    """Write the products of four rows, beginning with the first one given."""

    def generate(context, builder, signature, values):
        table, vector, out = (
            context.make_array(signature.args[a])(context, builder, values[a]) for a in (0, 2, 3)
        )
        width = cgutils.unpack_tuple(builder, table.shape)[1]
        places = [builder.add(values[1], width.type(r)) for r in range(_ROWS)]
        rows = [builder.gep(table.data, [builder.mul(i, width)]) for i in places]
        sums = _sums(builder, rows, vector.data, width)
        for i, total in zip(places, sums, strict=True):
            builder.store(total, builder.gep(out.data, [i]))
        return context.get_dummy_value()

    return types.void(codes, types.intp, code, products), generate


@uncounted
def multiply(codes, code, products):
    """Write the products of all rows with one vector.

    Parameters
    ----------
    codes
        (n, width) int8 or int16 in C order, width a multiple of STEP above 0.
    code
        (width,) int16, in C order.
    products
        (n,) int32. No partial sum, in whatever order, may leave 32 bits.
    """
    n = codes.shape[0]
    full = n - n % _ROWS
    for first in range(0, full, _ROWS):
        _four(codes, first, code, products)
    for i in range(full, n):
        total = np.int32(0)
        for c in range(code.size):
            total = np.int32(total + np.int32(np.int32(codes[i, c]) * np.int32(code[c])))
        products[i] = total
