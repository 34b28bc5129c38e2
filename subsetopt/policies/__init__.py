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
from subsetopt.policies.parts.gradients import (
    binary_cross_entropy_gradients,
    cross_entropy_gradients,
    row_norms,
    squared_error_gradients,
)
from subsetopt.policies.registry import PolicySpec, list_policies, make_policy, register_policy
from subsetopt.policies.scored import ScoredPolicy
from subsetopt.policies.uncertainty import UncertaintyScore, uncertainty_scores

__all__ = [
    "Feedback",
    "Policy",
    "PolicySpec",
    "ScoredPolicy",
    "SelectionState",
    "Signals",
    "StatelessPolicy",
    "UncertaintyScore",
    "as_float64",
    "binary_cross_entropy_gradients",
    "candidate_count",
    "cross_entropy_gradients",
    "from_host",
    "list_policies",
    "make_policy",
    "namespace",
    "register_policy",
    "row_norms",
    "signal",
    "squared_error_gradients",
    "to_host",
    "uncertainty_scores",
]
