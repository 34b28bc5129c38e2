"""Greedy iterative geodesic ascent on the unit sphere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from subsetopt.kernels.array_types import Floats, Ints, Singles
from subsetopt.kernels.compiling import uncounted
from subsetopt.kernels.vectors.integer_products import multiply
from subsetopt.kernels.vectors.products import any_below, minimum
from subsetopt.kernels.vectors.quantized import SCALE, code_vector, reach

__all__ = ["Atoms", "Walk", "geodesic_steps", "start_products"]

_FAST = {"contract", "reassoc", "nsz", "arcp", "nnan"}
# An atom is taken for the point reached where the squared sine of their angle is at most this.
_SAME = 1e-6
# An angle whose sine is below this is rounding.
_FLAT = 1e-14


class Atoms(NamedTuple):
    """The n vectors, m of which may be chosen."""

    vectors: Floats  #: (n, d) all vectors
    norms: Floats  #: (n,) their norms
    rows: Ints  #: (m,) which of them may be chosen: the atoms
    codes: NDArray[np.int16]  #: (m, width) the unit vectors of the atoms in 16 bits


class Walk(NamedTuple):
    """Where the walk goes and how far it has come."""

    target: Floats  #: (d,) the target's unit vector
    y: Floats  #: (d,) the unit vector reached so far, 0 at the beginning; moved on
    ahead: Singles  #: (m,) the cosines of the atoms with the target, as far as integers tell
    shares: Floats  #: (m,) the weights of the atoms that make y; moved on
    products: NDArray[np.int32]  #: (m,) the products of the atoms with y in 16 bits; 0 at first
    code: NDArray[np.int16]  #: (width,) scratch: y in 16 bits
    keys: Singles  #: (m,) scratch: minus what the squared cosine of each atom is at most
    lanes: Singles  #: (LANES,) scratch: running minima
    step: Floats  #: (d,) scratch: the unit vector of the atom that is walked to


@uncounted(fastmath={"contract", "reassoc", "nsz", "arcp"})
def _dot(a, b):
    total = 0.0
    for c in range(a.size):
        total += a[c] * b[c]
    return total


@uncounted
def start_products(codes, target, code, products, ahead):
    """Write the cosines of all atoms with the target, as far as integers tell.

    ``code`` (width,) and ``products`` (m,) are scratch.
    """
    code_vector(target, 1.0, code)
    multiply(codes, code, products)
    for i in range(ahead.size):
        ahead[i] = np.float32(products[i]) / np.float32(SCALE * SCALE)


@uncounted(fastmath=_FAST)
def _bounds(ahead, products, reached, off, keys):
    """Write minus what the squared cosine of every atom is at most, 0 for an obtuse angle.

    The angle is the one at y between the geodesics to the atom and to the target; the products of
    both with the atom may be off by ``off``. There are no branches, so that several are computed at
    a time.
    """
    zero, one = np.float32(0.0), np.float32(1.0)
    unit, far = np.float32(1.0 / SCALE**2), np.float32(reached)
    wide, slack = np.float32((1.0 + reached) * off + 1e-6), np.float32(2.0 * off + 1e-6)
    smallest = np.float32(_SAME)
    for i in range(keys.size):
        s = np.float32(products[i]) * unit
        forth = ahead[i] - far * s + wide
        forth = forth if forth > zero else zero
        sine = one - s * s - slack * (s if s > zero else -s) - slack * slack
        sine = sine if sine > smallest else smallest
        keys[i] = -forth * forth / sine


@uncounted
def _cosine(row, norm, target, y, reached):
    """Return the cosine at y between the geodesics to an atom and the target; -1 for none."""
    along = _dot(row, y) / norm
    square = 1.0 - along * along
    if square <= _SAME:
        return -1.0
    return (_dot(row, target) / norm - reached * along) / np.sqrt(square)


@uncounted
def _furthest_along(atoms, walk, reached):
    """Return the atom whose direction from y is nearest to that of the target; -1 for none.

    Looks at atoms in the order of what their cosines may be at most, until no other can be larger.
    """
    keys, lanes = walk.keys, walk.lanes
    pick, largest, limit = -1, 0.0, np.float32(0.0)
    while any_below(keys, limit):
        _, top = minimum(keys, lanes)
        row = atoms.rows[top]
        value = _cosine(atoms.vectors[row], atoms.norms[row], walk.target, walk.y, reached)
        if value > largest or (value == largest and pick > top):
            pick, largest = top, value
            limit = np.float32(-largest * largest)
        keys[top] = np.float32(0.0)
    return pick


@uncounted
def geodesic_steps(atoms, walk, steps):
    """Make some steps of greedy iterative geodesic ascent; return how many.

    ``atoms`` and ``walk`` are the fields of Atoms and Walk as plain tuples: calls with named ones
    take longer.
    """
    atoms, walk = Atoms(*atoms), Walk(*walk)
    target, y, shares, step = walk.target, walk.y, walk.shares, walk.step
    off = reach(y.size)
    for done in range(steps):
        reached = _dot(target, y)
        begun = _dot(y, y) > 0.0
        if 1.0 - reached <= _FLAT:
            return done
        if begun:
            code_vector(y, 1.0, walk.code)
            multiply(atoms.codes, walk.code, walk.products)
        _bounds(walk.ahead, walk.products, reached, off, walk.keys)
        pick = _furthest_along(atoms, walk, reached)
        if pick < 0:
            return done
        row, norm = atoms.vectors[atoms.rows[pick]], atoms.norms[atoms.rows[pick]]
        for c in range(step.size):
            step[c] = row[c] / norm
        cosine, along = _dot(step, target), _dot(step, y)
        forth, back = cosine - reached * along, max(0.0, reached - cosine * along)
        if forth <= _FLAT:
            return done
        if not begun:
            forth, back = 1.0, 0.0
        for c in range(y.size):
            y[c] = back * y[c] + forth * step[c]
        size = np.sqrt(_dot(y, y))
        back, forth = back / size, forth / size
        for c in range(y.size):
            y[c] /= size
        for i in range(shares.size):
            shares[i] *= back
        shares[pick] += forth
    return steps
