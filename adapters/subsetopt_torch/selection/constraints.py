"""The user's constraints, and how they join those of the policy."""

from __future__ import annotations

import math
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

import subsetopt as so
from subsetopt.problem import Quotas
from subsetopt_torch.arguments import Constraints
from subsetopt_torch.selection.named_policy import NamedPolicy
from subsetopt_torch.selection.transfer import constraints_to_host

__all__ = ["Rules", "checked_constraints", "constrained", "included_rows", "merged_rules"]


class Rules(TypedDict, total=False):
    """Constraints on the host, as :class:`subsetopt.Problem` takes them."""

    include: ArrayLike
    exclude: ArrayLike
    groups: ArrayLike
    quotas: Quotas
    costs: ArrayLike
    capacity: float


_CONSTRAINTS = tuple(Rules.__annotations__)


def checked_constraints(constraints: Constraints | None) -> Rules:
    """Return constraints on the host, after a look at their names.

    Raises
    ------
    OptionError
        If a name is none of a problem's constraints.
    """
    on_host = constraints_to_host(constraints)
    for name in on_host:
        if name not in _CONSTRAINTS:
            raise so.OptionError(
                f"no constraint named {name!r}; known are {', '.join(_CONSTRAINTS)}."
            )
    return cast(Rules, on_host)


def merged_rules(named: NamedPolicy, own: Rules, constraints: Constraints | None) -> Rules:
    """Return a selector's constraints with those of a batch in place of those of the same name.

    Raises
    ------
    OptionError
        If a name is none of a problem's constraints.
    UnsupportedProblemError
        If the policy draws random designs, which take no constraints; also while it draws none.
    """
    rules: Rules = {**own, **checked_constraints(constraints)}
    if named.draws_designs:
        present = {
            "include": np.size(rules.get("include", ())) > 0,
            "exclude": np.size(rules.get("exclude", ())) > 0,
            "quotas": bool(rules.get("quotas")),
            "capacity": rules.get("capacity", math.inf) != math.inf,
        }
        for name in (name for name, is_there in present.items() if is_there):
            raise so.UnsupportedProblemError(
                f"policy {named.name!r} makes a random draw, which takes no {name}. Leave {name} "
                "out, or take a policy that takes it, such as 'obtf' or 'proportional-loss'."
            )
    return rules


def included_rows(rules: Rules, n: int) -> NDArray[np.int64]:
    """Return which of n samples must be chosen, ascending; none without such a rule.

    Raises
    ------
    ProblemError
        If the rule does not fit n samples.
    """
    problem = so.Problem(so.TopScores(np.zeros(n)), 0, include=rules.get("include"))
    return np.empty(0, dtype=np.int64) if problem.include is None else problem.include


def constrained(problem: so.Problem, rules: Rules, bad: NDArray[np.int64]) -> so.Problem:
    """Return the policy's problem with the user's constraints and without the bad samples.

    Parameters
    ----------
    problem
        The problem that the policy proposed.
    rules
        The user's constraints on the candidates, by name.
    bad
        Rows of the candidates whose loss is not finite, int64; they are excluded.

    Raises
    ------
    ProblemError
        If a constraint is malformed, or policy and user both set it.
    """
    if bad.size and isinstance(problem.objective, so.SamplingDesign):
        problem, bad = _never_drawn(problem.objective, problem.k, bad), bad[:0]
    if not rules and not bad.size:
        return problem
    own = {name: getattr(problem, name) for name in _CONSTRAINTS}
    extra = so.Problem(problem.objective, problem.k, **rules)
    merged: dict[str, Any] = {}
    for name in ("groups", "quotas", "costs", "capacity"):
        added = getattr(extra, name)
        if own[name] is not None and added is not None:
            raise so.ProblemError(
                f"the policy sets {name} itself, so that {name} cannot be given besides."
            )
        merged[name] = added if own[name] is None else own[name]
    merged["include"] = _union(own["include"], extra.include)
    merged["exclude"] = _union(own["exclude"], extra.exclude, bad)
    k = min(problem.k, problem.n - bad.size)
    return so.Problem(problem.objective, k, problem.cardinality, **merged)


def _never_drawn(design: so.SamplingDesign, k: int, bad: NDArray[np.int64]) -> so.Problem:
    """Return a design in which the bad samples have probability 0 and add nothing to totals."""
    inclusion = np.maximum(design.inclusion, np.finfo(np.float64).tiny)
    inclusion[bad] = 0.0
    balance = None if design.balance is None else design.balance.copy()
    if balance is not None:
        balance[bad] = 0.0
    k = min(k, design.n - bad.size)
    if design.replacement:
        inclusion /= inclusion.sum()
    else:
        inclusion = so.inclusion_probabilities(inclusion, k)
    return so.Problem(so.SamplingDesign(inclusion, balance, design.replacement), k)


def _union(*parts: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    arrays = [part for part in parts if part is not None and part.size]
    return np.unique(np.concatenate(arrays)) if arrays else None
