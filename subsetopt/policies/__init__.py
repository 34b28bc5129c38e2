"""Policies: from signals (losses, logits, ids) to a problem; one file per method.

A policy is arithmetic. It knows neither the solver that answers its problem nor the framework
that trains on the answer.
"""

from subsetopt.policies.arrays import as_float64, from_host, namespace, to_host
from subsetopt.policies.base import (
    Feedback,
    Policy,
    SelectionState,
    Signals,
    StatelessPolicy,
    candidate_count,
    signal,
)
from subsetopt.policies.registry import PolicySpec, list_policies, make_policy, register_policy

__all__ = [
    "Feedback",
    "Policy",
    "PolicySpec",
    "SelectionState",
    "Signals",
    "StatelessPolicy",
    "as_float64",
    "candidate_count",
    "from_host",
    "list_policies",
    "make_policy",
    "namespace",
    "register_policy",
    "signal",
    "to_host",
]
