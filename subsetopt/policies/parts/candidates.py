"""The candidates of a policy that combines others: policies that score, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subsetopt.errors import OptionError, did_you_mean
from subsetopt.policies.members import WithScores, check_members, has
from subsetopt.policies.registry import list_policies, load_target, make_policy
from subsetopt.policies.scored import ScoredPolicy

__all__ = ["make_candidates", "scoring_policies"]


def make_candidates(candidates: object) -> dict[str, ScoredPolicy]:
    """Return policies by name.

    Parameters
    ----------
    candidates
        Names of registered policies that score, and policy objects with ``requires`` and
        ``scores``; a sequence of at least one.

    Returns
    -------
    dict
        In the order given, by registered name or the class name of an object; a second one of the
        same name gets ``-2``.

    Raises
    ------
    OptionError
        If there is none, or one is unknown or gives no scores; the message says which can.
    """
    if isinstance(candidates, str) or not isinstance(candidates, Sequence) or not candidates:
        raise OptionError(
            "candidates must be a list of policies that score, at least one, got "
            f"{candidates!r}. These can: {', '.join(scoring_policies())}."
        )
    policies: dict[str, ScoredPolicy] = {}
    for candidate in candidates:
        name, policy = _policy(candidate)
        count = 1
        while (label := name if count == 1 else f"{name}-{count}") in policies:
            count += 1
        policies[label] = policy
    return policies


def scoring_policies() -> list[str]:
    """Return the names of the registered policies that can be candidates."""
    return [spec.name for spec in list_policies() if has(load_target(spec), WithScores)]


def _policy(candidate: Any) -> tuple[str, ScoredPolicy]:
    name = candidate if isinstance(candidate, str) else type(candidate).__name__
    if isinstance(candidate, str):
        known = [spec.name for spec in list_policies()]
        if name in known and name not in scoring_policies():
            raise _no_candidate(f"the policy {name!r} gives no scores", name)
        candidate = make_policy(name)
    gives_scores: bool = has(candidate, WithScores)
    if not gives_scores:
        raise _no_candidate(f"{candidate!r} gives no scores", name)
    check_members(candidate)
    return name, candidate


def _no_candidate(what: str, name: str) -> OptionError:
    able = scoring_policies()
    return OptionError(
        f"{what}, so that it cannot be a candidate of adaselection."
        f"{did_you_mean(name, able)} These can: {', '.join(able)}."
    )
