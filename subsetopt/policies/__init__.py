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
from subsetopt.policies.members import (
    SolverChoice,
    WithCurves,
    WithDraw,
    WithEpochOrder,
    WithLearnsFrom,
    WithPresample,
    WithRefresh,
    WithScores,
    WithSize,
    WithSolver,
    WithWantsRefresh,
    WithWeigh,
    check_members,
    has,
    listens,
)
from subsetopt.policies.parts.gradients import (
    binary_cross_entropy_gradients,
    cross_entropy_gradients,
    row_norms,
    squared_error_gradients,
)
from subsetopt.policies.parts.sample_scores import tau_estimate
from subsetopt.policies.parts.weight_cap import Clipped, WeightCap
from subsetopt.policies.registry import PolicySpec, list_policies, make_policy, register_policy
from subsetopt.policies.scored import ScoredPolicy
from subsetopt.policies.uncertainty import UncertaintyScore, uncertainty_scores

__all__ = [
    "Clipped",
    "Feedback",
    "Policy",
    "PolicySpec",
    "ScoredPolicy",
    "SelectionState",
    "Signals",
    "SolverChoice",
    "StatelessPolicy",
    "UncertaintyScore",
    "WeightCap",
    "WithCurves",
    "WithDraw",
    "WithEpochOrder",
    "WithLearnsFrom",
    "WithPresample",
    "WithRefresh",
    "WithScores",
    "WithSize",
    "WithSolver",
    "WithWantsRefresh",
    "WithWeigh",
    "as_float64",
    "binary_cross_entropy_gradients",
    "candidate_count",
    "check_members",
    "cross_entropy_gradients",
    "from_host",
    "has",
    "list_policies",
    "listens",
    "make_policy",
    "namespace",
    "register_policy",
    "row_norms",
    "signal",
    "squared_error_gradients",
    "tau_estimate",
    "to_host",
    "uncertainty_scores",
]
