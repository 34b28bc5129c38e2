"""Ways to choose from a batch, by name: every policy, and further solvers of the same problems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import subsetopt as so
from benchmarks.harness.moments import Moment
from benchmarks.rivals import published
from benchmarks.rivals.peers import OF_SIMILARITIES, Peer, cosines, missing
from subsetopt.policies import SolverChoice, WithSolver, WithWeigh, has, list_policies, make_policy

__all__ = ["METHODS", "ORACLE", "Method", "Pick", "register"]

Weights = Literal["uniform", "nonnegative"]
Pick = tuple[NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Method:
    """A name, what it reads, and how it picks k of a moment's samples, with weights.

    ``weighted`` methods choose weights besides samples; ``random`` ones pick differently with
    every seed.
    """

    name: str
    reads: str
    pick: Callable[[Moment, int, int], Pick]
    weighted: bool = False
    random: bool = True


METHODS: dict[str, Method] = {}
# The oracle reads the gradients themselves, which no policy has before it has chosen.
ORACLE = "oracle: swap on whole gradients, uniform"
# The oracle searches for this many seconds.
_ORACLE_LIMIT = 1.0


def register(method: Method) -> Method:
    """Add a method; it then takes part in the benchmark."""
    if method.name in METHODS:
        raise ValueError(f"a method named {method.name!r} is registered already")
    METHODS[method.name] = method
    return method


def _policy(name: str, **options: object) -> Callable[[Moment, int, int], Pick]:
    """Return what picks by a new policy each time: nothing is learnt from batch to batch."""

    def pick(moment: Moment, k: int, seed: int) -> Pick:
        policy = make_policy(name, **options)
        problem = policy.propose(moment.signals, k, np.random.default_rng(seed))
        solver = policy.solver if has(policy, WithSolver) else SolverChoice("auto")
        answer = so.solve(problem, solver.name, seed=seed, options=solver.options or None).require()
        weights = policy.weigh(answer) if has(policy, WithWeigh) else answer.weights
        return answer.indices, weights

    return pick


def _drawn(signal: str) -> Callable[[Moment, int, int], Pick]:
    def pick(moment: Moment, k: int, seed: int) -> Pick:
        scores = moment.signals[signal].astype(np.float64)
        design = so.SamplingDesign(scores / scores.sum(), replacement=True)
        answer = so.solve(so.Problem(design, k), "multinomial", seed=seed).require()
        return answer.indices, answer.weights

    return pick


def _vectors(signal: str, weights: Weights, solver: str) -> Callable[[Moment, int, int], Pick]:
    def pick(moment: Moment, k: int, seed: int) -> Pick:
        objective = so.VectorMatching(moment.signals[signal], weights=weights)
        answer = so.solve(so.Problem(objective, k), solver, seed=seed).require()
        return answer.indices, answer.weights

    return pick


def _oracle(moment: Moment, k: int, seed: int) -> Pick:
    """Return a search for the least distance that equal weights can have."""
    values, bases = np.linalg.eigh(moment.gram)
    # Rows with the inner products of the gradients have the distances between their means, too.
    rows = bases * np.sqrt(np.maximum(values, 0.0))
    problem = so.Problem(so.VectorMatching(rows), k)
    answer = so.solve(problem, "swap", time_limit=_ORACLE_LIMIT, seed=seed).require()
    return answer.indices, answer.weights


def _coverage(make: Callable[..., so.FacilityLocation | so.KCenter]) -> Callable[..., Pick]:
    def pick(moment: Moment, k: int, seed: int) -> Pick:
        problem = so.Problem(make(moment.signals["features"]), k)
        answer = so.solve(problem, seed=seed).require()
        return answer.indices, answer.weights

    return pick


def _peer(peer: Peer) -> Callable[[Moment, int, int], Pick]:
    def pick(moment: Moment, k: int, seed: int) -> Pick:
        chosen = peer.choose(cosines(moment.signals["features"].astype(np.float64)), k)
        return chosen, np.full(k, 1.0 / k)

    return pick


def _regression(moment: Moment) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the last layer's gradients as columns, and their mean, which they are to make up."""
    gradients = moment.signals["last_layer_gradients"].astype(np.float64)
    return gradients.T, gradients.mean(axis=0)


def _nonzero(coefficients: NDArray[np.float64]) -> Pick:
    chosen = np.flatnonzero(coefficients)
    return chosen, coefficients[chosen]


def _published(
    weigh: Callable[[NDArray[np.float64], int], NDArray[np.floating[Any]]],
) -> Callable[[Moment, int, int], Pick]:
    """Return what picks by a published algorithm, of the samples that have a gradient."""

    def pick(moment: Moment, k: int, seed: int) -> Pick:
        rows = moment.signals["last_layer_gradients"].astype(np.float64)
        alive = np.flatnonzero(np.linalg.norm(rows, axis=1))
        chosen, weights = _nonzero(np.asarray(weigh(rows[alive], k), dtype=np.float64))
        # Samples without a gradient are left out, so the mean of the rest is scaled to that of all.
        return alive[chosen], weights * (alive.size / len(rows))

    return pick


def _sklearn_omp(moment: Moment, k: int, seed: int) -> Pick:
    from sklearn.linear_model import orthogonal_mp

    return _nonzero(orthogonal_mp(*_regression(moment), n_nonzero_coefs=k))


def _sklearn_lars(moment: Moment, k: int, seed: int) -> Pick:
    """Return the last point of the path of the nonnegative lasso that has at most k weights."""
    from sklearn.linear_model import lars_path

    _, _, path = lars_path(*_regression(moment), method="lasso", positive=True)
    few = np.flatnonzero(np.count_nonzero(path, axis=0) <= k)
    return _nonzero(path[:, few[-1]])


# These policies need losses of another run, or a history, which a single moment does not have.
_WITH_HISTORY = ("rho-loss", "online-batch", "prioritized", "selective-backprop")
_WITH_OPTIONS = ("importance", "balanced", "gradient-matching", "uncertainty")
_RANDOM = ("uniform", "proportional-loss", "obtf", "adaselection")
for _row in list_policies():
    if _row.name not in (*_WITH_HISTORY, *_WITH_OPTIONS):
        register(
            Method(_row.name, ", ".join(_row.requires), _policy(_row.name),
                   random=_row.name in _RANDOM)
        )  # fmt: skip
for _score in ("entropy", "margin"):
    register(
        Method(f"uncertainty, {_score}", "logits", _policy("uncertainty", score=_score),
               random=False)
    )  # fmt: skip
for _signal in ("losses", "upper_bound", "gradient_norms"):
    # The policy starts switched off; this measures what it does while it is on.
    register(Method(f"importance, {_signal}", _signal, _drawn(_signal), weighted=True))
for _score in ("upper_bound", "gradient_norm"):
    register(
        Method(f"balanced, {_score}", f"{_score}, losses", _policy("balanced", score=_score),
               weighted=True)
    )  # fmt: skip
register(
    Method("balanced, upper_bound, on logit gradients", "upper_bound, losses, logit_gradients",
           _policy("balanced", balance="logit_gradients"), weighted=True)
)  # fmt: skip
for _signal in ("logit_gradients", "last_layer_gradients"):
    for _weights in ("uniform", "nonnegative"):
        register(
            Method(f"matching, {_weights}, {_signal}", _signal,
                   _policy("gradient-matching", signal=_signal, weights=_weights),
                   weighted=_weights != "uniform")
        )  # fmt: skip
_UNIFORM: Weights = "uniform"
_FITTED: Weights = "nonnegative"
for _solver, _kind in (
    ("herding", _UNIFORM), ("frank-wolfe", _UNIFORM), ("pairwise-frank-wolfe", _UNIFORM),
    ("giga", _FITTED), ("frank-wolfe", _FITTED),
    ("away-frank-wolfe", _FITTED), ("pairwise-frank-wolfe", _FITTED),
):  # fmt: skip
    register(
        Method(f"{_solver}, {_kind}, last_layer_gradients", "last_layer_gradients",
               _vectors("last_layer_gradients", _kind, _solver),
               weighted=_kind is _FITTED)
    )  # fmt: skip
register(Method("facility location", "features", _coverage(so.FacilityLocation), random=False))
register(Method("k-center", "features", _coverage(so.KCenter), random=False))
for _peer_of in (OF_SIMILARITIES[0], OF_SIMILARITIES[-1]):
    if missing(_peer_of.package) is None:
        register(
            Method(f"{_peer_of.package}, facility location", "features", _peer(_peer_of),
                   random=False)
        )  # fmt: skip
if missing("sklearn") is None:
    register(
        Method("scikit-learn OMP, signed weights", "last_layer_gradients", _sklearn_omp,
               weighted=True, random=False)
    )  # fmt: skip
    register(
        Method("scikit-learn lasso path (Lars), nonnegative", "last_layer_gradients",
               _sklearn_lars, weighted=True, random=False)
    )  # fmt: skip
for _title, _weigh in (
    ("GIGA", published.giga), ("OMP", published.matching_pursuit),
    ("Frank-Wolfe", published.frank_wolfe),
):  # fmt: skip
    register(
        Method(f"{_title} as published, in NumPy", "last_layer_gradients", _published(_weigh),
               weighted=True, random=False)
    )  # fmt: skip
register(Method(ORACLE, "gram", _oracle, random=False))
