"""What a policy may have besides the protocol, and the check that no such name is misspelt.

One small protocol for each optional member. Who uses one asks ``has(policy, WithWeigh)`` first: a
policy without it gets the default that the protocol's page describes.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from subsetopt.errors import OptionError
from subsetopt.policies.arrays import Array
from subsetopt.policies.base import Policy, SelectionState, Signals, StatelessPolicy
from subsetopt.solution import Solution

__all__ = [
    "SolverChoice", "WithCurves", "WithDraw", "WithEpochOrder", "WithLearnsFrom", "WithPresample",
    "WithRefresh", "WithScores", "WithSize", "WithSolver", "WithWantsRefresh", "WithWeigh",
    "check_members", "has", "listens",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class SolverChoice:
    """A solver by name, which a selector looks up in the table of solvers.

    Attributes
    ----------
    name
        A registered name, or ``"auto"``.
    options
        Its hyperparameters; the default is none.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


class WithPresample(Protocol):
    """A policy that has only a part of the batch scored; by default it is the whole batch."""

    def presample(self, state: SelectionState, rng: np.random.Generator) -> Array | None:
        """Return the distinct positions of the candidates to score, or None for all.

        Signals then have one row for each of them, in ascending order, ``positions`` holds them,
        and the problem is over them.
        """


class WithWeigh(Protocol):
    """A policy with training weights of its own; by default they are the solution's."""

    def weigh(self, solution: Solution) -> Array:
        """Return the training weight of each of ``solution.indices``, shape (k,)."""


class WithSolver(Protocol):
    """A policy for which some optima of its problem are better than others.

    By default a selector's ``solver="auto"`` is the solver ``"auto"``.
    """

    @property
    def solver(self) -> SolverChoice | Any:
        """What ``solver="auto"`` stands for: a choice, or anything that ``solve`` takes."""


class WithLearnsFrom(Protocol):
    """A policy that learns from signals of the training forward pass; by default there are none."""

    @property
    def learns_from(self) -> frozenset[str]:
        """The signals that ``feedback.signals`` holds: ``upper_bound``, ``logit_gradients``."""


class WithCurves(Protocol):
    """A policy with something to plot over the steps; by default there is nothing."""

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Return a mapping from labels to (steps, values)."""


class WithDraw(Protocol):
    """A policy that draws from a data set where a problem over all its samples costs too much."""

    def draw(
        self, n: int, k: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return ids (k,) of the samples 0 to n-1, and their training weights (k,)."""


class WithEpochOrder(Protocol):
    """A policy whose epoch is one pass over a data set."""

    def epoch_order(self, n: int, rng: np.random.Generator) -> Array:
        """Return the ids 0 to n-1 in the order in which the batches take them, shape (n,)."""


class WithRefresh(Protocol):
    """A policy that remembers losses, and takes those that were computed outside training."""

    def refresh(self, ids: Array, losses: Array) -> None:
        """Remember the losses (m,) of the samples with these ids (m,)."""


class WithWantsRefresh(Protocol):
    """A policy that asks for ``refresh`` now and then; by default it never does."""

    @property
    def wants_refresh(self) -> bool:
        """Whether it is time to compute the losses of all samples anew."""


class WithSize(Protocol):
    """A policy that says how many samples it chooses where the caller does not; by default none."""

    def size(self, losses: Array) -> int:
        """Return k, from 0 to n, for candidates with these losses (n,)."""


class WithScores(Protocol):
    """A policy that gives scores, and so can be a candidate of ``adaselection``."""

    @property
    def requires(self) -> frozenset[str]:
        """The names of the signals that ``scores`` reads."""

    def scores(self, signals: Signals, k: int, rng: np.random.Generator) -> Array:
        """Return a score per candidate, larger for more wanted."""


def _names(protocol: type) -> tuple[str, ...]:
    return tuple(name for name in vars(protocol) if not name.startswith("_"))


_Member = TypeVar("_Member")
_OPTIONAL: dict[Callable[..., object], tuple[str, ...]] = {
    protocol: _names(protocol)
    for protocol in (
        WithPresample,
        WithWeigh,
        WithSolver,
        WithLearnsFrom,
        WithCurves,
        WithDraw,
        WithEpochOrder,
        WithRefresh,
        WithWantsRefresh,
        WithSize,
        WithScores,
    )
}
# Members that nobody misses aloud, so that a misspelt name has no effect. ``scores`` and ``size``
# are none of them: adaselection refuses a candidate without the one, and who needs the other asks
# for a size.
_SILENT = {name: vars(Policy)[name] for name in _names(Policy)} | {
    name: vars(protocol)[name]
    for protocol, names in _OPTIONAL.items()
    if protocol not in (WithScores, WithSize)
    for name in names
}
# The optional members that are methods: a number with such a name is something else.
_METHODS = frozenset(
    name
    for protocol, names in _OPTIONAL.items()
    for name in names
    if callable(vars(protocol)[name])
)
# Names at least this much alike, by difflib's ratio, are taken for one name misspelt.
_ALIKE = 0.8


def has(policy: object, protocol: Callable[..., _Member]) -> TypeGuard[_Member]:
    """Return whether a policy has an optional member; one that is a method can be called.

    It takes 0.6 us; ``isinstance`` with a runtime protocol takes 8, and a selection asks twice.

    Parameters
    ----------
    policy
        Any policy object.
    protocol
        One of the protocols of this module.
    """
    for name in _OPTIONAL[protocol]:
        member = getattr(policy, name, None)
        if member is None or (name in _METHODS and not callable(member)):
            return False
    return True


def listens(policy: Policy) -> bool:
    """Return whether a policy makes anything of feedback: its ``observe`` is not the default.

    A policy that combines others, and names them in ``combines``, does if one of them does.
    """
    if getattr(policy.observe, "__func__", None) is StatelessPolicy.observe:
        return False
    parts = getattr(policy, "combines", None)
    return parts is None or any(map(listens, parts))


def check_members(policy: object) -> None:
    """Raise if a policy has a member that is nearly, but not quite, one that is looked for.

    No selector would ask for it, and the policy would quietly do less than its author wrote. A
    name that stands beside the one it resembles, in the same class, is no mistake. Nor is a value
    that resembles a method's name, or a method that resembles a value's.

    Parameters
    ----------
    policy
        A policy object, or a class of them.

    Raises
    ------
    OptionError
        With the nearest name.
    """
    owner = policy if isinstance(policy, type) else type(policy)
    own = {} if isinstance(policy, type) else getattr(policy, "__dict__", {})
    checked: set[str] = set()
    for base in reversed(owner.__mro__):
        members = {**vars(base), **own} if base is owner else vars(base)
        for name in members.keys() - checked:
            nearest = _nearest(name, members)
            if nearest is not None:
                kind = "method" if _is_method(members[name]) else "attribute"
                raise OptionError(
                    f"{base.__name__} has the {kind} {name!r}, which is no member of a policy: "
                    f"write {nearest!r} if that is meant, or else choose a name less like it."
                )
        checked |= members.keys()


def _nearest(name: str, members: Mapping[str, Any]) -> str | None:
    """Return the member of a policy that a name in a class seems to mean, or None."""
    if name.startswith("_") or name in _SILENT:
        return None
    method = _is_method(members[name])
    sought = [
        other
        for other, member in _SILENT.items()
        if other not in members and _is_method(member) is method
    ]
    nearest = difflib.get_close_matches(name, sought, n=1, cutoff=_ALIKE)
    return nearest[0] if nearest else None


def _is_method(member: object) -> bool:
    if isinstance(member, type):
        return False
    return callable(member) or isinstance(member, classmethod)
