"""The selector: from the losses of a batch to the samples worth a backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import subsetopt as so
from subsetopt.inputs import checked_choice
from subsetopt.policies import Feedback, Policy, SelectionState, listens, to_host
from subsetopt.policies.parts.saved_state import SavedState, load_policies
from subsetopt_torch.arguments import (
    Constraints,
    Signal,
    check_size,
    checked_seed,
    process_rank,
)
from subsetopt_torch.model.losses import as_loss_vector, weight_dtype
from subsetopt_torch.selection.annealing import first_full
from subsetopt_torch.selection.answers import no_answer, training_weights, uniform_draw
from subsetopt_torch.selection.constraints import Rules, merged_rules
from subsetopt_torch.selection.hearing import Hearing, feedback_on, finite
from subsetopt_torch.selection.named_policy import HasNamedPolicy, NamedPolicy, SolverLike
from subsetopt_torch.selection.picked import Origin, Picked, first_of
from subsetopt_torch.selection.presample import Presample, presampled
from subsetopt_torch.selection.proposal import (
    Request,
    check_names,
    checked_signals,
    mended,
    nonfinite_error,
    proposed,
)
from subsetopt_torch.selection.transfer import Both, to_device

__all__ = ["BatchSelector", "SelectionWarning"]

# Errors of a solver that training survives, with a uniform draw.
_SURVIVABLE = (so.SolverError, so.SolverLicenseError, so.SolverUnavailableError)
_NO_INDICES = np.empty(0, dtype=np.int64)


class SelectionWarning(RuntimeWarning):
    """A selection went wrong and training went on with a uniform draw."""


class BatchSelector(HasNamedPolicy):
    """Choose the samples of a batch that deserve a backward pass.

    Parameters
    ----------
    policy
        A registered name (``subsetopt.policies.list_policies()``) or a policy object.
    rate
        Fraction of each batch to choose, in [0, 1]: ``min(n, max(1, floor(rate * n + 0.5)))``.
    k
        Number of samples to choose, at most all of the batch. Exactly one of rate and k is given.
    solver
        ``"auto"``, a registered name, a solver object, or a list of these to fall over along. A
        policy may say what ``"auto"`` stands for (its attribute ``solver``), unless options are
        given.
    time_limit
        Seconds per selection, counted from the moment the losses are on the host. None stands for
        the solver's default work limit. Only work limits reproduce.
    max_iterations
        Work limit in the solver's own unit.
    seed
        A nonnegative int. Selection t on rank r uses ``(seed, t, r)``. None draws one, which
        ``state_dict`` then holds.
    nonfinite
        What to do about NaN and infinite losses: ``"raise"`` (the default) raises, ``"exclude"``
        leaves these samples out of the choice and of the mean, and counts them.
    policy_options
        Hyperparameters of a policy given by name.
    options
        Hyperparameters of a solver given by name.
    backend_params
        Native parameters of a MIP backend.
    constraints
        Constraints on every batch, by the names of :class:`subsetopt.Problem`: typically
        ``{"quotas": {...}}`` or ``{"capacity": ...}``, with groups or costs passed per batch.
    rank
        Number of this process; None asks ``torch.distributed``, and stands for 0 without it.

    Attributes
    ----------
    policy, policy_name
        The policy, with what it remembers, and its registered name or the name of its class.
    step
        Selections made so far.
    fallbacks
        How many of them were a uniform draw because the solver gave no subset.
    excluded
        Number of samples left out so far because their loss was not finite.
    floor
        The smallest number of samples that is chosen, where any are and the batch has as many: 1,
        and 2 where a :class:`SelectiveStep` finds that BatchNorm needs more than one.

    Raises
    ------
    OptionError, SolverNotFoundError
        If a name or an option is wrong.
    ProblemError
        If both or none of rate and k are given, or the value is out of range.

    Notes
    -----
    One transfer to the host per selection (the losses) and one back (indices and weights, in one
    piece). A selection that fails for lack of a subset, a license or a package ends in a uniform
    draw from the samples that may be chosen; it warns once, is counted in ``fallbacks``, and
    ``picked.fallback`` says why. Misuse raises.

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
        solver: SolverLike = "auto",
        time_limit: float | None = None,
        max_iterations: int | None = None,
        seed: int | None = None,
        nonfinite: Literal["raise", "exclude"] = "raise",
        policy_options: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        backend_params: Mapping[str, Any] | None = None,
        constraints: Constraints | None = None,
        rank: int | None = None,
        full_after: float | None = None,
        total_steps: int | None = None,
    ) -> None:
        checked_choice("nonfinite", nonfinite, ("raise", "exclude"), listed=True)
        self._named = NamedPolicy.of(policy, policy_options)
        self.rate, self.k = rate, k
        check_size(rate, k)
        self.time_limit = so.Deadline(time_limit).seconds if time_limit is not None else None
        self.nonfinite = nonfinite
        self.constraints = merged_rules(self._named, {}, constraints)
        self.rank = rank
        self.full_from = first_full(full_after, total_steps, "total_steps")
        self.seed = checked_seed(seed)
        self.step = 0
        self.fallbacks = 0
        self.excluded = 0
        self.floor = 1
        self._warned = False
        self._hearing = Hearing()
        self.solver = solver
        self._solve = self._named.solve_with(
            solver,
            self._seeds(),
            max_iterations=max_iterations,
            options=options,
            backend_params=backend_params,
        )

    def __repr__(self) -> str:
        size = f"k={self.k}" if self.rate is None else f"rate={self.rate}"
        return f"BatchSelector({self.policy_name!r}, {size}, solver={self.solver!r})"

    def size(self, n: int) -> int:
        """Return how many of n candidates are chosen."""
        if self.step >= self.full_from:
            return n
        k = int(self.k) if self.k is not None else so.size_from_rate(n, self.rate or 0.0)
        return min(max(k, self.floor), n) if k else 0

    def needs_scoring(self, n: int) -> bool:
        """Return whether a forward pass over n candidates is needed before the next selection."""
        state = SelectionState(self.step, n, self.size(n))
        return bool(state.k and self.policy.requires) and self.policy.needs_scoring(state)

    def presample(self, n: int, *, constraints: Constraints | None = None) -> Presample | None:
        """Return which of n candidates the policy wants scored before the next selection.

        For a loop that makes the scoring pass itself, and only on these. Asked again before the
        selection is made, the answer is the same.

        Parameters
        ----------
        n
            The size of the batch.
        constraints
            The constraints of the selection to come; the samples that they include are added.

        Returns
        -------
        Presample | None
            None when the policy wants all of them, or no scores at all.

        Raises
        ------
        ProblemError
            If the policy's positions are malformed.
        """
        return self._presample(n, self._rules(constraints))

    def __call__(
        self,
        losses: Tensor,
        *,
        presample: Presample | None = None,
        constraints: Constraints | None = None,
        **signals: Signal,
    ) -> Picked:
        """Choose from a batch whose losses are known.

        Parameters
        ----------
        losses
            Per-sample losses, shape (n,), any real dtype, any device; gradients are ignored.
        presample
            What :meth:`presample` returned, if losses and signals have one row for each of these m
            candidates. Without it they have one for each of the n samples, and where the policy
            presamples, the rows of its candidates are taken from them.
        constraints
            ``include``, ``exclude``, ``groups``, ``quotas``, ``costs``, ``capacity`` for this
            batch, in place of those of the selector by the same name; always on all n samples.
        signals
            Other signals that the policy requires: ``logits=`` (n, classes), ``targets=``,
            ``ids=`` (n,). ``upper_bound`` and ``logit_gradients`` follow from logits and targets by
            plain cross entropy where they are not given.

        Returns
        -------
        Picked
            The chosen samples on the losses' device, with indices into the whole batch; no samples
            for an empty batch.

        Raises
        ------
        ProblemError
            If the losses are malformed or not finite, a required signal is missing, or a
            constraint is malformed.
        OptionError
            If a keyword is the name of no signal.
        """
        signals = checked_signals(self._named, signals)
        tensor = as_loss_vector(losses)
        rules = self._rules(constraints)
        if presample is None:
            presample = self._presample(tensor.shape[0], rules)
            if presample is not None:
                tensor = tensor[presample.on(tensor.device)]
                signals = presample.rows(signals)
        n = tensor.shape[0] if presample is None else presample.n
        if presample is not None and len(presample) != tensor.shape[0]:
            raise so.ProblemError(
                f"got {tensor.shape[0]} losses for {len(presample)} presampled candidates; pass "
                "the losses of presample.positions, or all n of them without presample=."
            )
        host = to_host(tensor)  # the one transfer, which also waits for the device
        deadline = so.Deadline(self.time_limit)
        good = np.isfinite(host)
        bad = _NO_INDICES if good.all() else np.flatnonzero(~good)
        if bad.size:
            positions = bad if presample is None else presample.positions[bad]
            self.exclude_nonfinite(positions, host[bad])
            host = mended(host, bad)
            tensor = torch.from_numpy(host).to(tensor.device)
        known = {**signals, "losses": Both(host, tensor)}
        return self._select(
            Request(n, presample, tensor.device, tensor.dtype, known, rules, bad, deadline)
        )

    def without_losses(
        self,
        n: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        constraints: Constraints | None = None,
        **signals: Signal,
    ) -> Picked:
        """Choose from n candidates without a forward pass.

        For where ``needs_scoring`` is False, or where the signals are given that the policy
        requires.

        Parameters
        ----------
        n
            The size of the batch.
        device
            The device of the answer.
        dtype
            The dtype of the weights; float32 where it is narrower.
        constraints, signals
            As when the selector is called with losses.

        Raises
        ------
        ProblemError
            If the policy does need the losses, or a constraint is malformed.
        OptionError
            If a keyword is the name of no signal.
        """
        signals = checked_signals(self._named, signals)
        deadline = so.Deadline(self.time_limit)
        rules, device = self._rules(constraints), torch.device(device)
        presample = self._presample(n, rules)
        if presample is not None:
            signals = presample.rows(signals)
        return self._select(
            Request(n, presample, device, dtype, signals, rules, _NO_INDICES, deadline)
        )

    def check_signals(self, names: Iterable[str]) -> None:
        """Raise unless every name is that of a signal.

        Raises
        ------
        OptionError
            With the nearest name of a signal.
        """
        check_names(self._named, names)

    def everything(
        self, n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Picked:
        """Take all n samples with weight 1/n, and count it as a selection."""
        self.step += 1
        return first_of(n, n, device, dtype)

    def nothing(
        self, n: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Picked:
        """Return an empty pick of n samples; no selection is counted."""
        return first_of(0, n, device, dtype)

    @property
    def listens(self) -> bool:
        """Whether the policy learns from feedback."""
        return listens(self.policy)

    def observe(
        self,
        picked: Picked,
        losses: Signal = None,
        logits: Signal = None,
        targets: Signal = None,
    ) -> None:
        """Tell the policy what the training forward gave for the picked samples.

        To be called after every update in a loop of your own; a :class:`SelectiveStep` does it.

        Parameters
        ----------
        picked
            What the selector returned.
        losses
            The unweighted losses of the picked samples, shape (k,), in their order; gradients are
            ignored. None (the default) takes the cross entropy of logits and targets.
        logits, targets
            The outputs for the picked samples, shape (k, classes), and their targets, for policies
            that learn from gradients with respect to the logits, by cross entropy.

        Raises
        ------
        ProblemError
            If something is missing, malformed or, with ``nonfinite="raise"``, not finite.

        Examples
        --------
        >>> import torch
        >>> selector = BatchSelector("prioritized", k=2, seed=0)
        >>> picked = selector(torch.ones(4), ids=torch.arange(4))
        >>> selector.observe(picked, losses=torch.tensor([0.5, 2.0]))
        """
        self._hearing.settle()
        if not len(picked) or not self.listens:
            return
        feedback, bad = finite(feedback_on(self._named, picked, losses, logits, targets))
        if len(bad.losses):
            self.exclude_nonfinite(bad.indices, bad.losses, "the training forward")
        self.hear(feedback if len(feedback.losses) else None)

    def hear(self, feedback: Feedback | None) -> None:
        """Pass on feedback that a step has made; None only says that it will come."""
        self._hearing.settle()
        if feedback is not None:
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
            If the state is malformed or of another policy; nothing is then loaded.
        """
        saved = SavedState("the selector", state, self.state_dict(), exactly=False)
        name, own = saved.text("policy_name"), self.policy_name
        if name != own:
            raise so.OptionError(
                f"the state was saved with policy {name!r}, this selector has {own!r}."
            )
        counts = [saved.integer(name) for name in ("step", "fallbacks", "excluded")]
        seed = saved.integer("seed", most=None)
        load_policies([self.policy], [state["policy"]], f"policy {own!r}")
        self.seed, (self.step, self.fallbacks, self.excluded) = seed, counts

    def exclude_nonfinite(
        self, positions: NDArray[np.int64], values: NDArray[Any], where: str = "the batch"
    ) -> None:
        """Count samples whose loss is not finite, or raise: as ``nonfinite`` says.

        Raises
        ------
        ProblemError
            With ``nonfinite="raise"``. The message names the positions, and ``where`` they count.
        """
        if self.nonfinite == "raise":
            raise nonfinite_error(positions, values, where)
        self.excluded += int(positions.size)

    def _rules(self, constraints: Constraints | None) -> Rules:
        return merged_rules(self._named, self.constraints, constraints)

    def _presample(self, n: int, rules: Rules) -> Presample | None:
        state = SelectionState(self.step, n, self.size(n))
        if not state.k or not self.needs_scoring(n):
            return None
        return presampled(self._named, state, partial(self._rng, 3), rules)

    def _select(self, request: Request) -> Picked:
        k, scoring = self.size(request.n), self.needs_scoring(request.n)
        problem = proposed(self._named, request, k, scoring, self._rng(1))
        solution, reason = self._solution(problem, request.deadline)
        if reason is None:
            indices = solution.indices
            weights = training_weights(self._named, solution)
        else:
            indices, weights = uniform_draw(problem, self._rng(2))
        origin = Origin(self.step, request.ids_at(indices), "losses" in request.signals)
        self.step += 1
        self._hearing.count(self._named)
        if request.presample is not None:
            indices = request.presample.positions[indices]
        on_device = to_device(indices, weights, request.device, weight_dtype(request.dtype))
        return Picked(*on_device, request.n, solution, int(request.bad.size), reason, origin)

    def _solution(
        self, problem: so.Problem, deadline: so.Deadline
    ) -> tuple[so.Solution, str | None]:
        """Return the solver's answer, and why it cannot be used; None where it can."""
        try:
            solution = self._solve(problem, time_limit=deadline, seed=self._seeds())
        except _SURVIVABLE as error:
            solution = no_answer(problem, error, deadline)
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

    def _rng(self, stream: int) -> np.random.Generator:
        """Return a random stream of this selection: 1 proposes, 2 falls back, 3 presamples."""
        return np.random.default_rng([*self._seeds(), stream])

    def _seeds(self) -> tuple[int, int, int]:
        return (self.seed, self.step, process_rank(self.rank))
