"""The selector: from the losses of a batch to the samples worth a backward pass."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import subsetopt as so
from subsetopt.policies import (
    Feedback,
    Policy,
    SelectionState,
    StatelessPolicy,
    make_policy,
    to_host,
)
from subsetopt_torch.picked import Picked
from subsetopt_torch.scoring import check_choice
from subsetopt_torch.signals import (
    Both,
    as_loss_vector,
    constraints_to_host,
    policy_signals,
    to_device,
    weight_dtype,
)

__all__ = ["BatchSelector", "SelectionWarning"]

_CONSTRAINTS = ("include", "exclude", "groups", "quotas", "costs", "capacity")
_SURVIVABLE = (so.SolverError, so.SolverLicenseError, so.SolverUnavailableError)
_NO_INDICES = np.empty(0, dtype=np.int64)


class SelectionWarning(RuntimeWarning):
    """A selection went wrong and training went on with a uniform draw."""


class BatchSelector:
    """Choose the samples of a batch that deserve a backward pass.

    Parameters
    ----------
    policy
        A registered name (``subsetopt.policies.list_policies()``) or a policy object.
    rate
        Fraction of each batch to choose, in [0, 1]: ``min(n, max(1, floor(rate * n + 0.5)))``.
    k
        Number to choose; more than there are is all of them. Give rate or k, not both.
    solver
        ``"auto"``, a registered name, a solver object or a list to fall over along. A policy may
        say what ``"auto"`` stands for (its attribute ``solver``), unless options are given.
    time_limit
        Seconds per selection, counted from the moment the losses are on the host. None is the
        solver's default work limit. Only work limits reproduce.
    max_iterations
        Work limit in the solver's own unit.
    seed
        A nonnegative int. Selection t on rank r uses ``(seed, t, r)``. None draws one, which
        ``state_dict`` then holds.
    nonfinite
        NaN and infinite losses: ``"raise"`` (the default), or ``"exclude"`` leaves these samples
        out of the choice and of the mean, and counts them.
    policy_options, options, backend_params
        Hyperparameters of a policy given by name, of a solver given by name, and native parameters
        of a MIP backend.
    constraints
        Constraints that hold for every batch, as for :class:`subsetopt.Problem`: typically
        ``{"quotas": {...}}`` or ``{"capacity": ...}``, with groups or costs passed per batch.
    rank
        Number of this process; None asks ``torch.distributed``, and is 0 without it.

    Attributes
    ----------
    step
        Selections made so far.
    fallbacks
        How many of them were a uniform draw because the solver gave no subset.
    excluded
        Samples left out so far because their loss was not finite.

    Raises
    ------
    OptionError, SolverNotFoundError
        If a name or an option is wrong; nothing waits for the first batch.
    ProblemError
        If both or none of rate and k are given, or the value is out of range.

    Notes
    -----
    One transfer to the host per selection (the losses) and one back (indices and weights, in one
    piece). A selection that fails for lack of a subset, a license or a package ends in a uniform
    draw from the samples that may be chosen, warns once, is counted in ``fallbacks`` and told in
    ``picked.fallback``; misuse raises.

    Examples
    --------
    >>> import torch
    >>> selector = BatchSelector("big-loss", k=2, seed=0)
    >>> picked = selector(torch.tensor([0.5, 2.0, 1.0]))
    >>> picked.indices, picked.weights
    (tensor([1, 2]), tensor([0.5000, 0.5000]))
    """

    def __init__(
        self,
        policy: str | Policy = "obtf",
        *,
        rate: float | None = None,
        k: int | None = None,
        solver: Any = "auto",
        time_limit: float | None = None,
        max_iterations: int | None = None,
        seed: int | None = None,
        nonfinite: Literal["raise", "exclude"] = "raise",
        policy_options: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        backend_params: Mapping[str, Any] | None = None,
        constraints: Mapping[str, Any] | None = None,
        rank: int | None = None,
    ) -> None:
        check_choice("nonfinite", nonfinite, ("raise", "exclude"))
        self.policy = _as_policy(policy, policy_options)
        self.policy_name = policy if isinstance(policy, str) else type(policy).__name__
        self.rate, self.k = rate, k
        _check_size(rate, k)
        self.time_limit = so.Deadline(time_limit).seconds if time_limit is not None else None
        self.nonfinite = nonfinite
        self.constraints = _checked_constraints(constraints)
        self.rank = rank
        self.seed = secrets.randbits(62) if seed is None else _checked_seed(seed)
        self.step = 0
        self.fallbacks = 0
        self.excluded = 0
        self._warned = False
        self.solver = solver
        plain_auto = (
            isinstance(solver, str) and solver == "auto" and not (options or backend_params)
        )
        self._solve: dict[str, Any] = {
            "solver": getattr(self.policy, "solver", solver) if plain_auto else solver,
            "max_iterations": max_iterations,
            "options": dict(options) if options else None,
            "backend_params": dict(backend_params) if backend_params else None,
        }
        # With no time at all nothing is solved, but every name and option is looked at.
        nothing = so.Problem(so.TopScores(np.empty(0)), 0)
        so.solve(nothing, time_limit=0, seed=self._seeds(), **self._solve)

    def __repr__(self) -> str:
        size = f"k={self.k}" if self.rate is None else f"rate={self.rate}"
        return f"BatchSelector({self.policy_name!r}, {size}, solver={self.solver!r})"

    def size(self, n: int) -> int:
        """Return how many of n candidates are chosen."""
        return min(int(self.k), n) if self.k is not None else so.size_from_rate(n, self.rate or 0.0)

    def needs_scoring(self, n: int) -> bool:
        """Return whether a forward pass over n candidates is needed before the next selection."""
        state = SelectionState(self.step, n, self.size(n))
        return bool(self.policy.requires) and self.policy.needs_scoring(state)

    def __call__(
        self, losses: Tensor, *, constraints: Mapping[str, Any] | None = None, **signals: Any
    ) -> Picked:
        """Choose from a batch whose losses are known.

        Parameters
        ----------
        losses
            Per-sample losses, shape (n,), any real dtype, any device; gradients are ignored.
        constraints
            ``include``, ``exclude``, ``groups``, ``quotas``, ``costs``, ``capacity`` for this
            batch, over those of the selector.
        signals
            What else the policy requires: ``logits=`` (n, classes), ``targets=``, ``ids=`` (n,).

        Returns
        -------
        Picked
            On the losses' device. Empty for an empty batch.

        Raises
        ------
        ProblemError
            If the losses are malformed or not finite, a required signal is missing, or a
            constraint is malformed.
        """
        tensor = as_loss_vector(losses)
        host = to_host(tensor)  # the one transfer, which also waits for the device
        deadline = so.Deadline(self.time_limit)
        good = np.isfinite(host)
        bad = _NO_INDICES if good.all() else np.flatnonzero(~good)
        if bad.size:
            host = self._without_nonfinite(host, bad)
            tensor = torch.from_numpy(host).to(tensor.device)
        given = {**signals, "losses": Both(host, tensor)}
        return self._select(
            host.size, tensor.device, tensor.dtype, given, constraints, bad, deadline
        )

    def without_losses(
        self,
        n: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        constraints: Mapping[str, Any] | None = None,
        **signals: Any,
    ) -> Picked:
        """Choose from n candidates of which no forward pass was made; ``needs_scoring`` is False.

        Raises
        ------
        ProblemError
            If the policy does need the losses, or a constraint is malformed.
        """
        deadline = so.Deadline(self.time_limit)
        return self._select(
            n, torch.device(device), dtype, signals, constraints, _NO_INDICES, deadline
        )

    def everything(
        self, n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Picked:
        """Take all n samples with weight 1/n, and count it as a selection."""
        self.step += 1
        indices = torch.arange(n, device=device)
        weights = torch.full((n,), 1.0 / n if n else 0.0, device=device, dtype=weight_dtype(dtype))
        return Picked(
            indices, weights, n, lambda: so.solve(so.Problem(so.TopScores(np.zeros(n)), n))
        )

    def nothing(
        self, n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Picked:
        """Return an empty pick of n samples; no selection is counted."""
        indices = torch.empty(0, dtype=torch.int64, device=device)
        weights = torch.empty(0, dtype=weight_dtype(dtype), device=device)
        return Picked(
            indices, weights, n, lambda: so.solve(so.Problem(so.TopScores(np.zeros(n)), 0))
        )

    @property
    def listens(self) -> bool:
        """Whether the policy makes anything of feedback."""
        return getattr(type(self.policy), "observe", None) is not StatelessPolicy.observe

    def observe(self, feedback: Feedback) -> None:
        """Pass on to the policy what the training forward told."""
        self.policy.observe(feedback)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: step, seed, counters and the policy's state."""
        return {
            "policy_name": self.policy_name,
            "policy": self.policy.state_dict(),
            "step": self.step,
            "seed": self.seed,
            "fallbacks": self.fallbacks,
            "excluded": self.excluded,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; bit-identical under work limits.

        Raises
        ------
        OptionError
            If the state was saved with another policy, or is incomplete.
        """
        missing = {"policy_name", "policy", "step", "seed", "fallbacks", "excluded"} - set(state)
        if missing:
            raise so.OptionError(f"the selector state lacks {sorted(missing)}.")
        if state["policy_name"] != self.policy_name:
            raise so.OptionError(
                f"the state was saved with policy {state['policy_name']!r}, this selector has "
                f"{self.policy_name!r}."
            )
        self.policy.load_state_dict(state["policy"])
        self.step, self.seed = int(state["step"]), int(state["seed"])
        self.fallbacks, self.excluded = int(state["fallbacks"]), int(state["excluded"])

    def exclude_nonfinite(self, positions: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Count samples whose loss is not finite, or raise: as ``nonfinite`` says.

        Raises
        ------
        ProblemError
            With ``nonfinite="raise"``; the message names the positions in the batch.
        """
        if self.nonfinite == "raise":
            shown = ", ".join(
                f"{i} ({v})" for i, v in zip(positions[:5], values[:5], strict=True)
            ) + (f" and {positions.size - 5} more" if positions.size > 5 else "")
            raise so.ProblemError(
                f"losses are not finite at positions {shown} of the batch. Mend the samples or "
                "the loss, or pass nonfinite='exclude' to train without them."
            )
        self.excluded += int(positions.size)

    def _without_nonfinite(
        self, losses: NDArray[Any], bad: NDArray[np.int64]
    ) -> NDArray[np.floating[Any]]:
        """Return the losses with the mean of the finite ones in place of the others.

        The mean of the batch is then the mean of the finite losses, whatever a policy does.
        """
        self.exclude_nonfinite(bad, losses[bad])
        mended = losses.astype(np.float64)
        mended[bad] = 0.0
        finite = losses.size - bad.size
        mended[bad] = math.fsum(mended) / finite if finite else 0.0
        return mended.astype(losses.dtype)

    def _select(
        self,
        n: int,
        device: torch.device,
        dtype: torch.dtype,
        signals: Mapping[str, Any],
        constraints: Mapping[str, Any] | None,
        bad: NDArray[np.int64],
        deadline: so.Deadline,
    ) -> Picked:
        k = min(self.size(n), n - bad.size)
        rules = {**self.constraints, **_checked_constraints(constraints)}
        problem = self._propose(n, k, device, signals, rules, bad)
        solution, reason = self._solution(problem, deadline)
        if reason is None:
            indices, weights = solution.indices, solution.weights
        else:
            indices, weights = self._uniform_draw(problem)
        self.step += 1
        on_device = to_device(indices, weights, device, weight_dtype(dtype))
        return Picked(*on_device, n, solution, int(bad.size), reason)

    def _propose(
        self,
        n: int,
        k: int,
        device: torch.device,
        signals: Mapping[str, Any],
        rules: dict[str, Any],
        bad: NDArray[np.int64],
    ) -> so.Problem:
        if n == 0 or k == 0:
            return so.Problem(so.TopScores(np.zeros(n)), 0)
        names = frozenset(self.policy.requires)
        missing = [name for name in sorted(names) if signals.get(name) is None]
        if missing:
            raise so.ProblemError(
                f"policy {self.policy_name!r} needs the signal {missing[0]!r}: pass "
                f"{missing[0]}= to the selector."
            )
        given = policy_signals(signals, names, n, device)
        given["positions"] = np.arange(n)
        rng = np.random.default_rng([*self._seeds(), 1])
        return _constrained(self.policy.propose(given, k, rng), rules, bad)

    def _solution(
        self, problem: so.Problem, deadline: so.Deadline
    ) -> tuple[so.Solution, str | None]:
        """Return the solver's answer, and why it is of no use (None when it is)."""
        try:
            solution = so.solve(problem, time_limit=deadline, seed=self._seeds(), **self._solve)
        except _SURVIVABLE as error:
            solution = _no_answer(problem, error, deadline)
        if solution.stop_reason is so.StopReason.INTERRUPTED:
            raise KeyboardInterrupt  # the solver stopped for it; the training loop must, too
        if solution.has_solution:
            return solution, None
        reason = str(solution.extras.get("error") or solution.extras.get("why") or "")
        reason = f"{solution.status.value} {reason}".strip()
        self.fallbacks += 1
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"selection {self.step} gave no subset, training goes on with a uniform draw: "
                f"{reason} Further ones are only counted, in selector.fallbacks.",
                SelectionWarning,
                stacklevel=4,
            )
        return solution, reason

    def _uniform_draw(self, problem: so.Problem) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return a uniform subset of the candidates that are not excluded."""
        allowed = np.arange(problem.n)
        if problem.exclude is not None:
            allowed = np.delete(allowed, problem.exclude)
        size = min(problem.k, allowed.size)
        rng = np.random.default_rng([*self._seeds(), 2])
        indices = np.sort(rng.choice(allowed, size, replace=False))
        return indices, np.full(size, 1.0 / size if size else 0.0)

    def _seeds(self) -> tuple[int, int, int]:
        return (self.seed, self.step, _rank() if self.rank is None else self.rank)


def _rank() -> int:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return 0


def _checked_seed(seed: object) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise so.OptionError(
            f"seed must be a nonnegative int or None, got {seed!r}: a selector derives the seed "
            "of every step and rank from it."
        )
    return int(seed)


def _as_policy(policy: str | Policy, options: Mapping[str, Any] | None) -> Policy:
    if isinstance(policy, str):
        return make_policy(policy, **(options or {}))
    if options:
        raise so.OptionError("policy_options belong into the policy object: pass them to it.")
    if not isinstance(policy, Policy):
        raise so.OptionError(
            f"policy must be a registered name or a policy object, got {type(policy).__name__}."
        )
    return policy


def _check_size(rate: float | None, k: int | None) -> None:
    if (rate is None) == (k is None):
        raise so.ProblemError(
            f"pass rate (a fraction of each batch) or k (a count), one of them; got rate={rate!r}, "
            f"k={k!r}."
        )
    if rate is not None:
        so.size_from_rate(1, rate)
    elif isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 0:
        raise so.ProblemError(f"k must be an integer >= 0, got {k!r}; for a fraction use rate.")


def _checked_constraints(constraints: Mapping[str, Any] | None) -> dict[str, Any]:
    given = constraints_to_host(constraints)
    for name in given:
        if name not in _CONSTRAINTS:
            raise so.OptionError(
                f"no constraint named {name!r}; known are {', '.join(_CONSTRAINTS)}."
            )
    return given


def _constrained(problem: so.Problem, rules: dict[str, Any], bad: NDArray[np.int64]) -> so.Problem:
    """Return the policy's problem with the user's constraints and without the bad samples."""
    if not rules and not bad.size:
        return problem
    own = {name: getattr(problem, name) for name in _CONSTRAINTS}
    extra = so.Problem(problem.objective, problem.k, **rules)
    merged: dict[str, Any] = {}
    for name in ("groups", "quotas", "costs", "capacity"):
        theirs = getattr(extra, name)
        if own[name] is not None and theirs is not None:
            raise so.ProblemError(
                f"the policy sets {name} itself, so that {name} cannot be given besides."
            )
        merged[name] = theirs if own[name] is None else own[name]
    merged["include"] = _union(own["include"], extra.include)
    merged["exclude"] = _union(own["exclude"], extra.exclude, bad)
    return so.Problem(problem.objective, problem.k, problem.cardinality, **merged)


def _union(*parts: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    arrays = [part for part in parts if part is not None and part.size]
    return np.unique(np.concatenate(arrays)) if arrays else None


def _no_answer(problem: so.Problem, error: so.SubsetOptError, deadline: so.Deadline) -> so.Solution:
    """Return the Solution that stands for a solver that raised."""
    minimize = problem.objective.sense == "minimize"
    return so.Solution(
        _NO_INDICES,
        np.empty(0),
        problem.n,
        math.nan,
        -math.inf if minimize else math.inf,
        so.Status.ERROR,
        so.StopReason.OTHER,
        "none",
        solve_time=deadline.elapsed(),
        scale=problem.objective.scale,
        extras={"error": f"{type(error).__name__}: {error}"},
    )
