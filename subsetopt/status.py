"""How a solve ended: what is known of the answer (Status) and why work stopped (StopReason)."""

from __future__ import annotations

from enum import Enum

__all__ = ["Status", "StopReason"]


class Status(Enum):
    """What is known of the answer. The value is a sentence for the user."""

    OPTIMAL = "Proved optimal within tolerance."
    FEASIBLE = (
        "Feasible, not proved optimal: compare objective and bound, or allow more time_limit."
    )
    NO_SOLUTION = (
        "No subset was found within the limits: raise time_limit, or use solver='auto', which "
        "has an answer from its first microseconds."
    )
    INFEASIBLE = "No subset satisfies the constraints: relax quotas, include, capacity or k."
    ERROR = "The solver failed; extras['error'] says how. Try another solver."

    def __repr__(self) -> str:
        return f"Status.{self.name}"


class StopReason(Enum):
    """Why work stopped. The value is a sentence for the user."""

    COMPLETED = "The algorithm ran to its end."
    TIME = "The time limit was reached."
    ITERATION = "The work limit (max_iterations) was reached."
    NODE = "The node limit of the branch and bound was reached."
    TARGET = "A subset within tolerance of the bound was found; nothing is left to gain."
    STAGNATION = "No further improvement was found."
    INTERRUPTED = "Interrupted by the user; the best subset so far is returned."
    MEMORY = "The memory limit was reached."
    NUMERICAL = "The backend met numerical trouble."
    OTHER = "Another reason; extras['native_status'] has the backend's own words."

    def __repr__(self) -> str:
        return f"StopReason.{self.name}"
