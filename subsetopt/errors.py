"""Every error the library raises on purpose.

Misuse raises; outcomes (a time limit, an infeasible quota, an unproved answer) are a
:class:`~subsetopt.Status`. Each message says what was wrong, the value, what is accepted and what
to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "InfeasibleError",
    "LedgerError",
    "NoSolutionError",
    "OptionError",
    "ProblemError",
    "SolverError",
    "SolverLicenseError",
    "SolverNotFoundError",
    "SolverUnavailableError",
    "SubsetOptError",
    "UnsupportedProblemError",
    "did_you_mean",
]


class SubsetOptError(Exception):
    """Base class of every error that subsetopt raises on purpose."""


class ProblemError(SubsetOptError, ValueError):
    """The problem as stated is malformed: a shape, a value or a contradiction in the input."""


class OptionError(SubsetOptError, ValueError):
    """An option or its value is not one the solver, policy or function accepts."""


class SolverNotFoundError(SubsetOptError, LookupError):
    """No solver of that name is registered."""


class SolverUnavailableError(SubsetOptError, ImportError):
    """A package that the solver, or the medium of a ledger, needs is missing or broken."""


class SolverLicenseError(SubsetOptError, RuntimeError):
    """The backend is installed, but its license does not cover this problem."""


class UnsupportedProblemError(SubsetOptError, TypeError):
    """The solver cannot take this objective or constraint; the message lists solvers that can."""


class SolverError(SubsetOptError, RuntimeError):
    """A solver failed, or returned something that is not an answer to the problem."""


class NoSolutionError(SubsetOptError, RuntimeError):
    """``Solution.require()`` was called on a solution that holds no subset."""


class InfeasibleError(NoSolutionError):
    """``Solution.require()`` was called, and no subset satisfies the constraints."""


class LedgerError(SubsetOptError, RuntimeError):
    """The medium of a ledger cannot be opened, read or written; what was recorded stays."""


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Return ``" Did you mean 'swap'?"`` for the nearest valid name, or an empty string."""
    nearest = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
